#include "worker/recall/slices.h"

#include <algorithm>
#include <limits>

namespace palimpsest {

void SliceRanking::Pick(std::span<float> scores, std::span<const int32_t> residents, int64_t slice,
                        int64_t count, std::vector<int32_t>* picks) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (const int32_t place : residents) scores[static_cast<size_t>(place)] = kNone;
  const size_t width = static_cast<size_t>(slice), slices = scores.size() / width;
  best_.resize(slices);
  order_.clear();
  for (size_t s = 0; s < slices; ++s) {
    const std::span<const float> own = scores.subspan(s * width, width);
    float best = kNone;
    for (const float score : own) best = std::max(best, score);  // a score that is not a number never wins
    best_[s] = best;
    if (best > kNone) order_.push_back(static_cast<int32_t>(s));
  }
  const auto better = [&](int32_t a, int32_t b) {
    const float x = best_[static_cast<size_t>(a)], y = best_[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (count < static_cast<int64_t>(order_.size())) {
    std::nth_element(order_.begin(), order_.begin() + count, order_.end(), better);
    order_.resize(static_cast<size_t>(count));
    std::sort(order_.begin(), order_.end());
  }
  picks->assign(order_.begin(), order_.end());
}

}  // namespace palimpsest
