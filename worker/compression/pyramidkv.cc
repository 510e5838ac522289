// PyramidKV: scores as of SnapKV; the lower a layer, the more of the budget it has, in even steps. Source:
// Cai et al., "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling", arXiv
// 2406.02069, in the form of its later code, whose step is rounded down, so that all layers together are over
// the budget; here they meet it exactly.
#include <algorithm>

#include "worker/compression/policies.h"
#include "worker/compression/shares.h"

namespace palimpsest {
namespace {

class PyramidKv : public CompressionPolicy {
 public:
  explicit PyramidKv(const PolicySpec& spec) : votes_(MakeSnapKv(spec)), beta_(spec.beta) {}

  PolicyNeeds needs() const override { return votes_->needs(); }
  void Score(const HeadInput& head, std::span<float> scores) const override { votes_->Score(head, scores); }

  // Layer l wants most - l * (most - least) / (layers - 1) beside what stays. Of the sum so far the rounded
  // difference is its own, so that rounding never adds up, and each has its wish rounded down or up.
  void Share(const HeadShares& of, std::span<int64_t> counts) const override {
    std::fill(counts.begin(), counts.end(), of.budget);
    const int64_t stays = StayingOf(of), base = of.budget - stays, room = of.candidates() - stays;
    if (of.candidates() < 2 * base || of.layers < 2) return;  // a pyramid has no room
    int64_t least = base / beta_, most = 2 * base - least;
    if (const int64_t limit = std::min(room, of.most - stays); most >= limit) {
      most = limit;
      least = 2 * base - most;
    }
    const int64_t steps = of.layers - 1;
    int64_t before = 0;
    for (int64_t layer = 0; layer < of.layers; ++layer) {
      // 2 * steps times the sum of the layers up to this one.
      const int64_t sum = 2 * steps * (layer + 1) * most - (most - least) * layer * (layer + 1);
      const int64_t rounded = (sum + steps) / (2 * steps);
      std::fill_n(counts.begin() + layer * of.kv_heads, of.kv_heads, stays + rounded - before);
      before = rounded;
    }
  }

 private:
  const std::unique_ptr<CompressionPolicy> votes_;
  const int64_t beta_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakePyramidKv(const PolicySpec& spec) {
  return std::make_unique<PyramidKv>(spec);
}

}  // namespace palimpsest
