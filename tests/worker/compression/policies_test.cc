// cap, streaming, random, and what every policy promises.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <thread>

#include "tests/worker/compression/policy_reference.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;

std::unique_ptr<CompressionPolicy> Make(const std::string& text) { return MakePolicy(*ParsePolicy(text)); }

TEST(MakePolicyTest, WhatKeepsAllHasNoScores) {
  EXPECT_EQ(Make("full"), nullptr);
  EXPECT_EQ(Make("auto"), nullptr);
}

TEST(MakePolicyTest, EachAsksForNoMoreThanItUses) {
  const PolicyNeeds snapkv = Make("snapkv:window=16")->needs();
  EXPECT_EQ(snapkv.window, 16);
  EXPECT_FALSE(snapkv.catalyst || snapkv.losses);
  EXPECT_EQ(snapkv.reduce, RowReduce::kSum);
  EXPECT_EQ(Make("snapkv:reduce=max")->needs().reduce, RowReduce::kSum);  // over the window: always a sum
  EXPECT_TRUE(Make("infinipot")->needs().catalyst);
  EXPECT_EQ(Make("infinipot")->needs().window, 0);
  EXPECT_EQ(Make("infinipot")->needs().reduce, RowReduce::kSum);
  EXPECT_EQ(Make("infinipot:reduce=max")->needs().reduce, RowReduce::kMax);
  for (const char* text : {"streaming", "random", "infinipot:score=streaming", "infinipot:score=random"}) {
    const PolicyNeeds needs = Make(text)->needs();
    EXPECT_FALSE(needs.window != 0 || needs.catalyst || needs.losses || needs.sums) << text;
  }
  EXPECT_EQ(Make("infinipot:score=snapkv")->needs().window, 32);
}

TEST(MakePolicyTest, OnlyStreamingSlidesWhileDecodingAndNotInAPot) {
  const auto sliding = Make("streaming:sink=2,recent=50%")->sliding();
  ASSERT_TRUE(sliding.has_value());
  EXPECT_EQ(sliding->sink, 2);
  EXPECT_EQ(sliding->recent, (Amount{50, true}));
  for (const char* text : {"snapkv", "random", "infinipot", "infinipot:score=streaming"}) {
    EXPECT_FALSE(Make(text)->sliding().has_value()) << text;
  }
}

TEST(MakePolicyTest, ADistillerScoresAsItDoesAlone) {
  const TestHead head(RandomAttention(3, 100, 1));
  for (const char* name : {"snapkv", "streaming", "random"}) {
    EXPECT_EQ(ScoresOf(fmt::format("infinipot:score={}", name).c_str(), head.input),
              ScoresOf(name, head.input));
  }
}

TEST(CapTest, IsTheMeanOrTheMaximumOverTheGroup) {
  const TestHead head({{0.5, 0.25, 0}, {0.25, 0.25, 1}});
  EXPECT_THAT(ScoresOf("infinipot", head.input), ElementsAre(0.375, 0.25, 0.5));
  EXPECT_THAT(ScoresOf("infinipot:reduce=max", head.input), ElementsAre(0.5, 0.25, 1));
}

TEST(CapTest, IsItsDefinition) {
  for (const int64_t group : {1, 3, 8}) {
    const reference::Rows attention = RandomAttention(group, 1000, 21);
    const TestHead head(attention, /*padding=*/3);
    for (const auto& [text, reduce] : {std::pair{"infinipot", PolicySpec::Reduce::kMean},
                                       std::pair{"infinipot:reduce=max", PolicySpec::Reduce::kMax}}) {
      const std::vector<float> scores = ScoresOf(text, head.input);
      const std::vector<double> exact = reference::Cap(attention, reduce);
      for (size_t i = 0; i < scores.size(); ++i) ASSERT_NEAR(scores[i], exact[i], 16 * 0x1p-24 * exact[i]);
      EXPECT_GE(reference::Overlap(TopOf(scores, 250), reference::Top(exact, 250)), 0.99);
    }
  }
}

TEST(CapTest, NothingStaysForStandingLast) {
  const TestHead head({{0.5, 0.25, 0.125, 0}});
  for (const bool window_stays : {true, false}) {
    HeadInput input = head.input;
    input.window_stays = window_stays;
    EXPECT_THAT(TopOf(ScoresOf("infinipot", input), 2), ElementsAre(0, 1));
  }
}

TEST(StreamingTest, SinksAndTheLastTokensStay) {
  const TestHead head(100);
  EXPECT_THAT(TopOf(ScoresOf("streaming:sink=2,recent=3", head.input), 5), ElementsAre(0, 1, 97, 98, 99));
  EXPECT_THAT(TopOf(ScoresOf("streaming:sink=0,recent=2", head.input), 2), ElementsAre(98, 99));
}

