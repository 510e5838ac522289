// CriticalKV: a first part of the budget goes to what attention likes best, as SnapKV scores it; the rest to
// those whose attention times the size of what their value brings to the layer's output is largest. Source:
// Feng et al., "Identify Critical KV Cache in LLM Inference from an Output Perturbation Perspective", arXiv
// 2502.03805, and kvpress.
#include <cmath>

#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

class CriticalKv : public CompressionPolicy {
 public:
  explicit CriticalKv(const PolicySpec& spec)
      : votes_(MakeSnapKv(spec)), first_(spec.first), epsilon_(static_cast<float>(spec.epsilon)) {}

  PolicyNeeds needs() const override {
    PolicyNeeds needs = votes_->needs();
    needs.output_norms = first_ < 1;
    return needs;
  }
  void Score(const HeadInput& head, std::span<float> scores) const override { votes_->Score(head, scores); }

  double first_share() const override { return first_; }
  void ScoreRest(const HeadInput& head, std::span<const float> scores, std::span<float> rest) const override {
    for (size_t i = 0; i < rest.size(); ++i) {
      rest[i] = std::isinf(scores[i]) ? scores[i] : (scores[i] + epsilon_) * head.output_norms[i];
    }
  }

 private:
  const std::unique_ptr<CompressionPolicy> votes_;
  const double first_;
  const float epsilon_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeCriticalKv(const PolicySpec& spec) {
  return std::make_unique<CriticalKv>(spec);
}

}  // namespace palimpsest
