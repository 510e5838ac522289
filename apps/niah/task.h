// A needle task: a text that hides facts, a question about them, and what a right answer contains.
//
// Tasks are written from the rules and the short wording of RULER (Hsieh et al. 2024, NVIDIA/RULER), so that
// figures can be held against published ones. They know nothing of models: how long a sample is, a counter
// says.
//
// To add one: a class, a row in MakeTask (task.cc), a row in docs/needles.md, its claims in
// tests/apps/niah_task_test.cc.
//
// Same seed, tokens and depth: the same sample on every machine, for a counter that counts the same.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

// A question and its answer; of several, each stands behind the ones before in one conversation.
struct NiahTurn {
  std::string question;
  std::string answer_prefix;            // the answer begins so
  std::vector<std::string> references;  // what a right answer contains
  std::string needle;                   // as it stands in the context
  double depth_percent = 0;             // where it was asked for
  double stands_at_percent = 0;         // where the needle came to stand, of the haystack's bytes
};

struct NiahSample {
  std::string context;  // introduction and haystack with the needles: the document
  std::vector<NiahTurn> turns;
};

// Tokens that a sample takes with all that a prompt and the answers need.
using CountSampleTokens = std::function<absl::StatusOr<int64_t>(const NiahSample& sample)>;

struct NiahRequest {
  uint64_t seed = 0;
  int64_t tokens = 0;        // with question and answer: never above, and as near below as whole pieces come
  double depth_percent = 0;  // 0 to 100; the needle stands at the border of sentences nearest to it
  int64_t turns = 1;         // needles, each asked for in a turn of its own
};

// Where the needle of turn `turn` (from 0) is to stand: turns spread evenly from the request's depth on, and
// around. So over a grid of depths each turn meets each depth.
double NiahDepth(const NiahRequest& request, int64_t turn);

class NiahTask {
 public:
  virtual ~NiahTask() = default;
  virtual std::string_view name() const = 0;
  // InvalidArgument: there is no room for question, needle and a first piece; says how many tokens they take.
  virtual absl::StatusOr<NiahSample> Generate(const NiahRequest& request,
                                              const CountSampleTokens& count) const = 0;
  // 0 to 1.
  virtual double Score(std::string_view output, const std::vector<std::string>& references) const = 0;
};

struct NiahTaskOptions {
  std::string prose;       // text of the tasks that read prose
  std::string prose_name;  // of the file, for errors
};

std::vector<std::string> NiahTaskNames();
// InvalidArgument: no such task; no prose for one that needs it, or too little.
absl::StatusOr<std::unique_ptr<NiahTask>> MakeNiahTask(std::string_view name, const NiahTaskOptions& options);

}  // namespace palimpsest
