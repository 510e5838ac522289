// AdaKV: scores as of SnapKV; the heads of a layer share its budget by how many of the layer's highest scores
// each of them has, above a floor. Source: Feng et al., "Ada-KV: Optimizing KV Cache Eviction by Adaptive
// Budget Allocation for Efficient LLM Inference", arXiv 2407.11550, and its code (blend), which rounds each
// head by itself and may be over the budget; here they meet it exactly. In kvpress the floor is picked first
// (guard).
#include <algorithm>
#include <vector>

#include "worker/compression/policies.h"
#include "worker/compression/shares.h"

namespace palimpsest {
namespace {

class AdaKv : public CompressionPolicy {
 public:
  explicit AdaKv(const PolicySpec& spec) : votes_(MakeSnapKv(spec)), floor_(spec.floor), share_(spec.share) {}

  PolicyNeeds needs() const override { return votes_->needs(); }
  void Score(const HeadInput& head, std::span<float> scores) const override { votes_->Score(head, scores); }

  void Share(const HeadShares& of, std::span<int64_t> counts) const override {
    const int64_t stays = StayingOf(of), base = of.budget - stays;
    const int64_t floor = PartOf(floor_, base), most = std::min(of.candidates(), of.most) - stays;
    std::vector<double> wanted(of.kv_heads);
    for (int64_t layer = 0; layer < of.layers; ++layer) {
      const auto heads = of.scores.subspan(layer * of.kv_heads, of.kv_heads);
      const bool guard = share_ == PolicySpec::Share::kGuard;
      const int64_t first = guard ? floor : 0;  // of each head, before they compete
      const std::vector<int64_t> won = Compete(heads, first, of.kv_heads * (base - first), of.candidates());
      for (int64_t h = 0; h < of.kv_heads; ++h) {
        const auto share = static_cast<double>(won[h]);
        wanted[h] = static_cast<double>(floor) + (guard ? share : share * (1 - floor_));
      }
      const auto own = counts.subspan(layer * of.kv_heads, of.kv_heads);
      RoundToSum(wanted, of.kv_heads * base, floor, most, own);
      for (int64_t& count : own) count += stays;
    }
  }

 private:
  const std::unique_ptr<CompressionPolicy> votes_;
  const double floor_;
  const PolicySpec::Share share_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeAdaKv(const PolicySpec& spec) { return std::make_unique<AdaKv>(spec); }

}  // namespace palimpsest
