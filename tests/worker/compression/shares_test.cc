// pyramidkv, adakv, chunkkv, criticalkv: what heads and layers share. Published roundings that miss the
// budget are in the reference; here each has a case where it does.
#include "worker/compression/shares.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "proto/base/rng.h"
#include "tests/worker/compression/key_reference.h"

namespace palimpsest {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t SumOf(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Scores of (layers * kv_heads) heads, the last `window` of each infinite; coarse, so that there are ties.
std::vector<std::vector<float>> RandomScores(int64_t heads, int64_t tokens, int64_t window, uint64_t seed) {
  RngSequence random{Rng(seed)};
  std::vector<std::vector<float>> scores(heads, std::vector<float>(tokens, kInfinity));
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i + window < tokens; ++i) {
      scores[h][i] = static_cast<float>(random.Below(50)) / static_cast<float>(10 + 20 * (h % 3));
    }
  }
  return scores;
}

std::vector<int64_t> CountsOf(const std::string& policy, int64_t layers, int64_t budget,
                              const std::vector<std::vector<float>>& scores, int64_t most = 1 << 30) {
  return CountsOf(*MakePolicy(*ParsePolicy(policy)), {.layers = layers,
                                                      .kv_heads = std::ssize(scores) / layers,
                                                      .budget = budget,
                                                      .most = most,
                                                      .scores = scores});
}

// The count of each layer, of one KV head.
std::vector<int64_t> Pyramid(int64_t layers, int64_t cap, int64_t tokens, int64_t window) {
  return CountsOf(fmt::format("pyramidkv:window={},budget=64K", window), layers, cap,
                  RandomScores(layers, tokens, window, 1));
}

TEST(PyramidKvGoldenTest, LayersHaveEvenSteps) {
  EXPECT_THAT(Pyramid(4, 104, 103, 8), ElementsAre(103, 103, 103, 103));  // nothing to drop
  for (const int64_t tokens : {104, 150, 191}) {
    EXPECT_THAT(Pyramid(4, 104, tokens, 8), ElementsAre(104, 104, 104, 104)) << tokens;
  }
  // 184, 125 1/3, 66 2/3, 8 and the window; 188, 126 2/3, 65 1/3, 4.
  EXPECT_THAT(Pyramid(4, 104, 192, 8), ElementsAre(192, 133, 75, 16));
  for (const int64_t tokens : {196, 1000}) {
    EXPECT_THAT(Pyramid(4, 104, tokens, 8), ElementsAre(196, 135, 73, 12)) << tokens;
  }
}

TEST(PyramidKvGoldenTest, ThePublishedStepIsOverTheBudget) {
  EXPECT_THAT(reference::PublishedPyramid(4, 104, 191, 8, 20), Each(104));
  EXPECT_THAT(reference::PublishedPyramid(4, 104, 192, 8, 20), ElementsAre(192, 134, 76, 18));
  EXPECT_THAT(reference::PublishedPyramid(4, 104, 196, 8, 20), ElementsAre(196, 135, 74, 13));
  EXPECT_EQ(SumOf(reference::PublishedPyramid(4, 104, 196, 8, 20)), 386 + 4 * 8);
  const std::vector<int64_t> published = reference::PublishedPyramid(32, 1024, 8192, 32, 20);
  EXPECT_EQ(published[0] - 32, 1935);
  EXPECT_EQ(published[1] - published[2], 60);
  EXPECT_EQ(published[31] - 32, 75);
  EXPECT_EQ(SumOf(published) - 32 * 32, 32160);
  const std::vector<int64_t> ours = Pyramid(32, 1024, 8192, 32);
  EXPECT_EQ(ours[0] - 32, 1935);
  EXPECT_EQ(ours[31] - 32, 49);  // the least, where the rounded step ends at 75
  EXPECT_EQ(SumOf(ours), 32 * 1024);
}

