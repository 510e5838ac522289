// AdaKV: scores as of SnapKV; the heads of a layer share its budget by how many of the layer's highest scores
// each of them has, above a floor. Source: Feng et al., "Ada-KV: Optimizing KV Cache Eviction by Adaptive
// Budget Allocation for Efficient LLM Inference", arXiv 2407.11550, and its code (blend), which rounds each
// head by itself and may be over the budget; here they meet it exactly. In kvpress the floor is picked first
// (guard).
#include <algorithm>
#include <cmath>
#include <numeric>
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
      const std::vector<int64_t> won = Compete(heads, first, of.kv_heads * (base - first));
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
  struct Entry {
    float score;
    int32_t token, head;
  };

  // How many of the `count` highest scores of all heads are each one's, its own `first` highest and what
  // stays anyway left out. Ties to the earlier token, then to the earlier head.
  static std::vector<int64_t> Compete(std::span<const std::vector<float>> heads, int64_t first,
                                      int64_t count) {
    std::vector<Entry> entries;
    for (size_t h = 0; h < heads.size(); ++h) {
      const size_t begin = entries.size();
      for (size_t i = 0; i < heads[h].size(); ++i) {
        if (std::isinf(heads[h][i]) && heads[h][i] > 0) continue;
        entries.push_back({heads[h][i], static_cast<int32_t>(i), static_cast<int32_t>(h)});
      }
      const auto own = entries.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto end = own + std::min<std::ptrdiff_t>(first, entries.end() - own);
      if (first > 0) std::nth_element(own, end, entries.end(), Before);
      entries.erase(own, end);
    }
    std::vector<int64_t> won(heads.size(), 0);
    count = std::min<int64_t>(count, std::ssize(entries));
    std::nth_element(entries.begin(), entries.begin() + count, entries.end(), Before);
    for (int64_t i = 0; i < count; ++i) ++won[entries[i].head];
    return won;
  }
  static bool Before(const Entry& a, const Entry& b) {
    if (a.token == b.token) return GoesBefore(a.score, a.head, b.score, b.head);
    return GoesBefore(a.score, a.token, b.score, b.token);
  }

  const std::unique_ptr<CompressionPolicy> votes_;
  const double floor_;
  const PolicySpec::Share share_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeAdaKv(const PolicySpec& spec) { return std::make_unique<AdaKv>(spec); }

}  // namespace palimpsest
