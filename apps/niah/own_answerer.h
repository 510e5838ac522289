// What the engine of this process and a server of ours have in common: the planner says what fits, and which
// policy finds what was read.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/niah/answerer.h"
#include "proto/base/status.h"

namespace palimpsest {

class OwnAnswerer : public NiahAnswerer {
 public:
  absl::StatusOr<int64_t> CountTokens(const NiahSample& sample) final {
    return prompter_.CountTokens(sample);
  }
  absl::Status Check(const NiahSample& sample, const NiahPolicy& policy, bool visible) final {
    PALIMPSEST_RETURN_IF_ERROR(prompter_.Ask(sample, {}, policy, visible).status());
    // The last turn stands behind all answers, of as many words as they may have tokens.
    std::string answer;
    for (int64_t i = 0; i < sample.answer_tokens; ++i) answer += " a";
    const std::vector<std::string> answers(sample.turns.size() - 1, answer);
    return prompter_.Ask(sample, answers, policy, visible).status();
  }
  std::optional<int64_t> LongestFor(const NiahPolicy& policy) const final {
    return prompter_.LongestFor(policy);
  }
  bool FindsBlocks(const NiahPolicy& policy) const final { return prompter_.FindsBlocks(policy); }
  bool fails_alone() const final { return false; }

 protected:
  explicit OwnAnswerer(NiahPrompter prompter) : prompter_(std::move(prompter)) {}
  NiahPrompter prompter_;
};

}  // namespace palimpsest