TEST(PyramidKvTest, SumsAreExactAndNoLayerHasMoreThanThoseBelow) {
  for (const int64_t layers : {1, 2, 3, 7, 30, 80}) {
    for (const int64_t cap : {34, 100, 257}) {
      for (const int64_t tokens : {40, 136, 137, 300, 700}) {
        for (const int64_t beta : {1, 2, 20, 1000}) {
          const auto scores = RandomScores(2 * layers, tokens, 32, 3);
          const std::vector<int64_t> counts =
              CountsOf(fmt::format("pyramidkv:beta={}", beta), layers, cap, scores);
          EXPECT_EQ(SumOf(counts), 2 * layers * std::min(cap, tokens));
          for (size_t i = 0; i < counts.size(); i += 2) {
            EXPECT_EQ(counts[i], counts[i + 1]) << "heads of a layer are alike";
            EXPECT_GE(counts[i], std::min<int64_t>(32, tokens));
            EXPECT_LE(counts[i], tokens);
            EXPECT_LE(counts[i], counts[i < 2 ? i : i - 2] + 1) << "but for a rounding";
          }
        }
      }
    }
  }
}

TEST(PyramidKvTest, ScoresLikeSnapKv) {
  const TestHead head(RandomAttention(3, 300, 2));
  EXPECT_EQ(ScoresOf("pyramidkv", head.input), ScoresOf("snapkv", head.input));
  EXPECT_EQ(ScoresOf("adakv:pool=avg", head.input), ScoresOf("snapkv:pool=avg", head.input));
}

// Scores [.9 .8 .7 .1] and [.3 .2 .1 .05], two tokens each.
const std::vector<std::vector<float>> kTwoHeads = {{0.9f, 0.8f, 0.7f, 0.1f}, {0.3f, 0.2f, 0.1f, 0.05f}};

TEST(AdaKvGoldenTest, HeadsShareByTheirHighestScores) {
  EXPECT_THAT(CountsOf("adakv:floor=0", 1, 2, kTwoHeads), ElementsAre(3, 1));
  EXPECT_THAT(CountsOf("adakv:floor=1", 1, 2, kTwoHeads), ElementsAre(2, 2));
  // 2.5 and 1.5: halves go to the even number, and that meets the budget.
  EXPECT_THAT(CountsOf("adakv:floor=0.5", 1, 2, kTwoHeads), ElementsAre(2, 2));
}

TEST(AdaKvGoldenTest, PublishedRoundingsOfEachHeadByItself) {
  const reference::Rows scores = {{0.9, 0.8, 0.7, 0.1}, {0.3, 0.2, 0.1, 0.05}};
  const std::vector<int64_t> wins = reference::AdaWins(scores, 2);
  EXPECT_THAT(wins, ElementsAre(3, 1));
  EXPECT_THAT(reference::PublishedAda(wins, 2, 0.5, /*half_even=*/true), ElementsAre(2, 2));
  EXPECT_THAT(reference::PublishedAda(wins, 2, 0.5, /*half_even=*/false), ElementsAre(3, 2));  // over it
}

TEST(AdaKvGoldenTest, AGuardedFloorIsPickedFirst) {
  // One of each head is its own; of the rest .8 and .7 are the highest.
  EXPECT_THAT(CountsOf("adakv:floor=0.5,share=guard", 1, 2, kTwoHeads), ElementsAre(3, 1));
  EXPECT_THAT(CountsOf("adakv:floor=1,share=guard", 1, 2, kTwoHeads), ElementsAre(2, 2));
}

TEST(AdaKvTest, WhereThePublishedSumIsRightItIsOurs) {
  int same = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const auto scores = RandomScores(4, 90, 0, seed);
    reference::Rows rows;
    for (const auto& head : scores) rows.emplace_back(head.begin(), head.end());
    for (const double floor : {0.0, 0.2, 0.5}) {
      const std::vector<int64_t> published =
          reference::PublishedAda(reference::AdaWins(rows, 20), 20, floor, /*half_even=*/true);
      const std::vector<int64_t> ours = CountsOf(fmt::format("adakv:floor={}", floor), 1, 20, scores);
      EXPECT_LE(SumOf(published), 4 * 20 + 4);
      for (size_t h = 0; h < 4; ++h) EXPECT_LE(std::abs(ours[h] - published[h]), 1);
      if (SumOf(published) != 80) continue;
      ++same;
      EXPECT_EQ(ours, published) << "seed " << seed << " floor " << floor;
    }
  }
  EXPECT_GT(same, 300);
}

