// RoCo: of each token the mean attention of the queries that could see it, and how much it varied. The most
// volatile stay, since what varies may matter again; of the others, the highest means. Where there is no room
// for all of the volatile ones (beside a question that is seen, or those of other spans), the most volatile.
// Source: Ren & Zhu, "On
// the Efficacy of Eviction Policy for Key-Value Constrained Generative Language Model Inference", 2024, arXiv
// 2402.06262, and its code (EasyKV), where the last tokens and the sinks count as the most volatile.
//         There one token goes at a time; here all that go at once are chosen by the same two numbers, at
//         the end of the context, and with decode=evict one at a time from there on.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "worker/compression/policies.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class RoCo : public CompressionPolicy {
 public:
  explicit RoCo(const PolicySpec& spec) : spec_(spec) {}

  PolicyNeeds needs() const override { return {.sums = true, .squares = true}; }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    const int64_t n = static_cast<int64_t>(scores.size());
    const std::span<float> deviations = head.scratch.first(scores.size());
    ReduceRows(head.sums, head.sums_stride, head.group, PolicySpec::Reduce::kMean, scores);
    ReduceRows(head.squares, head.sums_stride, head.group, PolicySpec::Reduce::kMean, deviations);
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] /= head.seen_by[i];
      const float variance = deviations[i] / head.seen_by[i] - scores[i] * scores[i];
      deviations[i] = std::sqrt(std::max(0.0f, variance));  // rounding may leave less than nothing
    }
    KeepLast(head, spec_.recent, deviations);
    for (size_t i = 0; i < scores.size() && head.tokens[i] < spec_.sink; ++i) {
      deviations[i] = std::numeric_limits<float>::infinity();
    }
    const int64_t forced = std::count(deviations.begin(), deviations.end(), kStays);
    const int64_t count = std::min(n, std::max(forced, spec_.volatile_tokens.Of(n)));
    if (count > 0) PreferHighest(deviations, count, head.scratch.subspan(scores.size()), scores);
  }

 private:
  // More than any mean to those of the `count` highest deviations, in their order, ties to the earlier;
  // infinity to those that are infinite.
  static void PreferHighest(std::span<const float> deviations, int64_t count, std::span<float> sorted,
                            std::span<float> scores) {
    std::copy(deviations.begin(), deviations.end(), sorted.begin());
    std::nth_element(sorted.begin(), sorted.begin() + count - 1, sorted.end(), std::greater<>());
    const float least = sorted[static_cast<size_t>(count - 1)];
    int64_t ties = count - std::count_if(deviations.begin(), deviations.end(),
                                         [&](float deviation) { return deviation > least; });
    for (size_t i = 0; i < scores.size(); ++i) {
      if (deviations[i] > least || (deviations[i] == least && ties-- > 0))
        scores[i] = kAboveMeans + deviations[i];
    }
  }

  static constexpr float kStays = std::numeric_limits<float>::infinity();
  static constexpr float kAboveMeans = 2;  // attention is at most 1
  const PolicySpec spec_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeRoCo(const PolicySpec& spec) { return std::make_unique<RoCo>(spec); }

}  // namespace palimpsest
