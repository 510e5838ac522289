#include <algorithm>
#include <cmath>
#include <numeric>

#include "worker/compression/policy.h"

namespace palimpsest {
namespace {

// The first `count` of [begin, end) by score, in no order.
void MoveTopFirst(std::span<const float> scores, int64_t count, std::span<int32_t> picks) {
  if (count <= 0 || count >= static_cast<int64_t>(picks.size())) return;
  std::nth_element(picks.begin(), picks.begin() + count, picks.end(),
                   [&](int32_t a, int32_t b) { return GoesBefore(scores[a], a, scores[b], b); });
}

// The same in two stages.
void MoveTopFirst(const Ranking& ranking, int64_t count, std::span<int32_t> picks) {
  if (ranking.rest.empty()) return MoveTopFirst(ranking.scores, count, picks);
  if (count >= static_cast<int64_t>(picks.size())) return;
  const int64_t first = PartOf(ranking.first_share, count);
  MoveTopFirst(ranking.scores, first, picks);
  MoveTopFirst(ranking.rest, count - first, picks.subspan(static_cast<size_t>(first)));
}

}  // namespace

bool GoesBefore(float x, int64_t a, float y, int64_t b) {
  if (x > y) return true;
  if (x < y) return false;
  if (x == y) return a < b;
  const bool x_is_number = !std::isnan(x), y_is_number = !std::isnan(y);
  return x_is_number == y_is_number ? a < b : x_is_number;
}

// The nearest double to 0.29 is below it: a hair up, more than the share and the product are off by.
int64_t PartOf(double share, int64_t count) {
  const auto part = static_cast<int64_t>(share * static_cast<double>(count) * (1 + 0x1p-50));
  return std::clamp<int64_t>(part, 0, count);
}

void SelectTop(std::span<const float> scores, int64_t count, std::vector<int32_t>* picks) {
  SelectTop(Ranking{scores, {}}, count, picks);
}

void SelectTop(const Ranking& ranking, int64_t count, std::vector<int32_t>* picks) {
  const int64_t n = static_cast<int64_t>(ranking.scores.size());
  picks->resize(n);
  std::iota(picks->begin(), picks->end(), 0);
  if (count >= n) return;
  count = std::max<int64_t>(0, count);
  MoveTopFirst(ranking, count, *picks);
  picks->resize(count);
  std::sort(picks->begin(), picks->end());
}

void SelectNovel(std::span<const float> losses, std::span<const float> scores, int64_t fixed, int64_t count,
                 double alpha, std::vector<int32_t>* picks) {
  SelectNovel(losses, Ranking{scores, {}}, fixed, count, alpha, picks);
}

void SelectNovel(std::span<const float> losses, const Ranking& ranking, int64_t fixed, int64_t count,
                 double alpha, std::vector<int32_t>* picks) {
  const int64_t n = static_cast<int64_t>(ranking.scores.size());
  picks->resize(n);
  std::iota(picks->begin(), picks->end(), 0);
  fixed = std::clamp<int64_t>(fixed, 0, n);
  if (count >= n - fixed) return;
  count = std::max<int64_t>(0, count);
  const std::span<int32_t> others = std::span(*picks).subspan(fixed);
  const int64_t novel_count = PartOf(alpha, count);
  MoveTopFirst(losses, novel_count, others);
  MoveTopFirst(ranking, count - novel_count, others.subspan(novel_count));
  picks->resize(fixed + count);
  std::sort(picks->begin(), picks->end());
}

}  // namespace palimpsest
