// palimpsest worker: one rank of a cluster; it joins the coordinator at cluster.coordinator.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "apps/palimpsest/command.h"
#include "apps/serving/worker_process.h"

namespace palimpsest {

void AddWorkerCommand(CommandSet& commands) {
  commands.Add("worker", "A worker of a cluster: computes what its coordinator asks", Generation::kNo,
               [](const CommandContext& context) { return RunWorker(context.config, *context.cancel); });
}

}  // namespace palimpsest
