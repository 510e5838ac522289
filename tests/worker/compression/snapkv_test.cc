// SnapKV against figures worked out by hand and against float64. Each figure that tells a known mistake from
// the right formula has a case that makes the mistake and must differ.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/worker/compression/policy_reference.h"

namespace palimpsest {
namespace {

using reference::Mistake;
using ::testing::ElementsAre;
using ::testing::FloatEq;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One head of size 1, six tokens, the last two vote: k = ln [1 2 1 4 1 3], q = 1 and 2.
std::vector<double> Votes(Mistake mistake = Mistake::kNone) {
  std::vector<double> keys;
  for (const double e : {1, 2, 1, 4, 1, 3}) keys.push_back(std::log(e));
  return reference::WindowAttention(keys, {1, 2}, 2, mistake);
}

std::vector<float> Scores(const char* policy, const std::vector<double>& votes) {
  const TestHead head({votes});
  std::vector<float> scores = ScoresOf(policy, head.input);
  EXPECT_EQ(scores[4], kInfinity);
  EXPECT_EQ(scores[5], kInfinity);
  scores.resize(4);
  return scores;
}

// The four of the prefix, best first, by which would stay if one, two, three did.
std::vector<int32_t> OrderOf(const std::vector<float>& scores) {
  std::vector<int32_t> order;
  for (int64_t count = 1; count <= 4; ++count) {
    for (const int32_t pick : TopOf(scores, count)) {
      if (std::find(order.begin(), order.end(), pick) == order.end()) order.push_back(pick);
    }
  }
  return order;
}

constexpr char kNone[] = "snapkv:budget=3,window=2,kernel=3,pool=none";
constexpr char kAverage[] = "snapkv:budget=3,window=2,kernel=3,pool=avg";
constexpr char kAverageValid[] = "snapkv:budget=3,window=2,kernel=3,pool=avg,divisor=valid";
constexpr char kMax[] = "snapkv:budget=3,window=2,kernel=3,pool=max";

TEST(SnapKvGoldenTest, VotesAreTheWindowsAttentionToThePrefix) {
  const std::vector<float> scores = Scores(kNone, Votes());
  EXPECT_THAT(scores,
              ElementsAre(FloatEq(41.0 / 288), FloatEq(25.0 / 72), FloatEq(41.0 / 288), FloatEq(17.0 / 18)));
  EXPECT_THAT(OrderOf(scores), ElementsAre(3, 1, 0, 2));  // 0 = 2: the earlier one
}

TEST(SnapKvGoldenTest, AMissingCausalMaskIsAnotherVote) {
  const std::vector<float> wrong = Scores(kNone, Votes(Mistake::kNoCausalMask));
  EXPECT_NEAR(wrong[0], 0.114583, 1e-6);
  EXPECT_NEAR(wrong[1], 0.291667, 1e-6);
  EXPECT_NEAR(wrong[3], 0.833333, 1e-6);
}

TEST(SnapKvGoldenTest, ASoftmaxOverThePrefixAloneIsAnotherVote) {
  const std::vector<float> wrong = Scores(kNone, Votes(Mistake::kSoftmaxOverPrefix));
  EXPECT_NEAR(wrong[0], 0.170455, 1e-6);
  EXPECT_NEAR(wrong[1], 0.431818, 1e-6);
  EXPECT_NEAR(wrong[3], 1.227273, 1e-6);
}

TEST(SnapKvGoldenTest, TheAverageCountsThePadding) {
  const std::vector<float> scores = Scores(kAverage, Votes());
  EXPECT_THAT(scores, ElementsAre(FloatEq(47.0 / 288), FloatEq(91.0 / 432), FloatEq(413.0 / 864),
                                  FloatEq(313.0 / 864)));
  EXPECT_THAT(OrderOf(scores), ElementsAre(2, 3, 1, 0));
  EXPECT_THAT(TopOf(scores, 1), ElementsAre(2));
  EXPECT_THAT(TopOf(scores, 3), ElementsAre(1, 2, 3));
}

TEST(SnapKvGoldenTest, AnAverageThatDoesNotCountThePaddingPicksOthers) {
  const std::vector<float> scores = Scores(kAverageValid, Votes());
  EXPECT_NEAR(scores[0], 0.244792, 1e-6);
  EXPECT_NEAR(scores[1], 0.210648, 1e-6);
  EXPECT_NEAR(scores[2], 0.478009, 1e-6);
  EXPECT_NEAR(scores[3], 0.543403, 1e-6);
  EXPECT_THAT(OrderOf(scores), ElementsAre(3, 2, 0, 1));
  EXPECT_THAT(TopOf(scores, 1), ElementsAre(3));
  EXPECT_THAT(TopOf(scores, 3), ElementsAre(0, 2, 3));
}

TEST(SnapKvGoldenTest, TheMaximumTiesToTheEarlierToken) {
  const std::vector<float> scores = Scores(kMax, Votes());
  EXPECT_THAT(scores,
              ElementsAre(FloatEq(25.0 / 72), FloatEq(25.0 / 72), FloatEq(17.0 / 18), FloatEq(17.0 / 18)));
  EXPECT_THAT(OrderOf(scores), ElementsAre(2, 3, 0, 1));
}

TEST(SnapKvGoldenTest, APoolThatReachesIntoTheWindowIsAnotherScore) {
  // The mistake: all six columns under the pool. Column 3 then borrows from the window's first.
  const std::vector<double> votes = Votes();
  const TestHead head({votes});
  HeadInput all = head.input;
  all.window_stays = false;
  const std::vector<float> wrong = ScoresOf(kAverage, all);
  const std::vector<float> right = Scores(kAverage, votes);
  EXPECT_FLOAT_EQ(wrong[2], right[2]);
  EXPECT_GT(wrong[3], right[3] + 0.04);
}

TEST(SnapKvGoldenTest, SumAndMeanOverTheWindowPickTheSame) {
  std::vector<double> mean = Votes();
  for (double& vote : mean) vote /= 2;
  EXPECT_EQ(OrderOf(Scores(kAverage, mean)), OrderOf(Scores(kAverage, Votes())));
}

TEST(SnapKvGoldenTest, TheReducerOfTheGroupDecides) {
  const TestHead head({{0.5, 0, 0.3, 0}, {0, 0.4, 0.3, 0}});
  EXPECT_THAT(TopOf(ScoresOf("snapkv:window=1,kernel=1,reduce=mean", head.input), 2), ElementsAre(2, 3));
  EXPECT_THAT(TopOf(ScoresOf("snapkv:window=1,kernel=1,reduce=sum", head.input), 2), ElementsAre(2, 3));
  EXPECT_THAT(TopOf(ScoresOf("snapkv:window=1,kernel=1,reduce=max", head.input), 2), ElementsAre(0, 3));
}

TEST(SnapKvGoldenTest, TheOrderOfPoolAndReduceDecides) {
  const TestHead head({{0.5, 0, 0, 0}, {0, 0, 0.6, 0}});
  const auto scores = [&](const char* policy) {
    std::vector<float> all = ScoresOf(policy, head.input);
    all.pop_back();  // the window
    return all;
  };
  EXPECT_THAT(scores("snapkv:window=1,kernel=3,order=pool-reduce"),
              ElementsAre(FloatEq(0.25), FloatEq(0.55), FloatEq(0.3)));
  EXPECT_THAT(scores("snapkv:window=1,kernel=3,order=reduce-pool"),
              ElementsAre(FloatEq(0.25), FloatEq(0.3), FloatEq(0.3)));
}

TEST(SnapKvGoldenTest, ABudgetIsAnIntegerNotOneMinusARatio) {
  const double ratio = 0.9;
  EXPECT_EQ(static_cast<int>(10 * (1 - ratio)), 0);  // the mistake
  EXPECT_EQ(ParsePolicy("snapkv:budget=10%")->BudgetOf(10), 1);
}

// Every combination of the options, against the loops by definition.
struct Dialect {
  const char* pool;
  const char* reduce;
  const char* order;
  const char* divisor;
};

std::vector<Dialect> Dialects() {
  std::vector<Dialect> all;
  for (const char* pool : {"max", "avg", "none"}) {
    for (const char* reduce : {"mean", "max", "sum"}) {
      for (const char* order : {"reduce-pool", "pool-reduce"}) {
        for (const char* divisor : {"padded", "valid"}) all.push_back({pool, reduce, order, divisor});
      }
    }
  }
  return all;
}

std::string TextOf(const Dialect& dialect, int64_t window, int64_t kernel) {
  return fmt::format("snapkv:budget=64K,window={},kernel={},pool={},reduce={},order={},divisor={}", window,
                     kernel, dialect.pool, dialect.reduce, dialect.order, dialect.divisor);
}

TEST(SnapKvReferenceTest, EveryDialectIsItsDefinition) {
  struct Shape {
    int64_t tokens, group, window, kernel;
  };
  const Shape shapes[] = {{1, 1, 1, 1},    {2, 3, 1, 7},     {31, 3, 32, 7},  {32, 3, 32, 7},  {33, 3, 32, 7},
                          {40, 2, 32, 63}, {100, 4, 16, 13}, {777, 3, 32, 5}, {4096, 1, 64, 7}};
  for (const Shape& shape : shapes) {
    const reference::Rows attention =
        RandomAttention(shape.group, shape.tokens, static_cast<uint64_t>(shape.tokens));
    const TestHead head(attention, /*padding=*/5);
    for (const Dialect& dialect : Dialects()) {
      const std::string text = TextOf(dialect, shape.window, shape.kernel);
      for (const bool window_stays : {true, false}) {
        HeadInput input = head.input;
        input.window_stays = window_stays;
        const std::vector<float> scores = ScoresOf(text.c_str(), input);
        const std::vector<double> exact = reference::SnapKv(attention, *ParsePolicy(text), window_stays);
        for (int64_t i = 0; i < shape.tokens; ++i) {
          // A sum of at most 63 * 4 positive numbers: each addition is off by 2^-24 of the sum at most.
          if (scores[i] == exact[i]) continue;  // infinity too
          ASSERT_NEAR(scores[i], exact[i], 256 * 0x1p-24 * exact[i]) << text << " token " << i;
        }
      }
    }
  }
}

TEST(SnapKvReferenceTest, FloatPicksWhatDoublePicks) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const reference::Rows attention = RandomAttention(3, 2000, seed);
    const TestHead head(attention);
    for (const Dialect& dialect : Dialects()) {
      const std::string text = TextOf(dialect, 32, 7);
      const std::vector<int32_t> picks = TopOf(ScoresOf(text.c_str(), head.input), 256);
      const std::vector<int32_t> exact =
          reference::Top(reference::SnapKv(attention, *ParsePolicy(text), true), 256);
      EXPECT_GE(reference::Overlap(picks, exact), 0.99) << text;
    }
  }
}

