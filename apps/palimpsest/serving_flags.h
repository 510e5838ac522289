// What `serve` and `coordinator` have in common on the command line.
#pragma once

#include "apps/palimpsest/command.h"
#include "apps/serving/serving.h"

namespace palimpsest {

// --host, --port, --admin-port.
void AddServingFlags(CommandSet& commands, CLI::App& command);
// With --json, one line {"url", "admin_url", "pid"} on stdout when it is ready.
ServingOptions ServingOptionsOf(const CommandContext& context);

}  // namespace palimpsest
