// Runs needle tasks: every cell of tasks x lengths x depths x policies x what the policy may see, with as
// many samples as there are seeds.
//
// `full` always runs: the others are read against it. Each sample's context is read once; all its runs find
// its blocks again, so the seconds to the first token are those of a question about a document that was
// ingested. Samples that differ in depth alone run one after the other: their texts begin alike, and what is
// alike is read once.
//
// Errors : of options before anything is computed; of a run, with the sample's name, unless the answerer's
//          requests fail alone: then the trial says so and the run goes on. Cancelled: what was finished is
//          in the state.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/model.h"
#include "apps/niah/answerer.h"
#include "apps/niah/prompt.h"
#include "apps/niah/state.h"
#include "apps/niah/task.h"
#include "apps/niah/trial.h"
#include "proto/base/cancel.h"
#include "proto/base/progress.h"

namespace palimpsest {

struct NiahOptions {
  std::vector<std::unique_ptr<NiahTask>> tasks;
  std::vector<int64_t> lengths;            // tokens, with question and answer
  std::vector<double> depths_percent;      // 0 to 100; tasks that have none take the first
  int64_t first_seed = 1, seeds = 1;       // samples of each cell
  std::vector<NiahPolicy> policies;        // besides full
  std::vector<RecallSpec> recalls = {{}};  // each with each of these policies
  bool oracle = false;                     // each that recalls slices once more, with the needle's own
  std::vector<bool> visible = {false};     // runs with the question hidden from the policy, or visible to it
  PrefillChoice prefill = PrefillChoice::kAuto;
  int64_t turns = 1;           // questions of a context, asked one after the other
  int64_t max_tokens = 0;      // of an answer; 0: as the task says
  std::string ssd_folder;      // of the engine's SSD tier; empty: it has none
  NiahState* state = nullptr;  // what is finished; null: nothing is, and nothing is kept
  const CancelToken* cancel = &CancelToken::Never();
  ProgressOutput progress = NoProgress();
};

// In the order of tasks, lengths, depths, seeds, questions, policies, turns.
absl::StatusOr<std::vector<NiahTrial>> RunNiah(NiahAnswerer& answerer, const NiahOptions& options);
// With the engine of this process.
absl::StatusOr<std::vector<NiahTrial>> RunNiah(Model& model, const NiahOptions& options);

// All samples of the options' tasks, lengths, depths and seeds.
struct NiahPlace {
  const NiahTask* task = nullptr;
  NiahRequest request;
};
std::vector<NiahPlace> NiahPlaces(const NiahOptions& options);

}  // namespace palimpsest
