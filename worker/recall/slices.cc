#include "worker/recall/slices.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace palimpsest {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// The best of the count-th best run of slices: at least `count` slices are as good, so none below it is
// picked, and little is left to sort.
float LeastOfBest(std::span<const float> best, size_t count, std::vector<float>* runs) {
  constexpr size_t kRunsForEach = 4;
  const size_t run = best.size() / std::max<size_t>(1, kRunsForEach * count);
  if (count == 0 || run < 2) return kNone;
  runs->clear();
  for (size_t s = 0; s < best.size(); s += run) {
    const std::span<const float> some = best.subspan(s, std::min(run, best.size() - s));
    runs->push_back(*std::max_element(some.begin(), some.end()));
  }
  const auto last = runs->begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(runs->begin(), last, runs->end(), std::greater<>());
  return *last;
}

}  // namespace

void PickSlices(std::span<const float> best, int64_t count, SliceOrder* order, std::vector<int32_t>* picks) {
  const float least = LeastOfBest(best, static_cast<size_t>(count), &order->runs);
  std::vector<int32_t>& slices = order->slices;
  slices.clear();
  for (size_t s = 0; s < best.size(); ++s) {
    if (best[s] >= least && best[s] > kNone) slices.push_back(static_cast<int32_t>(s));
  }
  if (count < static_cast<int64_t>(slices.size())) {
    std::nth_element(slices.begin(), slices.begin() + count, slices.end(), [&](int32_t a, int32_t b) {
      const float x = best[static_cast<size_t>(a)], y = best[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    slices.resize(static_cast<size_t>(count));
    std::sort(slices.begin(), slices.end());
  }
  picks->assign(slices.begin(), slices.end());
}

}  // namespace palimpsest
