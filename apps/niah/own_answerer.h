// What the engine of this process and a server of ours have in common: the planner says what fits, and which
// policy finds what was read.
#pragma once

#include <utility>

#include "apps/niah/answerer.h"

namespace palimpsest {

class OwnAnswerer : public NiahAnswerer {
 public:
  absl::StatusOr<int64_t> CountTokens(const NiahSample& sample) final {
    return prompter_.CountTokens(sample);
  }
  absl::Status Check(const NiahSample& sample, const NiahPolicy& policy, bool visible) final {
    return prompter_.Ask(sample, {}, policy, visible).status();
  }
  bool FindsBlocks(const NiahPolicy& policy) const final { return prompter_.FindsBlocks(policy); }
  bool fails_alone() const final { return false; }

 protected:
  explicit OwnAnswerer(NiahPrompter prompter) : prompter_(std::move(prompter)) {}
  NiahPrompter prompter_;
};

}  // namespace palimpsest
