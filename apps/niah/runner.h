// Runs needle tasks through the engine in this process: every cell of tasks x lengths x depths x policies x
// what the policy may see, with as many samples as there are seeds.
//
// `full` always runs: the others are read against it. Each sample's context is read once; all its runs find
// its blocks again, so the seconds to the first token are those of a question about a document that was
// ingested.
//
// Errors : of options before anything is computed; of a run, with the sample's name. Cancelled.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/model.h"
#include "apps/niah/prompt.h"
#include "apps/niah/report.h"
#include "apps/niah/task.h"
#include "proto/base/cancel.h"
#include "proto/base/progress.h"

namespace palimpsest {

struct NiahOptions {
  std::vector<std::unique_ptr<NiahTask>> tasks;
  std::vector<int64_t> lengths;            // tokens, with question and answer
  std::vector<double> depths_percent;      // 0 to 100
  int64_t first_seed = 1, seeds = 1;       // samples of each cell
  std::vector<NiahPolicy> policies;        // besides full
  std::vector<RecallSpec> recalls = {{}};  // each with each of these policies
  bool oracle = false;                     // each that recalls slices once more, with the needle's own
  std::vector<bool> visible = {false};     // runs with the question hidden from the policy, or visible to it
  PrefillChoice prefill = PrefillChoice::kAuto;
  int64_t turns = 1;        // needles of a context, asked for one after the other
  int64_t max_tokens = 32;  // of an answer
  std::string ssd_folder;   // of the engine's SSD tier; empty: it has none
  const CancelToken* cancel = &CancelToken::Never();
  ProgressOutput progress = NoProgress();
};

absl::StatusOr<std::vector<NiahTrial>> RunNiah(Model& model, const NiahOptions& options);

}  // namespace palimpsest