TEST(SnapKvTest, OneQueryHeadIsPlainAttentionBitForBit) {
  const TestHead head(RandomAttention(1, 500, 7));
  const std::vector<float> plain = ScoresOf("snapkv:pool=none", head.input);
  for (size_t i = 0; i + 32 < plain.size(); ++i) EXPECT_EQ(plain[i], head.attention[i]);
  for (const char* pool : {"max", "avg"}) {
    const std::string base = fmt::format("snapkv:pool={}", pool);
    const std::vector<float> mean = ScoresOf(base.c_str(), head.input);
    for (const char* rest :
         {",reduce=max", ",reduce=sum", ",order=pool-reduce", ",order=pool-reduce,reduce=sum"}) {
      EXPECT_EQ(ScoresOf((base + rest).c_str(), head.input), mean) << pool << rest;
    }
  }
}

TEST(SnapKvTest, EqualQueryHeadsScoreLikeOne) {
  const reference::Rows row = RandomAttention(1, 300, 9);
  const TestHead one(row), two({row[0], row[0]});
  for (const char* policy : {"snapkv", "snapkv:pool=avg", "snapkv:reduce=max", "snapkv:order=pool-reduce"}) {
    EXPECT_EQ(ScoresOf(policy, two.input), ScoresOf(policy, one.input)) << policy;
  }
}

