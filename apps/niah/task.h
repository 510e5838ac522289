// A needle task: a text that hides facts, a question about them, and what a right answer contains.
//
// Tasks are written from the rules of the benchmarks that they are named after (RULER: Hsieh et al. 2024,
// NVIDIA/RULER; InfiniteBench; BABILong), so that figures can be held against published ones where the
// wording is theirs too (docs/needle-tasks.md says where). They know nothing of models: how long a sample is,
// a counter says.
//
// To add one: a class in a file of its own, its factory in families.h, a row in task.cc, a row in
// docs/needle-tasks.md, its claims in tests/apps/niah_task_test.cc.
//
// Same seed, tokens and depth: the same sample on every machine, for a counter that counts the same.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

// A question and its answer; of several, each stands behind the ones before in one conversation.
struct NiahTurn {
  std::string question;
  std::string answer_prefix;            // the answer begins so
  std::vector<std::string> references;  // what a right answer contains
  std::vector<std::string> needles;     // what answers it, as it stands in the context
  double depth_percent = 0;             // where the first of them was asked for
  double stands_at_percent = 0;         // where it came to stand, of the haystack's bytes
};

struct NiahSample {
  std::string context;  // introduction and haystack with the needles: the document
  std::vector<NiahTurn> turns;
  int64_t answer_tokens = 0;  // each answer has at most so many
};

// Tokens that a sample takes with all that a prompt and the answers need.
using CountSampleTokens = std::function<absl::StatusOr<int64_t>(const NiahSample& sample)>;

struct NiahRequest {
  uint64_t seed = 0;
  int64_t tokens = 0;         // with question and answer: never above, and as near below as whole pieces come
  double depth_percent = 0;   // 0 to 100; the needle stands at the border of sentences nearest to it
  int64_t turns = 1;          // questions, each with needles of its own
  int64_t answer_tokens = 0;  // of each answer; 0: the task's own limit
};

// Where the needle of turn `turn` (from 0) is to stand: turns spread evenly from the request's depth on, and
// around. So over a grid of depths each turn meets each depth.
double NiahDepth(const NiahRequest& request, int64_t turn);

// How much of what was asked for is in the output: 0 to 1.
using NiahScorer = double (*)(std::string_view output, const NiahTurn& turn);

// What a task is, besides its samples.
struct NiahTaskTraits {
  std::string name;
  NiahScorer score = nullptr;
  int64_t answer_tokens = 0;  // RULER's limit where it is RULER's task
  bool depths = true;         // false: what is asked for is all over the text, so that a depth means nothing
  bool turns = true;          // false: one question to a text
};

class NiahTask {
 public:
  explicit NiahTask(NiahTaskTraits traits) : traits_(std::move(traits)) {}
  virtual ~NiahTask() = default;
  const std::string& name() const { return traits_.name; }
  bool has_depths() const { return traits_.depths; }
  double Score(std::string_view output, const NiahTurn& turn) const { return traits_.score(output, turn); }
  // InvalidArgument: there is no room for question, needle and a first piece (says how many tokens they
  // take); the haystack is too short (says how many it has); more turns than the task has questions.
  absl::StatusOr<NiahSample> Generate(const NiahRequest& request, const CountSampleTokens& count) const;

 protected:
  virtual absl::StatusOr<NiahSample> Make(const NiahRequest& request,
                                          const CountSampleTokens& count) const = 0;
  int64_t AnswerTokens(const NiahRequest& request) const {
    return request.answer_tokens > 0 ? request.answer_tokens : traits_.answer_tokens;
  }

 private:
  const NiahTaskTraits traits_;
};

struct NiahTaskOptions {
  std::string prose;                      // text of the tasks that read prose
  std::string prose_name;                 // of the file, for errors
  std::string squad, squad_name;          // questions and paragraphs of qa_1
  std::string hotpot_qa, hotpot_qa_name;  // and of qa_2
};

std::vector<std::string> NiahTaskNames();
// InvalidArgument: no such task; no prose or no questions for one that needs them, or too little.
absl::StatusOr<std::unique_ptr<NiahTask>> MakeNiahTask(std::string_view name, const NiahTaskOptions& options);
// How a task's answers are scored, without its samples. InvalidArgument: no such task.
absl::StatusOr<NiahScorer> NiahScorerOf(std::string_view name);

}  // namespace palimpsest
