// Policies that weigh tokens by every query, and TOVA: goldens, their definitions in float64, what they
// promise.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/worker/compression/policy_reference.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Scores by the definition, within so many roundings of each.
void ExpectScores(const std::vector<float>& scores, const std::vector<double>& exact, int64_t roundings,
                  const std::string& what) {
  ASSERT_EQ(scores.size(), exact.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isinf(exact[i])) {
      ASSERT_EQ(scores[i], std::numeric_limits<float>::infinity()) << what << ", token " << i;
    } else {
      ASSERT_NEAR(scores[i], exact[i], static_cast<double>(roundings) * 0x1p-24 * exact[i])
          << what << ", token " << i;
    }
  }
}

// The sums of [1], [.5 .5], [.2 .3 .5], [.1 .2 .3 .4]. Early tokens win a sum and lose a mean.
TEST(H2oTest, TheGoldenExample) {
  const TestHead head({{1.8, 1.0, 0.8, 0.4}});
  EXPECT_THAT(TopOf(ScoresOf("h2o:heavy=2,recent=1", head.input), 3), ElementsAre(0, 1, 3));
  const std::vector<float> normalized = ScoresOf("h2o:heavy=2,recent=1,normalize=queries", head.input);
  EXPECT_NEAR(normalized[0], 0.45, 1e-6);
  EXPECT_NEAR(normalized[1], 1.0 / 3, 1e-6);
  EXPECT_NEAR(normalized[2], 0.4, 1e-6);
  EXPECT_THAT(TopOf(normalized, 3), ElementsAre(0, 2, 3));
}

TEST(H2oTest, IsItsDefinition) {
  for (const int64_t group : {1, 3, 8}) {
    const TestHead head(RandomAttention(group, 1000, 41), /*padding=*/3);
    for (const char* normalize : {"none", "queries"}) {
      for (const char* reduce : {"mean", "max", "sum"}) {
        const std::string text = fmt::format("h2o:recent=50,normalize={},reduce={}", normalize, reduce);
        for (const bool stays : {true, false}) {
          HeadInput input = head.input;
          input.window_stays = stays;
          ExpectScores(ScoresOf(text.c_str(), input), reference::H2o(head.seen, *ParsePolicy(text), stays),
                       16, text);
        }
      }
    }
  }
}

TEST(H2oTest, OfEqualSumsTheEarlierStays) {
  const TestHead head({{0.5, 0.5, 0.5, 0.5, 0.5, 0.5}});
  EXPECT_THAT(TopOf(ScoresOf("h2o:heavy=2,recent=2", head.input), 4), ElementsAre(0, 1, 4, 5));
}

TEST(H2oTest, OneHeadOfAGroupIsAHeadOfItsOwn) {
  const reference::Rows row = RandomAttention(1, 300, 42);
  const TestHead alone(row), twice({row[0], row[0]});
  EXPECT_EQ(ScoresOf("h2o", alone.input), ScoresOf("h2o", twice.input));
}

TEST(LookMTest, IsItsDefinition) {
  const TestHead head(RandomAttention(3, 500, 43), /*padding=*/5);
  for (const char* text : {"lookm", "lookm:images=100-400", "lookm:images=0-30/60-61/300-500,recent=7",
                           "lookm:text_prior=hard,images=100-400", "lookm:text_prior=hard",
                           "lookm:text_prior=none,images=2-400"}) {
    for (const bool stays : {true, false}) {
      HeadInput input = head.input;
      input.window_stays = stays;
      ExpectScores(ScoresOf(text, input), reference::LookM(head.seen, *ParsePolicy(text), stays), 16, text);
    }
  }
}

TEST(LookMTest, TextComesFirstAndTheBudgetIsKept) {
  const TestHead head({{0.1, 0.9, 0.8, 0.2, 0.3, 0.7, 0.4, 0.6}});  // 1 to 5 are an image's
  EXPECT_THAT(TopOf(ScoresOf("lookm:budget=4,recent=1,images=1-6", head.input), 4), ElementsAre(0, 1, 6, 7));
  // Text alone is over the budget: the best of it.
  EXPECT_THAT(TopOf(ScoresOf("lookm:budget=2,recent=1,images=1-6", head.input), 2), ElementsAre(6, 7));
}