TEST(SnapKvTest, TheOrderOfTheQueryHeadsDoesNotMatter) {
  reference::Rows rows = RandomAttention(4, 200, 11);
  // Multiples of 2^-12: their sums are exact in any order.
  for (auto& row : rows) {
    for (double& value : row) value = std::round(value * 4096) / 4096;
  }
  const TestHead forward(rows), backward({rows[3], rows[1], rows[0], rows[2]});
  for (const Dialect& dialect : Dialects()) {
    const std::string text = TextOf(dialect, 32, 1);
    EXPECT_EQ(ScoresOf(text.c_str(), forward.input), ScoresOf(text.c_str(), backward.input)) << text;
  }
}

TEST(SnapKvTest, AKernelOfOneIsNoPool) {
  const TestHead head(RandomAttention(3, 200, 13));
  for (const char* pool : {"max", "avg"}) {
    for (const char* rest : {"", ",divisor=valid", ",order=pool-reduce"}) {
      EXPECT_EQ(ScoresOf(fmt::format("snapkv:kernel=1,pool={}{}", pool, rest).c_str(), head.input),
                ScoresOf("snapkv:pool=none", head.input))
          << pool << rest;
    }
  }
}

TEST(SnapKvTest, AKernelWiderThanTheTextSeesAllOfIt) {
  const TestHead head({{0.25, 0.5, 0.125, 0}});
  EXPECT_THAT(ScoresOf("snapkv:window=1,kernel=63", head.input), ElementsAre(0.5, 0.5, 0.5, kInfinity));
  EXPECT_THAT(ScoresOf("snapkv:window=1,kernel=63,pool=avg,divisor=valid", head.input),
              ElementsAre(FloatEq(0.875f / 3), FloatEq(0.875f / 3), FloatEq(0.875f / 3), kInfinity));
}