TEST(AdaKvTest, SumsAreExactAboveTheFloorAndBelowTheMost) {
  for (const char* share : {"blend", "guard"}) {
    for (const double floor : {0.0, 0.2, 0.77, 1.0}) {
      for (const int64_t budget : {33, 60, 150}) {
        for (const int64_t most : {budget, budget + 9, 2 * budget, int64_t{1} << 30}) {
          const int64_t window = 32, layers = 3, heads = 5;
          const auto scores = RandomScores(layers * heads, 200, window, static_cast<uint64_t>(budget));
          const std::vector<int64_t> counts =
              CountsOf(fmt::format("adakv:floor={},share={}", floor, share), layers, budget, scores, most);
          for (int64_t layer = 0; layer < layers; ++layer) {
            const auto first = counts.begin() + layer * heads;
            EXPECT_EQ(std::accumulate(first, first + heads, int64_t{0}), heads * budget);
          }
          EXPECT_THAT(counts, Each(Ge(window + PartOf(floor, budget - window))));
          EXPECT_LE(*std::max_element(counts.begin(), counts.end()), std::min<int64_t>(most, 200));
          if (floor < 1 && most > budget + 9) {
            EXPECT_GT(*std::max_element(counts.begin(), counts.end()), budget) << "heads differ";
          }
        }
      }
    }
  }
}

TEST(AdaKvTest, EqualScoresAreSharedEqually) {
  // Ties to the earlier token, whatever its head: no head takes all.
  const std::vector<std::vector<float>> scores(4, std::vector<float>(50, 0.5f));
  EXPECT_THAT(CountsOf("adakv:floor=0", 1, 10, scores), Each(10));
}

TEST(AdaKvTest, OneHeadOfALayerHasItsBudget) {
  EXPECT_THAT(CountsOf("adakv", 3, 20, RandomScores(3, 100, 0, 1)), Each(20));
}

TEST(AdaKvTest, TheOrderOfTheHeadsDoesNotMatter) {
  auto scores = RandomScores(3, 101, 0, 8);
  for (size_t h = 0; h < 3; ++h) {
    for (size_t i = 0; i < scores[h].size(); ++i)
      scores[h][i] += static_cast<float>(3 * i + h) * 1e-4f;  // no ties
  }
  std::vector<int64_t> counts = CountsOf("adakv:floor=0", 1, 30, scores);
  std::swap(scores[0], scores[2]);
  std::swap(counts[0], counts[2]);
  EXPECT_EQ(CountsOf("adakv:floor=0", 1, 30, scores), counts);
}

TEST(RoundToSumTest, WhatWasRoundedTheFurthestMoves) {
  const auto rounded = [](const std::vector<double>& wanted, int64_t total, int64_t least, int64_t most) {
    std::vector<int64_t> counts(wanted.size());
    RoundToSum(wanted, total, least, most, counts);
    return counts;
  };
  EXPECT_THAT(rounded({1.4, 1.4, 1.2}, 4, 0, 9), ElementsAre(2, 1, 1));
  EXPECT_THAT(rounded({1.6, 1.7, 1.7}, 5, 0, 9), ElementsAre(1, 2, 2));
  EXPECT_THAT(rounded({2.5, 1.5}, 4, 0, 9), ElementsAre(2, 2));
  EXPECT_THAT(rounded({9, 0, 0}, 9, 0, 5), ElementsAre(5, 2, 2));
  EXPECT_THAT(rounded({9, 0, 0}, 9, 2, 9), ElementsAre(5, 2, 2));
}