// Four sinks, a window of eight that the newcomer is one of, fifteen tokens: 0 to 3 and 8 to 14 stay.
TEST(StreamingTest, TheNewcomerIsOneOfTheWindow) {
  const TestHead head(16);
  EXPECT_THAT(TopOf(ScoresOf("streaming:sink=4,recent=8", head.input), 12),
              ElementsAre(0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15));
}

TEST(StreamingTest, ATextShorterThanTheSinksStaysWhole) {
  const TestHead head(3);
  EXPECT_THAT(TopOf(ScoresOf("streaming", head.input), 1024), ElementsAre(0, 1, 2));
}

TEST(StreamingTest, LaterIsHigherInAnyLength) {
  // Floats of the numbers themselves would tie from 2^24 tokens on.
  const int64_t n = (int64_t{1} << 24) + 100;
  const TestHead head(n);
  EXPECT_THAT(TopOf(ScoresOf("streaming:sink=1,recent=3", head.input), 4),
              ElementsAre(0, n - 3, n - 2, n - 1));
}

TEST(RandomTest, TheSeedDecidesAndEachHeadHasItsOwnLot) {
  TestHead head(2000);
  const std::vector<int32_t> picks = TopOf(ScoresOf("random", head.input), 500);
  EXPECT_EQ(TopOf(ScoresOf("random", head.input), 500), picks);
  EXPECT_NE(TopOf(ScoresOf("random:seed=1", head.input), 500), picks);
  std::set<std::vector<int32_t>> all;
  for (int64_t layer = 0; layer < 8; ++layer) {
    for (int64_t kv_head = 0; kv_head < 8; ++kv_head) {
      head.input.layer = layer;
      head.input.kv_head = kv_head;
      all.insert(TopOf(ScoresOf("random", head.input), 500));
    }
  }
  EXPECT_EQ(all.size(), 64u);
  // A quarter of a quarter in common, if heads are independent: 0.25 +- five deviations of 0.017.
  const auto second = std::next(all.begin());
  EXPECT_NEAR(reference::Overlap(*all.begin(), *second), 0.25, 0.085);
}

TEST(RandomTest, ATokensLotIsTheSameInWhateverListItStands) {
  TestHead all(100), some(10);
  const std::vector<float> scores = ScoresOf("random:seed=3", all.input);
  for (int i = 0; i < 10; ++i) some.tokens[i] = 7 * i + 20;
  const std::vector<float> again = ScoresOf("random:seed=3", some.input);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(again[i], scores[7 * i + 20]);
}

TEST(RandomTest, NoPlaceIsPreferred) {
  const TestHead head(4000);
  std::vector<int64_t> quarters(4);
  for (const int32_t pick : TopOf(ScoresOf("random:seed=5", head.input), 1000)) ++quarters[pick / 1000];
  // 250 of each quarter, within five deviations of a draw of 1000 (13.7).
  for (const int64_t count : quarters) EXPECT_NEAR(count, 250, 69);
}

class AnyPolicyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(AnyPolicyTest, EveryTokenGetsAScoreThatIsANumber) {
  reference::Rows attention = RandomAttention(3, 200, 31);
  attention[0][3] = attention[1][150] = std::numeric_limits<double>::quiet_NaN();
  const TestHead head(attention);
  for (const bool window_stays : {true, false}) {
    HeadInput input = head.input;
    input.window_stays = window_stays;
    for (const float score : ScoresOf(GetParam(), input)) EXPECT_FALSE(std::isnan(score));
  }
}

TEST_P(AnyPolicyTest, NoTokensAndOneTokenAreFine) {
  EXPECT_TRUE(ScoresOf(GetParam(), TestHead(reference::Rows{{}}).input).empty());
  EXPECT_EQ(ScoresOf(GetParam(), TestHead(reference::Rows{{0.5}}).input).size(), 1u);
}

TEST_P(AnyPolicyTest, WhatStandsBetweenTheRowsIsNotRead) {
  const reference::Rows attention = RandomAttention(3, 150, 33);
  EXPECT_EQ(ScoresOf(GetParam(), TestHead(attention, 0).input),
            ScoresOf(GetParam(), TestHead(attention, 42).input));
}

