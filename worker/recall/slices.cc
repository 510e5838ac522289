#include "worker/recall/slices.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <numeric>

namespace palimpsest {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 8;  // the shortest slice
constexpr int32_t kBlock = 64;

// The best score of a slice, lane by lane so that one comparison does not wait for another; what is not a
// number never wins.
float BestOf(const float* scores, size_t count) {
  std::array<float, kLanes> best;
  best.fill(kNone);
  for (size_t i = 0; i < count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      best[lane] = scores[i + lane] > best[lane] ? scores[i + lane] : best[lane];
    }
  }
  return *std::max_element(best.begin(), best.end());
}

// Leaves the `count` best of these numbers, ascending; equal ones go by the number.
void KeepBest(std::span<const float> values, int64_t count, std::vector<int32_t>* numbers) {
  if (count >= static_cast<int64_t>(numbers->size())) return;
  std::nth_element(numbers->begin(), numbers->begin() + count, numbers->end(), [&](int32_t a, int32_t b) {
    const float x = values[static_cast<size_t>(a)], y = values[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  numbers->resize(static_cast<size_t>(count));
  std::sort(numbers->begin(), numbers->end());
}

}  // namespace

void SliceRanking::StrikeOut(std::span<float> scores, std::span<const int32_t> blocks,
                             std::span<const int32_t> residents) {
  if (blocks.empty()) {
    for (const int32_t place : residents) scores[static_cast<size_t>(place)] = kNone;
    return;
  }
  auto resident = residents.begin();
  for (size_t b = 0; b < blocks.size(); ++b) {
    const int32_t first = blocks[b] * kBlock;
    resident = std::lower_bound(resident, residents.end(), first);
    for (; resident != residents.end() && *resident < first + kBlock; ++resident)
      scores[b * kBlock + static_cast<size_t>(*resident - first)] = kNone;
  }
}

void SliceRanking::Begin(std::span<float> scores, std::span<const int32_t> blocks,
                         std::span<const int32_t> residents, int64_t slice) {
  StrikeOut(scores, blocks, residents);
  scores_ = scores;
  blocks_ = blocks;
  width_ = static_cast<size_t>(slice);
  best_.resize(scores.size() / width_);
}

void SliceRanking::LookThrough(int64_t part) {
  const size_t of_part = static_cast<size_t>(kPartSlots) / width_,
               first = static_cast<size_t>(part) * of_part;
  for (size_t s = first; s < std::min(first + of_part, best_.size()); ++s)
    best_[s] = BestOf(scores_.data() + s * width_, width_);
}

void SliceRanking::End(int64_t count, std::vector<int32_t>* picks) {
  const size_t slices = best_.size();
  const float least = LeastOfBest(static_cast<size_t>(count));
  order_.clear();
  for (size_t s = 0; s < slices; ++s) {
    if (best_[s] >= least && best_[s] > kNone) order_.push_back(static_cast<int32_t>(s));
  }
  KeepBest(best_, count, &order_);
  picks->assign(order_.begin(), order_.end());
  if (blocks_.empty()) return;
  const int32_t per_block = kBlock / static_cast<int32_t>(width_);
  for (int32_t& pick : *picks)
    pick = blocks_[static_cast<size_t>(pick / per_block)] * per_block + pick % per_block;
}

void SliceRanking::BestBlocks(int64_t slice, int64_t count, std::vector<int32_t>* blocks) {
  SumUpRuns(static_cast<size_t>(kBlock / slice));
  blocks->resize(runs_.size());
  std::iota(blocks->begin(), blocks->end(), 0);
  KeepBest(runs_, count, blocks);
}

void SliceRanking::SumUpRuns(size_t run) {
  runs_.clear();
  for (size_t s = 0; s < best_.size(); s += run) {
    const auto first = best_.begin() + static_cast<std::ptrdiff_t>(s);
    runs_.push_back(
        *std::max_element(first, first + static_cast<std::ptrdiff_t>(std::min(run, best_.size() - s))));
  }
}

// The best of the count-th best run of slices: at least `count` slices are as good, so none below it is
// picked, and little is left to sort.
float SliceRanking::LeastOfBest(size_t count) {
  constexpr size_t kRunsForEach = 4;
  const size_t run = best_.size() / std::max<size_t>(1, kRunsForEach * count);
  if (count == 0 || run < 2) return kNone;
  SumUpRuns(run);
  const auto last = runs_.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(runs_.begin(), last, runs_.end(), std::greater<>());
  return *last;
}

}  // namespace palimpsest
