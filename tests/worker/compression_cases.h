// What tests of compression have in common: one request of each way of reading and each policy, and what of
// its outcome must be the same bit for bit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {

struct CompressionCase {
  std::string name;
  PrefillMode mode;
  std::string policy;
  bool visible = false;
};
// Every way of reading with every policy, sized so that tokens are dropped in each, in a pot several times.
std::vector<CompressionCase> CompressionCases();
inline std::string CompressionCaseName(const ::testing::TestParamInfo<CompressionCase>& info) {
  return info.param.name;
}

// prefix | documents | question, each with its role; 0 question: none.
std::vector<Segment> RolePrompt(std::vector<int64_t> documents, int64_t question, uint64_t seed = 1,
                                int64_t prefix = 21);
Request CompressionRequest(PrefillMode mode, const std::string& policy, std::vector<Segment> segments,
                           int64_t max_tokens);
// One document (anchored: three), a question of 37 tokens. `seed` gives other texts.
Request CompressionRequest(const CompressionCase& c, int64_t max_tokens, uint64_t seed = 1);

inline constexpr int64_t kCatalystTokens = 7;

// With a host tier that holds everything.
TinyEngineOptions CompressionEngine(int64_t chunk_tokens, int threads = 2);

// An outcome with the log-probabilities that were told.
struct Answer {
  Outcome outcome;
  std::vector<double> log_probabilities;
};
// Runs it; the requests of `together` at once, in order of the list.
Answer AnswerOf(Engine& engine, Request request);
std::vector<Answer> AnswersTogether(Engine& engine, std::vector<Request> requests);

// Where tokens, probabilities, the prompt's last logits or what was kept differ by a bit; empty: nowhere.
// `kept`: compare what the trace says too.
std::string Difference(const Answer& a, const Answer& b, bool kept = true);

}  // namespace palimpsest::testing