// As coded: all text stays, and more of the images only if text leaves room.
TEST(LookMTest, TheHardFormKeepsAllTextOverTheBudget) {
  const TestHead head({{0.1, 0.9, 0.8, 0.2, 0.3, 0.7, 0.4, 0.6}});
  const char* const tight = "lookm:budget=2,recent=1,images=1-6,text_prior=hard";
  EXPECT_EQ(ParsePolicy(tight)->BudgetOf(8), 3);
  EXPECT_THAT(TopOf(ScoresOf(tight, head.input), 3), ElementsAre(0, 6, 7));
  const char* const ample = "lookm:budget=5,recent=1,images=1-6,text_prior=hard";
  EXPECT_EQ(ParsePolicy(ample)->BudgetOf(8), 5);
  EXPECT_THAT(TopOf(ScoresOf(ample, head.input), 5), ElementsAre(0, 1, 2, 6, 7));
}

// An image's end within the recent tokens stays, and is not counted twice.
TEST(LookMTest, AnImageThatReachesIntoTheRecentTokens) {
  const TestHead head({{0.1, 0.9, 0.8, 0.2, 0.3, 0.7, 0.4, 0.6}});
  const char* const text = "lookm:budget=4,recent=3,images=1-8,text_prior=hard";
  EXPECT_EQ(ParsePolicy(text)->BudgetOf(8), 4);
  EXPECT_THAT(TopOf(ScoresOf(text, head.input), 4), ElementsAre(0, 5, 6, 7));
}

// A prompt of text is none of text beside images: the public code's mask would keep all of it.
TEST(LookMTest, WithoutImagesTheSumsDecide) {
  const TestHead head(RandomAttention(2, 200, 44));
  const std::vector<float> plain = ScoresOf("h2o:heavy=20,recent=20", head.input);
  for (const char* prior : {"soft", "hard"}) {
    const std::string text = fmt::format("lookm:budget=40,recent=20,text_prior={}", prior);
    EXPECT_EQ(ScoresOf(text.c_str(), head.input), plain);
    EXPECT_EQ(ParsePolicy(text)->BudgetOf(200), 40);
  }
}

TEST(LookMTest, WithoutAPriorTheFirstFourStay) {
  const TestHead head({{0.01, 0.01, 0.01, 0.01, 0.01, 0.9, 0.8, 0.7}});
  EXPECT_THAT(TopOf(ScoresOf("lookm:budget=6,recent=1,text_prior=none", head.input), 6),
              ElementsAre(0, 1, 2, 3, 5, 7));
}