TEST_P(AnyPolicyTest, HeadsScoredAtOnceScoreAsAlone) {
  constexpr int64_t kHeads = 4;
  std::vector<std::unique_ptr<TestHead>> heads;
  std::vector<std::vector<float>> alone, together(kHeads, std::vector<float>(300));
  const std::unique_ptr<CompressionPolicy> policy = Make(GetParam());
  for (int64_t i = 0; i < kHeads; ++i) {
    heads.push_back(std::make_unique<TestHead>(RandomAttention(3, 300, 100 + static_cast<uint64_t>(i))));
    heads.back()->input.kv_head = i;
    alone.push_back(ScoresOf(GetParam(), heads.back()->input));
  }
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < kHeads; ++i) {
    threads.emplace_back([&, i] { policy->Score(heads[i]->input, together[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
}

TEST_P(AnyPolicyTest, EqualQueryHeadsKeepWhatOneKeeps) {
  const reference::Rows one = RandomAttention(1, 200, 37);
  TestHead head(reference::Rows{one[0], one[0]});  // two: sums and means of equal numbers are exact
  const auto repeat = [](std::vector<float>* numbers) {
    const auto half = numbers->begin() + static_cast<int64_t>(numbers->size() / 2);
    std::copy(numbers->begin(), half, half);
  };
  for (std::vector<float>* numbers : {&head.squares, &head.query_mean, &head.query_covariance})
    repeat(numbers);
  HeadInput alone = head.input;
  alone.group = 1;
  alone.query_mean = alone.query_mean.first(head.query_mean.size() / 2);
  alone.query_covariance = alone.query_covariance.first(head.query_covariance.size() / 2);
  EXPECT_EQ(TopOf(ScoresOf(GetParam(), head.input), 60), TopOf(ScoresOf(GetParam(), alone), 60));
}

INSTANTIATE_TEST_SUITE_P(All, AnyPolicyTest,
                         ::testing::Values("snapkv", "snapkv:pool=avg,order=pool-reduce", "infinipot",
                                           "infinipot:reduce=max", "infinipot:score=snapkv",
                                           "infinipot:score=streaming", "streaming", "random", "h2o",
                                           "h2o:normalize=queries,reduce=max", "infinipot:score=h2o", "lookm",
                                           "lookm:images=5-60/90-120", "lookm:text_prior=hard,images=5-60",
                                           "lookm:text_prior=none", "infinipot:score=lookm", "tova",
                                           "tova:last=free", "infinipot:score=tova", "roco",
                                           "roco:sink=0,recent=1,volatile=20%", "infinipot:score=roco",
                                           "knorm", "keydiff", "keydiff:keys=rest", "expected",
                                           "expected:covariance=no,values=no", "sirllm:recent=8", "pyramidkv",
                                           "adakv", "chunkkv", "criticalkv", "kvzip", "snapkv:target=0.9"));

// Some tokens of a head, with all that is known of them.
class Part {
 public:
  Part(const HeadInput& all, const std::vector<int32_t>& picks) : input(all) {
    const auto take = [&](std::span<const float> rows, int64_t width, std::vector<float>* own) {
      for (const int32_t pick : picks)
        own->insert(own->end(), rows.begin() + pick * width, rows.begin() + (pick + 1) * width);
      return std::span<const float>(*own);
    };
    for (const int32_t pick : picks) tokens_.push_back(all.tokens[static_cast<size_t>(pick)]);
    const size_t n = all.tokens.size();
    for (int64_t g = 0; g < all.group; ++g) {
      take({all.attention + g * all.attention_stride, n}, 1, &attention_);
      take({all.squares + g * all.sums_stride, n}, 1, &squares_);
    }
    input.tokens = tokens_;
    input.attention = input.sums = attention_.data();
    input.squares = squares_.data();
    input.attention_stride = input.sums_stride = static_cast<int64_t>(picks.size());
    input.seen_by = take(all.seen_by, 1, &seen_by_);
    input.losses = take(all.losses, 1, &losses_);
    input.keys = take(all.keys, all.head_size, &keys_);
    input.values = take(all.values, all.head_size, &values_);
    input.output_norms = take(all.output_norms, 1, &norms_);
    scratch_.resize(2 * picks.size());
    input.scratch = scratch_;
  }

  HeadInput input;

 private:
  std::vector<int32_t> tokens_;
  std::vector<float> attention_, squares_, seen_by_, losses_, keys_, values_, norms_, scratch_;
};

// Those that look at each token for itself. Not those that look at its neighbors (pools, chunks) or at how it
// compares with the others' mean or sum (keydiff, expected), nor what volatility sets apart first (roco).
class TokenByTokenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenByTokenTest, WhatIsKeptOfWhatWasKeptIsWhatIsKeptOfAll) {
  const TestHead head(RandomAttention(3, 200, 41));
  const std::vector<int32_t> kept = TopOf(ScoresOf(GetParam(), head.input), 100);
  const Part part(head.input, kept);
  std::vector<int32_t> again;
  for (const int32_t pick : TopOf(ScoresOf(GetParam(), part.input), 50))
    again.push_back(kept[static_cast<size_t>(pick)]);
  EXPECT_EQ(again, TopOf(ScoresOf(GetParam(), head.input), 50));
}

INSTANTIATE_TEST_SUITE_P(All, TokenByTokenTest,
                         ::testing::Values("snapkv:kernel=1,window=20", "infinipot", "infinipot:reduce=max",
                                           "streaming:sink=4,recent=46", "random", "h2o:heavy=30,recent=20",
                                           "h2o:heavy=30,recent=20,normalize=queries,reduce=max",
                                           "lookm:budget=50,recent=20", "tova", "knorm", "sirllm:recent=8",
                                           "kvzip"));

}  // namespace
}  // namespace palimpsest
