#include "worker/recall/slices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "proto/base/rng.h"

namespace palimpsest {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

std::vector<int32_t> Pick(const std::vector<float>& best, int64_t count) {
  SliceOrder order;
  std::vector<int32_t> picks = {77};
  PickSlices(best, count, &order, &picks);
  return picks;
}

TEST(PickSlicesTest, TheBestInTheirOrder) {
  const std::vector<float> best = {3, 0, 0, 0, 5, 0, 0, 4};
  EXPECT_EQ(Pick(best, 2), (std::vector<int32_t>{4, 7}));
  EXPECT_EQ(Pick(best, 3), (std::vector<int32_t>{0, 4, 7}));
  EXPECT_EQ(Pick(best, 100).size(), best.size());
  EXPECT_TRUE(Pick(best, 0).empty());
}

TEST(PickSlicesTest, TiesGoToTheEarlierSlice) {
  EXPECT_EQ(Pick(std::vector<float>(8, 1.0f), 3), (std::vector<int32_t>{0, 1, 2}));
}

TEST(PickSlicesTest, WhereThereIsNothingNothingIsPicked) {
  EXPECT_TRUE(Pick({}, 4).empty());
  EXPECT_TRUE(Pick(std::vector<float>(4, kNone), 4).empty());
  EXPECT_EQ(Pick({kNone, -1e30f, kNone, kNone}, 4), (std::vector<int32_t>{1}));
}

// Against sorting everything.
TEST(PickSlicesTest, AnyScores) {
  RngSequence rng{Rng(1)};
  SliceOrder order;  // the same for all: what one choice left says nothing to the next
  for (int round = 0; round < 500; ++round) {
    std::vector<float> best(1 + rng.Below(rng.Below(4) == 0 ? 2000 : 100));
    const uint64_t levels = 1 + rng.Below(100);  // few: many ties
    for (float& score : best) score = rng.Below(4) == 0 ? kNone : static_cast<float>(rng.Below(levels));
    const int64_t count = static_cast<int64_t>(rng.Below(60));
    std::vector<int32_t> expected;
    for (size_t s = 0; s < best.size(); ++s) {
      if (best[s] > kNone) expected.push_back(static_cast<int32_t>(s));
    }
    std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
      return best[static_cast<size_t>(a)] > best[static_cast<size_t>(b)];
    });
    expected.resize(std::min(expected.size(), static_cast<size_t>(count)));
    std::sort(expected.begin(), expected.end());
    std::vector<int32_t> picks;
    PickSlices(best, count, &order, &picks);
    EXPECT_EQ(picks, expected) << round;
  }
}

}  // namespace
}  // namespace palimpsest