// Heads [.5 .1 .2 .2] and [.1 .4 .3 .2]: the mean drops the newest, unless it is kept.
TEST(TovaTest, TheGoldenExample) {
  const TestHead head({{0.5, 0.1, 0.2, 0.2}, {0.1, 0.4, 0.3, 0.2}});
  const std::vector<float> scores = ScoresOf("tova:last=free", head.input);
  const double want[] = {0.3, 0.25, 0.25, 0.2};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(scores[i], want[i], 1e-7);
  EXPECT_THAT(TopOf(scores, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(TopOf(ScoresOf("tova", head.input), 3), ElementsAre(0, 1, 3));
}

TEST(TovaTest, IsItsDefinition) {
  const TestHead head(RandomAttention(3, 400, 45), /*padding=*/2);
  for (const char* text : {"tova", "tova:last=free"}) {
    for (const bool stays : {true, false}) {
      HeadInput input = head.input;
      input.window_stays = stays;
      ExpectScores(ScoresOf(text, input), reference::Tova(head.seen.sums, *ParsePolicy(text), stays), 16,
                   text);
    }
  }
}

// Two tokens of equal mean 0.1 and a third of less whose attention came all at once.
TEST(RoCoTest, WhatVariesStays) {
  TestHead head({{0.4, 0.3, 0.16, 0.1}});         // means 0.1, 0.1, 0.08, 0.1
  head.squares = {0.04f, 0.03f, 0.0256f, 0.01f};  // deviations 0, 0, 0.08, 0
  head.input.squares = head.squares.data();
  EXPECT_THAT(TopOf(ScoresOf("roco:budget=2,volatile=1,sink=0,recent=1", head.input), 2), ElementsAre(0, 3));
  EXPECT_THAT(TopOf(ScoresOf("roco:budget=3,volatile=2,sink=0,recent=1", head.input), 3),
              ElementsAre(0, 2, 3));
}

// Beside others that stay there may be no room for all of them: the most volatile are worth most, whatever
// their place, and each more than any mean.
TEST(RoCoTest, OfTheVolatileTheMostVolatileIsWorthMost) {
  TestHead head({{0.4, 0.3, 0.16, 0.1}});
  head.squares = {0.05f, 0.045f, 0.0256f, 0.01f};  // deviations 0.05, 0.077, 0.08, 0
  head.input.squares = head.squares.data();
  const std::vector<float> scores = ScoresOf("roco:budget=4,volatile=3,sink=0,recent=1", head.input);
  EXPECT_EQ(scores[3], kInfinity);
  EXPECT_GT(scores[2], scores[1]);
  EXPECT_GT(scores[1], 1);
  EXPECT_NEAR(scores[0], 0.1, 1e-6);
}

TEST(RoCoTest, FirstAndLastTokensCountAsTheMostVolatile) {
  const TestHead head(RandomAttention(2, 100, 46));
  const std::vector<float> scores = ScoresOf("roco:budget=40,volatile=8,sink=3,recent=5", head.input);
  for (const size_t i : {0, 1, 2, 95, 96, 97, 98, 99}) EXPECT_EQ(scores[i], kInfinity) << i;
  EXPECT_EQ(std::count(scores.begin(), scores.end(), std::numeric_limits<float>::infinity()), 8);
  // Fewer volatile ones than there are first and last: these stay all the same.
  const std::vector<float> few = ScoresOf("roco:budget=40,volatile=1,sink=3,recent=5", head.input);
  EXPECT_EQ(std::count(few.begin(), few.end(), std::numeric_limits<float>::infinity()), 8);
}

// A deviation is a difference of two numbers that may be nearly equal: which tokens are volatile is compared
// where it is clear, the scores everywhere.
TEST(RoCoTest, IsItsDefinition) {
  for (const int64_t group : {1, 3}) {
    const TestHead head(RandomAttention(group, 600, 47), /*padding=*/4);
    for (const char* text :
         {"roco", "roco:sink=0,recent=1,volatile=1", "roco:volatile=20%,recent=5%,sink=9"}) {
      const std::vector<double> exact = reference::RoCo(head.seen, *ParsePolicy(text), true);
      const std::vector<float> scores = ScoresOf(text, head.input);
      EXPECT_GE(reference::Overlap(TopOf(scores, 150), reference::Top(exact, 150)), 0.99) << text;
      for (size_t i = 0; i < scores.size(); ++i) {
        if (exact[i] >= 2 || scores[i] >= 2) continue;
        ASSERT_NEAR(scores[i], exact[i], 16 * 0x1p-24 * exact[i]) << text;
      }
    }
  }
}

// What no query saw well is worth nothing, and does not make its neighbours worth less.
TEST(SumsPoliciesTest, WhatIsNotANumberIsTheLowest) {
  reference::Rows rows = RandomAttention(1, 50, 48);
  rows[0][20] = std::numeric_limits<double>::quiet_NaN();
  rows[0][21] = kInfinity;
  const TestHead head(rows);
  for (const char* text :
       {"h2o:heavy=10,recent=5", "h2o:heavy=10,recent=5,normalize=queries",
        "lookm:budget=15,recent=5,text_prior=none", "tova", "roco:budget=15,volatile=5,sink=0,recent=5"}) {
    const std::vector<int32_t> picks = TopOf(ScoresOf(text, head.input), 48);
    EXPECT_EQ(std::count(picks.begin(), picks.end(), 20) + std::count(picks.begin(), picks.end(), 21), 0)
        << text;
    EXPECT_EQ(picks.size(), 48u);
  }
}

TEST(SumsPoliciesTest, EachAsksForNoMoreThanItUses) {
  const auto needs = [](const char* text) { return MakePolicy(*ParsePolicy(text))->needs(); };
  for (const char* text : {"h2o", "lookm", "infinipot:score=h2o"}) {
    EXPECT_TRUE(needs(text).sums && !needs(text).squares && needs(text).window == 0) << text;
  }
  EXPECT_TRUE(needs("roco").sums && needs("roco").squares);
  EXPECT_TRUE(!needs("tova").sums && needs("tova").window == 1);
  EXPECT_FALSE(needs("snapkv").sums);
  // The heads of a layer take the mean of their scores, or each keeps its own.
  const auto agreed = [](const char* text) {
    std::vector<std::vector<float>> heads = {{1, 5, 3}, {2, 1, 9}};
    MakePolicy(*ParsePolicy(text))->Agree(heads);
    return heads;
  };
  const std::vector<float> mean = {1.5f, 3, 6};
  EXPECT_EQ(agreed("tova"), (std::vector<std::vector<float>>{mean, mean}));
  EXPECT_EQ(agreed("snapkv"), (std::vector<std::vector<float>>{{1, 5, 3}, {2, 1, 9}}));
}

}  // namespace
}  // namespace palimpsest