TEST(SnapKvTest, ATextNoLongerThanTheWindowStaysWhole) {
  for (const int64_t tokens : {1, 31, 32}) {
    const TestHead head(RandomAttention(2, tokens, 3));
    EXPECT_EQ(ScoresOf("snapkv", head.input), std::vector<float>(tokens, kInfinity));
  }
}

TEST(SnapKvTest, AWindowOfOneIsTheLastToken) {
  const TestHead head({{0.5, 0.25, 0.125}});
  EXPECT_THAT(ScoresOf("snapkv:window=1,pool=none", head.input), ElementsAre(0.5, 0.25, kInfinity));
}

TEST(SnapKvTest, WhereMoreTextFollowsTheWindowCompetes) {
  const TestHead head({{0.5, 0.25, 0.125, 0.0625}});
  HeadInput input = head.input;
  input.window_stays = false;
  EXPECT_THAT(ScoresOf("snapkv:window=2,kernel=1", input), ElementsAre(0.5, 0.25, 0.125, 0.0625));
}

TEST(SnapKvTest, EqualScoresKeepTheFirstTokensAndTheWindow) {
  const TestHead head({std::vector<double>(100, 0.01)});
  for (const char* policy : {"snapkv", "snapkv:pool=none", "snapkv:pool=avg,divisor=valid,kernel=1"}) {
    const std::vector<int32_t> picks = TopOf(ScoresOf(policy, head.input), 40);
    ASSERT_EQ(picks.size(), 40u);
    for (int32_t i = 0; i < 8; ++i) EXPECT_EQ(picks[i], i) << policy;
    for (int32_t i = 8; i < 40; ++i) EXPECT_EQ(picks[i], 60 + i) << policy;
  }
}

TEST(SnapKvTest, ABudgetOfAllTokensIsEveryTokenInItsOrder) {
  const TestHead head(RandomAttention(2, 50, 5));
  const std::vector<float> scores = ScoresOf("snapkv", head.input);
  for (const int64_t budget : {50, 51, 1000}) {
    EXPECT_EQ(TopOf(scores, budget), head.tokens) << budget;
  }
}

TEST(SnapKvTest, AttentionThatIsNoNumberIsNobodysVote) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = kInfinity;
  const TestHead head({{0.5, nan, 0.25, -infinity, 0.125, 0}, {nan, nan, 0.25, infinity, 0.125, 0}});
  EXPECT_THAT(ScoresOf("snapkv:window=1,kernel=1,reduce=sum", head.input),
              ElementsAre(0.5, 0, 0.5, 0, 0.25, kInfinity));
  // It does not spread over its neighbours either.
  for (const char* policy : {"snapkv:window=1,kernel=3", "snapkv:window=1,kernel=3,pool=avg",
                             "snapkv:window=1,kernel=3,order=pool-reduce,pool=avg"}) {
    const std::vector<float> scores = ScoresOf(policy, head.input);
    for (size_t i = 0; i < 5; ++i) EXPECT_TRUE(std::isfinite(scores[i])) << policy << " token " << i;
    EXPECT_GT(scores[0], 0) << policy;
  }
}

}  // namespace
}  // namespace palimpsest
