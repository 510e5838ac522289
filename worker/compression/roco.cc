// RoCo: of each token the mean attention of the queries that could see it, and how much it varied. The most
// volatile stay, since what varies may matter again; of the others, the highest means. Source: Ren & Zhu, "On
// the Efficacy of Eviction Policy for Key-Value Constrained Generative Language Model Inference", 2024, arXiv
// 2402.06262, and its code (EasyKV), where the last tokens and the sinks count as the most volatile.
//         There one token goes at a time; here all that go at once are chosen by the same two numbers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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
    std::vector<float> deviations(scores.size());
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
    std::vector<int32_t> stays;
    SelectTop(deviations, std::max(forced, spec_.volatile_tokens.Of(n)), &stays);
    for (const int32_t i : stays) scores[static_cast<size_t>(i)] = kStays;
  }

 private:
  static constexpr float kStays = std::numeric_limits<float>::infinity();
  const PolicySpec spec_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeRoCo(const PolicySpec& spec) { return std::make_unique<RoCo>(spec); }

}  // namespace palimpsest
