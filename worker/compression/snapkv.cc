// SnapKV: the last tokens of the prompt vote with their attention; a vote is spread over the neighbours, so
// that whole phrases stay; the highest stay, and the last tokens themselves. Source: Li et al., "SnapKV: LLM
// Knows What You are Looking for Before Generation", arXiv 2404.14469, and its code for the ends of the pool:
// the average counts the padding, the maximum does not see it.
#include <algorithm>
#include <limits>
#include <vector>

#include "worker/compression/policies.h"
#include "worker/compression/shares.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

// out[i] = maximum of votes[i - half .. i + half], of those there are.
void PoolMax(std::span<const float> votes, int64_t half, std::span<float> out) {
  const int64_t n = static_cast<int64_t>(votes.size());
  std::copy(votes.begin(), votes.end(), out.begin());
  // One shift at a time over all tokens: a plain loop for the compiler, the same order for every token.
  for (int64_t shift = -half; shift <= half; ++shift) {
    for (int64_t i = std::max<int64_t>(0, -shift); i < std::min(n, n - shift); ++i) {
      out[i] = std::max(out[i], votes[i + shift]);
    }
  }
}

void PoolAverage(std::span<const float> votes, int64_t half, PolicySpec::Divisor divisor,
                 std::span<float> out) {
  const int64_t n = static_cast<int64_t>(votes.size());
  std::fill(out.begin(), out.end(), 0.0f);
  for (int64_t shift = -half; shift <= half; ++shift) {
    for (int64_t i = std::max<int64_t>(0, -shift); i < std::min(n, n - shift); ++i) {
      out[i] += votes[i + shift];
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t under = std::min(n - 1, i + half) - std::max<int64_t>(0, i - half) + 1;
    out[i] /= static_cast<float>(divisor == PolicySpec::Divisor::kPadded ? 2 * half + 1 : under);
  }
}

class SnapKv : public CompressionPolicy {
 public:
  explicit SnapKv(const PolicySpec& spec) : spec_(spec) {}

  PolicyNeeds needs() const override {
    return {.window = spec_.window, .reduce = RowReduce::kSum, .shares_by_attention = spec_.target > 0};
  }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    const int64_t n = static_cast<int64_t>(head.tokens.size());
    // The window's own columns take no part, not even under the pool of those before them.
    const int64_t voted = head.window_stays ? std::max<int64_t>(0, n - spec_.window) : n;
    std::fill(scores.begin() + voted, scores.end(), std::numeric_limits<float>::infinity());
    if (voted == 0) return;
    const std::span<float> picked = scores.first(voted);
    std::vector<float> votes(voted);
    if (spec_.order == PolicySpec::Order::kReducePool) {
      ReduceGroup(head, spec_.reduce, votes);
      Pool(votes, picked);
      return;
    }
    std::vector<float> pooled(head.group * voted);
    for (int64_t g = 0; g < head.group; ++g) {
      const float* const row = head.attention + g * head.attention_stride;
      std::transform(row, row + voted, votes.begin(), VoteOf);
      Pool(votes, std::span(pooled).subspan(g * voted, voted));
    }
    HeadInput heads = head;
    heads.attention = pooled.data();
    heads.attention_stride = voted;
    ReduceGroup(heads, spec_.reduce, picked);
  }

  void Attention(const HeadInput& head, std::span<float> attention) const override {
    ReduceGroup(head, PolicySpec::Reduce::kMean, attention);
  }
  // Attention of each of the window's tokens sums to 1, with what falls on the prefix and on the window.
  void Share(const HeadShares& of, std::span<int64_t> counts) const override {
    if (spec_.target == 0) return CompressionPolicy::Share(of, counts);
    KeepAttention(of, (1 - spec_.target) * static_cast<double>(spec_.window), counts);
  }

 private:
  void Pool(std::span<const float> votes, std::span<float> out) const {
    switch (spec_.pool) {
      case PolicySpec::Pool::kMax:
        return PoolMax(votes, spec_.kernel / 2, out);
      case PolicySpec::Pool::kAvg:
        return PoolAverage(votes, spec_.kernel / 2, spec_.divisor, out);
      case PolicySpec::Pool::kNone:
        std::copy(votes.begin(), votes.end(), out.begin());
    }
  }

  const PolicySpec spec_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeSnapKv(const PolicySpec& spec) {
  return std::make_unique<SnapKv>(spec);
}

}  // namespace palimpsest