// Chunks of two: scores by hand.
TEST(ChunkKvGoldenTest, ChunksAreScoredByTheirMeanOverAllHeads) {
  const auto policy = MakePolicy(*ParsePolicy("chunkkv:chunk=2"));
  std::vector<std::vector<float>> heads = {{4, 0, 1, 1, 3, kInfinity}, {0, 0, 2, 2, 1, kInfinity}};
  policy->Agree(heads);
  EXPECT_THAT(heads[0], ElementsAre(2, 2, 3, 3, 4, kInfinity));  // the last has one token, its mean is 3 + 1
  EXPECT_EQ(heads[1], heads[0]);
  EXPECT_THAT(TopOf(heads[0], 3), ElementsAre(2, 4, 5));  // of the second chunk its first token fits
  EXPECT_THAT(TopOf(heads[0], 4), ElementsAre(2, 3, 4, 5));
}

TEST(ChunkKvGoldenTest, ASumInsteadOfAMeanIsAnotherScore) {
  // The last chunk is short: by its sum, 4, it ties with none of 4, 6 and would come after the second.
  std::vector<std::vector<float>> heads = {{4, 0, 3, 3, 3.5f}};
  MakePolicy(*ParsePolicy("chunkkv:chunk=2"))->Agree(heads);
  EXPECT_THAT(TopOf(heads[0], 1), ElementsAre(4));
}

TEST(ChunkKvTest, IsItsDefinition) {
  for (const int64_t chunk : {1, 3, 20, 1000}) {
    for (const int64_t window : {0, 32}) {
      auto heads = RandomScores(3, 333, window, 5);
      reference::Rows rows;
      for (const auto& head : heads) rows.emplace_back(head.begin(), head.end());
      const std::vector<double> exact = reference::Chunks(rows, 333 - window, chunk);
      MakePolicy(*ParsePolicy(fmt::format("chunkkv:chunk={}", chunk)))->Agree(heads);
      for (const auto& head : heads) {
        for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(head[i], exact[i], 1e-4 * exact[i]);
        for (size_t i = exact.size(); i < head.size(); ++i) EXPECT_EQ(head[i], kInfinity);
      }
    }
  }
}

TEST(ChunkKvTest, WhatIsKeptIsWholeChunksButForOne) {
  auto heads = RandomScores(2, 400, 32, 9);
  MakePolicy(*ParsePolicy("chunkkv"))->Agree(heads);
  const std::vector<int32_t> picks = TopOf(heads[0], 32 + 105);
  EXPECT_EQ(picks, TopOf(heads[1], 32 + 105)) << "all heads keep the same";
  std::vector<int> of_chunk(19, 0);
  for (const int32_t pick : picks) {
    if (pick < 368) ++of_chunk[pick / 20];
  }
  std::vector<int> parts;
  for (const int count : of_chunk) {
    if (count != 0 && count != 20) parts.push_back(count);
  }
  EXPECT_LE(parts.size(), 2u);  // one that is cut, and perhaps the last, which has 8
}

TEST(ChunkKvTest, ChunksOfOneTokenOfOneHeadAreItsScores) {
  const auto scores = RandomScores(1, 100, 32, 2);
  auto heads = scores;
  MakePolicy(*ParsePolicy("chunkkv:chunk=1"))->Agree(heads);
  EXPECT_EQ(heads, scores);
}

std::vector<int32_t> Critical(const std::string& policy, const HeadInput& head, int64_t count) {
  const auto critical = MakePolicy(*ParsePolicy(policy));
  std::vector<float> scores(head.tokens.size()), rest(head.tokens.size());
  critical->Score(head, scores);
  critical->ScoreRest(head, scores, rest);
  std::vector<int32_t> picks;
  SelectTop(Ranking{scores, rest, critical->first_share()}, count, &picks);
  return picks;
}

