#include "worker/recall/slices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "proto/base/rng.h"

namespace palimpsest {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int64_t kBlock = 64;

// All steps, the parts from the last to the first.
void Pick(SliceRanking& ranking, std::span<float> scores, std::span<const int32_t> blocks,
          std::span<const int32_t> residents, int64_t slice, int64_t count, std::vector<int32_t>* picks) {
  ranking.Begin(scores, blocks, residents, slice);
  for (int64_t part = ranking.parts(); part-- > 0;) ranking.LookThrough(part);
  ranking.End(count, picks);
}

std::vector<int32_t> Pick(std::vector<float> scores, std::vector<int32_t> residents, int64_t slice,
                          int64_t count) {
  SliceRanking ranking;
  std::vector<int32_t> picks;
  Pick(ranking, scores, {}, residents, slice, count, &picks);
  return picks;
}

TEST(SliceRankingTest, ASliceIsWorthItsBestToken) {
  std::vector<float> scores(2 * kBlock, 0.0f);
  scores[70] = 5;   // slice 4 of 16 tokens
  scores[127] = 4;  // slice 7
  scores[0] = 3;    // slice 0
  EXPECT_EQ(Pick(scores, {}, 16, 2), (std::vector<int32_t>{4, 7}));
  EXPECT_EQ(Pick(scores, {}, 16, 3), (std::vector<int32_t>{0, 4, 7}));
  EXPECT_EQ(Pick(scores, {}, 64, 1), (std::vector<int32_t>{1}));
  EXPECT_EQ(Pick(scores, {70}, 16, 2), (std::vector<int32_t>{0, 7})) << "a resident token does not count";
}

TEST(SliceRankingTest, TiesGoToTheEarlierSlice) {
  EXPECT_EQ(Pick(std::vector<float>(kBlock, 1.0f), {}, 8, 3), (std::vector<int32_t>{0, 1, 2}));
}

TEST(SliceRankingTest, WhereThereIsNothingNothingIsPicked) {
  std::vector<float> scores(kBlock, kNone);
  EXPECT_TRUE(Pick(scores, {}, 16, 4).empty());
  scores[20] = -1e30f;
  scores[40] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Pick(scores, {}, 16, 4), (std::vector<int32_t>{1}));
  EXPECT_TRUE(Pick(scores, {20}, 16, 4).empty());
  EXPECT_TRUE(Pick({}, {}, 16, 4).empty());
}

// Against sorting everything.
TEST(SliceRankingTest, AnyScoresAnyResidents) {
  RngSequence rng{Rng(1)};
  for (int round = 0; round < 300; ++round) {
    const int64_t slice = int64_t{8} << rng.Below(4);
    const uint64_t most = rng.Below(4) == 0 ? 200 : 20;  // blocks: of several parts, or of one
    const int64_t blocks = 1 + static_cast<int64_t>(rng.Below(most));
    std::vector<float> scores(static_cast<size_t>(blocks * kBlock));
    for (float& score : scores) score = rng.Below(4) == 0 ? kNone : static_cast<float>(rng.Below(30));
    std::set<int32_t> residents;
    for (uint64_t i = rng.Below(60); i > 0; --i)
      residents.insert(static_cast<int32_t>(rng.Below(scores.size())));
    const int64_t count = 1 + static_cast<int64_t>(rng.Below(40));
    std::vector<std::pair<float, int32_t>> order;
    for (int64_t s = 0; s < blocks * kBlock / slice; ++s) {
      float best = kNone;
      for (int64_t i = s * slice; i < (s + 1) * slice; ++i) {
        if (!residents.contains(static_cast<int32_t>(i)))
          best = std::max(best, scores[static_cast<size_t>(i)]);
      }
      if (best > kNone) order.emplace_back(-best, static_cast<int32_t>(s));
    }
    std::sort(order.begin(), order.end());
    std::vector<int32_t> expected;
    for (size_t i = 0; i < order.size() && static_cast<int64_t>(i) < count; ++i)
      expected.push_back(order[i].second);
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(Pick(scores, {residents.begin(), residents.end()}, slice, count), expected) << round;
  }
}

// Of some blocks: as if the others had no scores.
TEST(SliceRankingTest, SomeBlocksAreAllBlocksWhereTheOthersAreEmpty) {
  RngSequence rng{Rng(2)};
  for (int round = 0; round < 200; ++round) {
    const int64_t slice = int64_t{8} << rng.Below(4);
    const int64_t count = 1 + static_cast<int64_t>(rng.Below(30));
    std::vector<float> all, some;
    std::vector<int32_t> blocks, residents;
    for (int32_t block = 0; block < 40; ++block) {
      const bool chosen = rng.Below(3) == 0 || (block == 39 && blocks.empty());
      if (chosen) blocks.push_back(block);
      for (int32_t slot = 0; slot < kBlock; ++slot) {
        const float score = static_cast<float>(rng.Below(50));
        all.push_back(chosen ? score : kNone);
        if (chosen) some.push_back(score);
        if (rng.Below(10) == 0) residents.push_back(block * static_cast<int32_t>(kBlock) + slot);
      }
    }
    SliceRanking ranking;
    std::vector<int32_t> picks;
    Pick(ranking, some, blocks, residents, slice, count, &picks);
    EXPECT_EQ(picks, Pick(all, residents, slice, count)) << round;
  }
}

TEST(SliceRankingTest, BestBlocksHaveTheBestSlices) {
  std::vector<float> scores(5 * kBlock, 0.0f);
  scores[3 * kBlock + 9] = 7;
  scores[1 * kBlock] = 6;
  scores[4 * kBlock + 63] = 6;
  SliceRanking ranking;
  std::vector<int32_t> picks, blocks;
  Pick(ranking, scores, {}, {}, 16, 2, &picks);
  ranking.BestBlocks(16, 2, &blocks);
  EXPECT_EQ(blocks, (std::vector<int32_t>{1, 3})) << "the earlier of equals";
  ranking.BestBlocks(16, 9, &blocks);
  EXPECT_EQ(blocks, (std::vector<int32_t>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace palimpsest
