#include "worker/compression/shares.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "proto/base/status.h"

namespace palimpsest {

void CompressionPolicy::Share(const HeadShares& of, std::span<int64_t> counts) const {
  std::fill(counts.begin(), counts.end(), of.budget);
}

int64_t StayingOf(const HeadShares& of) {
  int64_t most = 0;
  for (const std::vector<float>& head : of.scores) {
    most =
        std::max<int64_t>(most, std::count(head.begin(), head.end(), std::numeric_limits<float>::infinity()));
  }
  return most;
}

std::vector<int64_t> CountsOf(const CompressionPolicy& policy, const HeadShares& of) {
  const int64_t heads = of.layers * of.kv_heads;
  std::vector<int64_t> counts(static_cast<size_t>(heads));
  if (of.budget >= of.candidates()) {
    std::fill(counts.begin(), counts.end(), of.candidates());
    return counts;
  }
  policy.Share(of, counts);
  const int64_t sum = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  PALIMPSEST_CHECK(sum == heads * of.budget && *least >= 0 && *most <= std::max(of.budget, of.most),
                   "{} heads of {} tokens each share {}, from {} to {}", heads, of.budget, sum, *least,
                   *most);
  return counts;
}

void RoundToSum(std::span<const double> wanted, int64_t total, int64_t least, int64_t most,
                std::span<int64_t> counts) {
  int64_t sum = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double floor = std::floor(wanted[i]), part = wanted[i] - floor;
    int64_t count = static_cast<int64_t>(floor);
    if (part > 0.5 || (part == 0.5 && count % 2 != 0)) ++count;
    counts[i] = std::clamp(count, least, most);
    sum += counts[i];
  }
  const int64_t step = sum < total ? 1 : -1;
  for (; sum != total; sum += step) {
    size_t best = counts.size();
    double furthest = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == (step > 0 ? most : least)) continue;
      const double lacks = (wanted[i] - static_cast<double>(counts[i])) * static_cast<double>(step);
      if (best == counts.size() || lacks > furthest) {
        best = i;
        furthest = lacks;
      }
    }
    PALIMPSEST_CHECK(best < counts.size(), "{} counts from {} to {} cannot sum to {}", counts.size(), least,
                     most, total);
    counts[best] += step;
  }
}

}  // namespace palimpsest
