// The flags that say which samples: of `niah`, which runs them, and of `niah generate`, which writes them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "apps/niah/runner.h"
#include "apps/palimpsest/command.h"

namespace palimpsest {

struct NiahSampleFlags {
  std::vector<std::string> tasks;
  std::string haystack, squad, hotpot_qa;
  std::vector<std::string> lengths = {"1K"}, depths = {"0", "25", "50", "75", "100"};
  int64_t seeds = 5, first_seed = 1, turns = 1, max_tokens = 0;
};
void AddNiahSampleFlags(CLI::App& command, NiahSampleFlags& flags);

// Tasks, lengths, depths, seeds, turns and the answers' limit; reads the files. What of a file's content
// matters to a result is added to `settings`.
absl::Status AddNiahSamples(const NiahSampleFlags& flags, const CommandContext& context, NiahOptions* options,
                            NiahSettings* settings);

// niah generate, niah score, niah compare.
void AddNiahFileCommands(CommandSet& commands, CLI::App& niah);

}  // namespace palimpsest
