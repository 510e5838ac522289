#include <algorithm>
#include <cmath>
#include <numeric>

#include "worker/compression/policy.h"

namespace palimpsest {
namespace {

// Whether token a goes before token b: a total order, so that the same scores give the same picks on any
// machine.
struct Before {
  std::span<const float> scores;
  bool operator()(int32_t a, int32_t b) const {
    const float x = scores[a], y = scores[b];
    if (x > y) return true;
    if (x < y) return false;
    if (x == y) return a < b;
    const bool x_is_number = !std::isnan(x), y_is_number = !std::isnan(y);
    return x_is_number == y_is_number ? a < b : x_is_number;
  }
};

// The first `count` of [begin, end) by score, in no order.
void MoveTopFirst(std::span<const float> scores, int64_t count, std::span<int32_t> picks) {
  if (count <= 0 || count >= static_cast<int64_t>(picks.size())) return;
  std::nth_element(picks.begin(), picks.begin() + count, picks.end(), Before{scores});
}

}  // namespace

void SelectTop(std::span<const float> scores, int64_t count, std::vector<int32_t>* picks) {
  const int64_t n = static_cast<int64_t>(scores.size());
  picks->resize(n);
  std::iota(picks->begin(), picks->end(), 0);
  if (count >= n) return;
  count = std::max<int64_t>(0, count);
  MoveTopFirst(scores, count, *picks);
  picks->resize(count);
  std::sort(picks->begin(), picks->end());
}

void SelectNovel(std::span<const float> losses, std::span<const float> scores, int64_t fixed, int64_t count,
                 double alpha, std::vector<int32_t>* picks) {
  const int64_t n = static_cast<int64_t>(scores.size());
  picks->resize(n);
  std::iota(picks->begin(), picks->end(), 0);
  fixed = std::clamp<int64_t>(fixed, 0, n);
  if (count >= n - fixed) return;
  count = std::max<int64_t>(0, count);
  // 0.29 of 100 is 29, though the nearest double is below 0.29: a hair up, more than alpha and the product
  // are off by.
  const auto novel = static_cast<int64_t>(alpha * static_cast<double>(count) * (1 + 0x1p-50));
  const std::span<int32_t> others = std::span(*picks).subspan(fixed);
  const int64_t novel_count = std::clamp<int64_t>(novel, 0, count);
  MoveTopFirst(losses, novel_count, others);
  MoveTopFirst(scores, count - novel_count, others.subspan(novel_count));
  picks->resize(fixed + count);
  std::sort(picks->begin(), picks->end());
}

}  // namespace palimpsest
