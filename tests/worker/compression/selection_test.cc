#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "proto/base/rng.h"
#include "tests/worker/compression/policy_reference.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> NovelOf(const std::vector<float>& losses, const std::vector<float>& scores,
                             int64_t fixed, int64_t count, double alpha) {
  std::vector<int32_t> picks;
  SelectNovel(losses, scores, fixed, count, alpha, &picks);
  return picks;
}

std::vector<double> Widened(const std::vector<float>& numbers) {
  return std::vector<double>(numbers.begin(), numbers.end());
}

// Few different values, so that ties are common.
std::vector<float> CoarseNumbers(int64_t n, uint64_t seed) {
  RngSequence random{Rng(seed)};
  std::vector<float> numbers(n);
  for (float& number : numbers) number = static_cast<float>(random.Below(1 + n / 3)) / 8;
  return numbers;
}

TEST(SelectTopTest, PicksAreAscendingAndTiesGoToTheEarlier) {
  EXPECT_THAT(TopOf({1, 3, 2, 3, 3}, 2), ElementsAre(1, 3));
  EXPECT_THAT(TopOf({1, 3, 2, 3, 3}, 4), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(TopOf({0.0f, -0.0f, 0.0f}, 2), ElementsAre(0, 1));
  EXPECT_THAT(TopOf(std::vector<float>(9, 0.5f), 4), ElementsAre(0, 1, 2, 3));
}

TEST(SelectTopTest, CountsAtTheEnds) {
  EXPECT_THAT(TopOf({1, 2}, 0), IsEmpty());
  EXPECT_THAT(TopOf({1, 2}, -1), IsEmpty());
  EXPECT_THAT(TopOf({1, 2}, 2), ElementsAre(0, 1));
  EXPECT_THAT(TopOf({1, 2}, 100), ElementsAre(0, 1));
  EXPECT_THAT(TopOf({}, 3), IsEmpty());
}

TEST(SelectTopTest, WhatIsNoNumberIsBelowAll) {
  EXPECT_THAT(TopOf({kNan, -kInfinity, 1, kInfinity}, 1), ElementsAre(3));
  EXPECT_THAT(TopOf({kNan, -kInfinity, 1, kInfinity}, 2), ElementsAre(2, 3));
  EXPECT_THAT(TopOf({kNan, -kInfinity, 1, kInfinity}, 3), ElementsAre(1, 2, 3));
  EXPECT_THAT(TopOf({kNan, -kNan, kNan}, 2), ElementsAre(0, 1));
  EXPECT_THAT(TopOf({kNan, 5, kNan, 4, kNan, 3}, 4), ElementsAre(0, 1, 3, 5));
}

TEST(SelectTopTest, IsSortingAllOfThem) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const int64_t n = 1 + static_cast<int64_t>(seed * 7 % 300);
    const std::vector<float> scores = CoarseNumbers(n, seed);
    for (const int64_t count : {int64_t{1}, n / 4, n / 2, n - 1}) {
      EXPECT_EQ(TopOf(scores, count), reference::Top(Widened(scores), count)) << n << " " << count;
    }
  }
}

TEST(SelectTopTest, TakesNoMemoryButTheCallers) {
  const std::vector<float> scores = CoarseNumbers(1000, 1);
  std::vector<int32_t> picks;
  picks.reserve(1000);
  const int32_t* const data = picks.data();
  SelectTop(scores, 100, &picks);
  EXPECT_EQ(picks.data(), data);
  SelectNovel(scores, scores, 4, 100, 0.5, &picks);
  EXPECT_EQ(picks.data(), data);
}

// Novelty n, attention u, four of eight stay.
const std::vector<float> kLosses = {.1f, 2, .3f, 1.5f, .2f, .4f, .9f, .05f};
const std::vector<float> kUse = {.9f, .8f, .1f, .05f, .7f, .2f, .3f, .6f};

TEST(SelectNovelGoldenTest, NoveltyPicksFirstThenAttentionOfTheRest) {
  EXPECT_THAT(NovelOf(kLosses, kUse, 0, 4, 0.5), ElementsAre(0, 1, 3, 4));
}

TEST(SelectNovelGoldenTest, AttentionThatMayRepeatNoveltyKeepsTooFew) {
  // The mistake: the union of two lists that do not know of each other.
  std::vector<int32_t> wrong = TopOf(kLosses, 2);
  for (const int32_t pick : TopOf(kUse, 2)) wrong.push_back(pick);
  std::sort(wrong.begin(), wrong.end());
  wrong.erase(std::unique(wrong.begin(), wrong.end()), wrong.end());
  EXPECT_THAT(wrong, ElementsAre(0, 1, 3));
}

TEST(SelectNovelGoldenTest, AlphaAtTheEndsIsOneOfThem) {
  EXPECT_THAT(NovelOf(kLosses, kUse, 0, 4, 0), ElementsAre(0, 1, 4, 7));
  EXPECT_THAT(NovelOf(kLosses, kUse, 0, 4, 1), ElementsAre(1, 3, 5, 6));
  EXPECT_EQ(NovelOf(kLosses, kUse, 0, 4, 0), TopOf(kUse, 4));
  EXPECT_EQ(NovelOf(kLosses, kUse, 0, 4, 1), TopOf(kLosses, 4));
}