TEST(CriticalKvGoldenTest, HalfByAttentionTheRestByWhatItBrings) {
  TestHead head({{0.5, 0.4, 0.3, 0.2, 0.1, 0}});
  const std::vector<float> norms = {1, 1, 1, 4, 9, 100};
  head.input.output_norms = norms;
  const std::string kernel = "window=1,kernel=1,budget=64K";
  // The last token stays. Of four one more by attention: 0; then .9 of token 4 and .8 of token 3.
  EXPECT_THAT(Critical("criticalkv:epsilon=0," + kernel, head.input, 4), ElementsAre(0, 3, 4, 5));
  EXPECT_THAT(Critical("criticalkv:epsilon=0,first=1," + kernel, head.input, 4), ElementsAre(0, 1, 2, 5));
  EXPECT_THAT(Critical("criticalkv:epsilon=0,first=0," + kernel, head.input, 3), ElementsAre(3, 4, 5));
}

TEST(CriticalKvGoldenTest, EpsilonGivesTokensWithoutAttentionAChance) {
  TestHead head({{0.5, 0, 0, 0}});
  const std::vector<float> norms = {1, 1, 2, 1};
  head.input.output_norms = norms;
  EXPECT_THAT(Critical("criticalkv:window=1,kernel=1", head.input, 3), ElementsAre(0, 2, 3));
  EXPECT_THAT(Critical("criticalkv:window=1,kernel=1,epsilon=0", head.input, 3), ElementsAre(0, 1, 3));
}

TEST(CriticalKvTest, IsItsDefinition) {
  for (const int64_t tokens : {40, 333}) {
    const TestHead head(RandomAttention(3, tokens, 4));
    const std::vector<double> norms(head.output_norms.begin(), head.output_norms.end());
    for (const auto& [first, text] : {std::pair{0.5, "0.5"}, {0.29, "0.29"}, {0.0, "0"}}) {
      const std::string policy = fmt::format("criticalkv:first={},kernel=5", text);
      const std::vector<double> base =
          reference::SnapKv(RandomAttention(3, tokens, 4), *ParsePolicy(policy), true);
      for (const int64_t count : {33, 35, 100}) {
        if (count > tokens) continue;
        const std::vector<int32_t> exact =
            reference::Critical(base, norms, PartOf(first, count), count, 1e-4);
        EXPECT_GE(reference::Overlap(Critical(policy, head.input, count), exact), 0.97) << policy;
      }
    }
  }
}

TEST(CriticalKvTest, ANormOfZeroDoesNotDropWhatStays) {
  TestHead head({{0.5, 0.25, 0.125, 0}});
  const std::vector<float> norms = {1, 1, 1, 0};
  head.input.output_norms = norms;
  EXPECT_THAT(Critical("criticalkv:window=1,first=0", head.input, 2), ::testing::Contains(3));
}

TEST(TwoStagesTest, NoveltyComesBeforeBoth) {
  const std::vector<float> losses = {0, 9, 0, 0, 0}, scores = {3, 5, 2, 1, 0}, rest = {0, 9, 0, 1, 2};
  std::vector<int32_t> picks;
  SelectNovel(losses, Ranking{scores, rest, 0.5}, 0, 3, 1.0 / 3, &picks);
  EXPECT_THAT(picks, ElementsAre(0, 1, 4));  // 1 by its loss, 0 by its score, 4 by the rest
}

TEST(PartOfTest, AShareOfACountIsNotBelowItByTheBinaryPoint) {
  EXPECT_EQ(PartOf(0.29, 100), 29);
  EXPECT_EQ(PartOf(0.5, 5), 2);
  EXPECT_EQ(PartOf(1, 7), 7);
  EXPECT_EQ(PartOf(0, 7), 0);
}

// Two heads of four tokens and one that stays, under half of a window's attention each.
const std::vector<std::vector<float>> kOrder = {{4, 3, kInfinity, 2, 1}, {1, 2, kInfinity, 3, 4}};
const std::vector<std::vector<float>> kAttention = {{0.4f, 0.3f, 9, 0.2f, 0.1f}, {0.1f, 0.1f, 9, 0.1f, 0.7f}};
std::vector<int64_t> Attended(double lost, int64_t budget, int64_t most = 5) {
  std::vector<int64_t> counts(2);
  KeepAttention(
      {.layers = 1, .kv_heads = 2, .budget = budget, .most = most, .scores = kOrder, .attention = kAttention},
      lost, counts);
  return counts;
}

