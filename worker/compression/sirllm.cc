// SirLLM: what surprised the model when it was read stays: the tokens of highest loss, the same for all
// layers and heads, beside the first ones and, if wanted, the last. Source: Yao et al., "SirLLM: Streaming
// Infinite Retentive LLM", ACL 2024, arXiv 2405.12528. Its decay from one turn to the next has no place here:
// a text is one turn.
#include <limits>

#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

class SirLlm : public CompressionPolicy {
 public:
  SirLlm(int64_t sink, int64_t recent) : sink_(sink), recent_(recent) {}

  PolicyNeeds needs() const override { return {.losses = true}; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    const int64_t n = static_cast<int64_t>(scores.size());
    const int64_t last = head.window_stays ? n - recent_ : n;
    for (int64_t i = 0; i < n; ++i) {
      const bool stays = head.tokens[i] < sink_ || i >= last;
      scores[i] = stays ? std::numeric_limits<float>::infinity() : head.losses[i];
    }
  }

 private:
  const int64_t sink_, recent_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeSirLlm(const PolicySpec& spec) {
  return std::make_unique<SirLlm>(spec.sink, spec.recent.value);
}

}  // namespace palimpsest