TEST(SelectNovelTest, TheShareOfNoveltyIsRoundedDown) {
  EXPECT_THAT(NovelOf(kLosses, kUse, 0, 3, 0.5), ElementsAre(0, 1, 4));  // one novel: 1
  EXPECT_THAT(NovelOf(kLosses, kUse, 0, 1, 0.99), ElementsAre(0));
}

TEST(SelectNovelTest, AShareIsADecimalNotItsNearestDouble) {
  EXPECT_LT(0.29 * 100, 29.0);  // the mistake
  // The first 100 are novel, the last 100 used: what stays of the first is the share.
  std::vector<float> losses(200, 0), scores(200, 0);
  for (int i = 0; i < 100; ++i) losses[i] = scores[199 - i] = 1;
  for (const auto& [alpha, novel] : {std::pair{0.29, 29}, {0.57, 57}, {0.58, 58}, {0.999, 99}, {1e-9, 0}}) {
    const std::vector<int32_t> picks = NovelOf(losses, scores, 0, 100, alpha);
    EXPECT_EQ(std::count_if(picks.begin(), picks.end(), [](int32_t i) { return i < 100; }), novel) << alpha;
  }
}

TEST(SelectNovelTest, ThePrefixStaysBesideTheCount) {
  EXPECT_THAT(NovelOf(kLosses, kUse, 3, 2, 0.5), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(NovelOf(kLosses, kUse, 3, 0, 0.5), ElementsAre(0, 1, 2));
  EXPECT_THAT(NovelOf(kLosses, kUse, 8, 2, 0.5), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(NovelOf(kLosses, kUse, 100, 2, 0.5), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(NovelOf(kLosses, kUse, 3, 5, 0.5), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(NovelOf({}, {}, 0, 2, 0.5), IsEmpty());
}

TEST(SelectNovelTest, TheFirstTokenThatNothingPredictedIsNovel) {
  std::vector<float> losses = kLosses;
  losses[7] = kInfinity;
  EXPECT_THAT(NovelOf(losses, kUse, 0, 2, 0.5), ElementsAre(0, 7));
  losses[7] = kNan;
  EXPECT_THAT(NovelOf(losses, kUse, 0, 2, 0.5), ElementsAre(0, 1));
}

TEST(SelectNovelTest, IsItsDefinition) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const int64_t n = 8 + static_cast<int64_t>(seed);
    const std::vector<float> losses = CoarseNumbers(n, 2 * seed), scores = CoarseNumbers(n, 2 * seed + 1);
    const int64_t fixed = static_cast<int64_t>(seed % 5), count = n / 3;
    for (const int64_t quarters : {0, 1, 2, 3, 4}) {
      EXPECT_EQ(NovelOf(losses, scores, fixed, count, 0.25 * static_cast<double>(quarters)),
                reference::Novel(Widened(losses), Widened(scores), fixed, count, count * quarters / 4))
          << "seed " << seed << " alpha " << quarters << "/4";
    }
  }
}

// What one head has in its pot: tokens of the text, with what each was worth when it was read.
TEST(SelectNovelTest, NoveltyPicksTheSameTokensInAllHeadsThroughCycles) {
  constexpr int64_t kPot = 96, kKeep = 40, kHeads = 5;
  RngSequence random{Rng(17)};
  std::vector<float> losses;  // of each token of the text; coarse, so that there are ties
  std::vector<std::vector<int32_t>> pots(kHeads);
  for (int cycle = 0; cycle < 12; ++cycle) {
    std::vector<std::vector<int32_t>> novel(kHeads);
    for (int64_t head = 0; head < kHeads; ++head) {
      std::vector<int32_t>& pot = pots[head];
      for (size_t next = losses.size() - (head == 0 ? 0 : kPot - pot.size()); pot.size() < kPot; ++next) {
        if (next == losses.size()) losses.push_back(static_cast<float>(random.Below(12)));
        pot.push_back(static_cast<int32_t>(next));
      }
      std::vector<float> pot_losses, pot_scores;
      for (const int32_t token : pot) {
        pot_losses.push_back(losses[token]);
        pot_scores.push_back(static_cast<float>(random.Uniform()));
      }
      const auto tokens_of = [&](const std::vector<int32_t>& picks) {
        std::vector<int32_t> tokens;
        for (const int32_t pick : picks) tokens.push_back(pot[pick]);
        return tokens;
      };
      novel[head] = tokens_of(TopOf(pot_losses, kKeep / 2));
      pot = tokens_of(NovelOf(pot_losses, pot_scores, 0, kKeep, 0.5));
      EXPECT_EQ(pot.size(), static_cast<size_t>(kKeep));
      EXPECT_TRUE(std::includes(pot.begin(), pot.end(), novel[head].begin(), novel[head].end()));
      EXPECT_EQ(novel[head], novel[0]) << "cycle " << cycle << " head " << head;
    }
    EXPECT_NE(pots[0], pots[1]) << "heads of different attention keep different tokens";
  }
}

}  // namespace
}  // namespace palimpsest