TEST(KeepAttentionTest, EachHeadKeepsAsFewAsLoseNoMore) {
  EXPECT_THAT(Attended(0.31, 5), ElementsAre(1 + 2, 1 + 1));
  EXPECT_THAT(Attended(0.29, 5), ElementsAre(1 + 3, 1 + 2));
  EXPECT_THAT(Attended(0, 5), ElementsAre(5, 5));
  EXPECT_THAT(Attended(1.1, 5), ElementsAre(1, 1)) << "nothing is lost that is too much";
}

TEST(KeepAttentionTest, WhereTheBudgetIsTooSmallAllLoseMoreAlike) {
  // Four beside those that stay: losing .3 each takes three, .2 would take five.
  EXPECT_THAT(Attended(0.05, 3), ElementsAre(1 + 2, 1 + 1));
  // Two: .6 of one and .3 of the other, then of both.
  EXPECT_THAT(Attended(0.05, 2), ElementsAre(1 + 1, 1 + 1));
  EXPECT_THAT(Attended(0.05, 5, /*most=*/3), ElementsAre(1 + 2, 1 + 2)) << "of no head more than it may have";
}

// The published threshold keeps what is strictly above the score at place int(n * share) - 1.
int64_t PublishedKvZip(std::vector<float> scores, double share) {
  std::sort(scores.begin(), scores.end(), std::greater<>());
  const float threshold = scores[static_cast<size_t>(static_cast<double>(scores.size()) * share) - 1];
  return std::count_if(scores.begin(), scores.end(), [&](float score) { return score > threshold; });
}

TEST(KvZipGoldenTest, TheBudgetIsMetWhereThePublishedThresholdKeepsFewer) {
  EXPECT_EQ(PublishedKvZip({5, 4, 3, 1}, 0.5), 1);
  EXPECT_EQ(PublishedKvZip({5, 4, 4, 1}, 0.5), 1);
  EXPECT_THAT(CountsOf("kvzip", 1, 2, {{5, 4, 3, 1}}), ElementsAre(2));
  EXPECT_THAT(CountsOf("kvzip", 1, 2, {{5, 4, 4, 1}}), ElementsAre(2));
}

TEST(KvZipTest, AllLayersShareOneBudget) {
  // The highest four of two layers of one head each; layers of adakv would have two each.
  EXPECT_THAT(CountsOf("kvzip", 2, 2, kTwoHeads), ElementsAre(3, 1));
  EXPECT_THAT(CountsOf("adakv:floor=0", 2, 2, kTwoHeads), ElementsAre(2, 2));
}

TEST(KvZipTest, SumsAreExactAndWhatIsFullIsLeftToTheOthers) {
  EXPECT_THAT(CountsOf("kvzip", 2, 2, kTwoHeads, /*most=*/2), ElementsAre(2, 2));
  for (const int64_t most : {33, 50, 200}) {
    const auto scores = RandomScores(12, 200, 0, static_cast<uint64_t>(most));
    const std::vector<int64_t> counts = CountsOf("kvzip", 3, 33, scores, most);
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 12 * 33);
    EXPECT_LE(*std::max_element(counts.begin(), counts.end()), most);
  }
}

TEST(KvZipTest, ATokenIsWorthTheMostThatAnyQueryHeadGivesIt) {
  const TestHead head(RandomAttention(3, 300, 2));
  const std::vector<float> scores = ScoresOf("kvzip", head.input);
  for (size_t i = 0; i < scores.size(); ++i) {
    float most = 0;
    for (int64_t g = 0; g < head.input.group; ++g)
      most = std::max(most, head.input.attention[g * head.input.attention_stride + static_cast<int64_t>(i)]);
    ASSERT_EQ(scores[i], most);
  }
}

}  // namespace
}  // namespace palimpsest
