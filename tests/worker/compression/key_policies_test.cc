// knorm, keydiff, expected, sirllm: figures worked out by hand, each with the mistake it detects, and
// float64.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "proto/base/rng.h"
#include "tests/worker/compression/key_reference.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A head of keys and values that it owns.
struct KeyHead {
  explicit KeyHead(const reference::Rows& key_rows, const reference::Rows& value_rows = {}) {
    for (size_t i = 0; i < key_rows.size(); ++i) tokens.push_back(static_cast<int32_t>(i));
    Fill(key_rows, &keys);
    Fill(value_rows, &values);
    input.head_size = static_cast<int64_t>(key_rows[0].size());
    input.tokens = tokens;
    input.keys = keys;
    input.values = values;
  }
  static void Fill(const reference::Rows& rows, std::vector<float>* out) {
    for (const auto& row : rows) {
      for (const double number : row) out->push_back(static_cast<float>(number));
    }
  }
  HeadInput input;
  std::vector<int32_t> tokens;
  std::vector<float> keys, values;
};

reference::Rows RowsOf(std::span<const float> numbers, int64_t columns) {
  reference::Rows rows;
  for (size_t i = 0; i < numbers.size(); i += columns) {
    rows.emplace_back(numbers.begin() + static_cast<std::ptrdiff_t>(i),
                      numbers.begin() + static_cast<std::ptrdiff_t>(i) + columns);
  }
  return rows;
}

TEST(KnormTest, TheSmallestKeysStay) {
  const KeyHead head({{3, 4}, {1, 0}, {0, 0}, {0, -1}});
  EXPECT_THAT(ScoresOf("knorm", head.input), ElementsAre(-5, -1, 0, -1));
  EXPECT_THAT(TopOf(ScoresOf("knorm", head.input), 2), ElementsAre(1, 2));  // 1 = 3: the earlier
}

TEST(KnormTest, IsItsDefinition) {
  for (const int64_t tokens : {1, 7, 500}) {
    const TestHead head(RandomAttention(3, tokens, 1));
    const std::vector<double> exact = reference::Knorm(RowsOf(head.keys, TestHead::kHeadSize));
    const std::vector<float> scores = ScoresOf("knorm", head.input);
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], exact[i], -32 * 0x1p-24 * exact[i]);
  }
}

TEST(KeyDiffTest, WhatPointsElsewhereStays) {
  // The mean of the unit keys is (2, 1) / 3.
  const KeyHead head({{1, 0}, {0, 1}, {5, 0}});
  EXPECT_THAT(
      ScoresOf("keydiff", head.input),
      ElementsAre(FloatNear(-0.894427f, 1e-6f), FloatNear(-0.447214f, 1e-6f), FloatNear(-0.894427f, 1e-6f)));
  EXPECT_THAT(TopOf(ScoresOf("keydiff", head.input), 2), ElementsAre(0, 1));
}

TEST(KeyDiffTest, AMeanOfKeysThatAreNotUnitKeysIsAnotherScore) {
  // That mistake's mean is (5, 0.5): the first key would be like it, the second not.
  const std::vector<float> scores = ScoresOf("keydiff", KeyHead({{10, 0}, {0, 1}}).input);
  EXPECT_FLOAT_EQ(scores[0], scores[1]);
  EXPECT_FLOAT_EQ(scores[0], -std::sqrt(0.5f));
}

TEST(KeyDiffTest, AKeyWithoutDirectionOrNumberHasNoSay) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> alone = ScoresOf("keydiff", KeyHead({{1, 0}, {0, 1}, {5, 0}}).input);
  const std::vector<float> beside =
      ScoresOf("keydiff", KeyHead({{1, 0}, {0, 1}, {5, 0}, {0, 0}, {nan, 1}}).input);
  for (size_t i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(alone[i], beside[i]);
  EXPECT_EQ(beside[3], 0);
  EXPECT_TRUE(std::isnan(beside[4]));  // and is picked last
  EXPECT_THAT(TopOf(beside, 4), ElementsAre(0, 1, 2, 3));
}

TEST(KeyDiffTest, IsItsDefinition) {
  for (const int64_t tokens : {1, 7, 500}) {
    const TestHead head(RandomAttention(3, tokens, 1));
    const std::vector<double> exact = reference::KeyDiff(RowsOf(head.keys, TestHead::kHeadSize));
    const std::vector<float> scores = ScoresOf("keydiff", head.input);
    // Of unit vectors: 16 products and the mean's rounding, each 2^-24.
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], exact[i], 64 * 0x1p-24);
    EXPECT_GE(reference::Overlap(TopOf(scores, tokens / 4), reference::Top(exact, tokens / 4)), 0.99);
  }
}

TEST(KeyDiffTest, AsksForTheKeysItWasToldToTake) {
  EXPECT_EQ(MakePolicy(*ParsePolicy("keydiff"))->needs().keys, PolicyNeeds::Keys::kRotated);
  EXPECT_EQ(MakePolicy(*ParsePolicy("keydiff:keys=rest"))->needs().keys, PolicyNeeds::Keys::kRest);
}

class ExpectedTest : public ::testing::Test {
 protected:
  // Distributions and turns in float64 that the head's input is made of, with `group` query heads.
  void Draw(int64_t tokens, int64_t group, int64_t size, int64_t positions) {
    RngSequence random{Rng(static_cast<uint64_t>(tokens * 100 + group))};
    const auto draw = [&](size_t rows, int64_t columns, double scale) {
      reference::Rows out(rows, std::vector<double>(columns));
      for (auto& row : out) {
        for (double& number : row) number = static_cast<float>((random.Uniform() - 0.5) * scale);
      }
      return out;
    };
    keys_ = draw(tokens, size, 3);
    values_ = draw(tokens, size, 2);
    turns_ = draw(positions, size / 2, 6);
    head_ = std::make_unique<KeyHead>(keys_, values_);
    head_->input.group = group;
    queries_.clear();
    for (int64_t g = 0; g < group; ++g) {
      const reference::Rows root = draw(size, size, 1);
      reference::Queries of{.mean = draw(1, size, 2)[0], .covariance = draw(size, size, 0)};
      for (int64_t i = 0; i < size; ++i) {
        for (int64_t j = 0; j < size; ++j) {
          double& sum = of.covariance[i][j];
          for (int64_t m = 0; m < size; ++m) sum += root[i][m] * root[j][m];
          sum = static_cast<float>(sum);
        }
      }
      queries_.push_back(of);
    }
    for (const reference::Queries& of : queries_) {
      KeyHead::Fill({of.mean}, &mean_);
      KeyHead::Fill(of.covariance, &covariance_);
    }
    for (int64_t d = 0; d < size / 2; ++d) {
      double cosine = 0, sine = 0;
      for (const auto& angles : turns_) {
        cosine += std::cos(angles[d]) / static_cast<double>(turns_.size());
        sine += std::sin(angles[d]) / static_cast<double>(turns_.size());
      }
      turn_.push_back(static_cast<float>(cosine));
      turn_.push_back(static_cast<float>(sine));
    }
    head_->input.query_mean = mean_;
    head_->input.query_covariance = covariance_;
    head_->input.mean_turn = turn_;
  }
  reference::Rows keys_, values_, turns_;
  std::vector<reference::Queries> queries_;
  std::unique_ptr<KeyHead> head_;
  std::vector<float> mean_, covariance_, turn_;
};

// Mean 1, variance 2, key 0.5, D = 1: the exponent is 0.5 + 0.25 = 0.75, beside 0 of a key that is 0.
TEST(ExpectedGoldenTest, TheExponentIsMeanPlusHalfTheSpread) {
  KeyHead head({{0.5}, {0}}, {{1}, {1}});
  const std::vector<float> mean = {1}, covariance = {2};
  head.input.query_mean = mean;
  head.input.query_covariance = covariance;
  const std::vector<float> scores = ScoresOf("expected:sink=0", head.input);
  EXPECT_NEAR(scores[0] - scores[1], 0.75, 1e-6);
  EXPECT_NEAR(std::exp(scores[0]) + std::exp(scores[1]), 1, 1e-6);
  const std::vector<float> no_spread = ScoresOf("expected:sink=0,covariance=no", head.input);
  EXPECT_NEAR(no_spread[0] - no_spread[1], 0.5, 1e-6);
}

TEST(ExpectedGoldenTest, QueriesAreTurnedNotKeys) {
  // A quarter turn takes the mean (1, 0) to (0, 1).
  KeyHead head({{1, 0}, {0, 1}, {0, -1}}, {{1, 0}, {1, 0}, {1, 0}});
  const std::vector<float> mean = {1, 0}, covariance(4, 0.0f), turn = {0, 1};
  head.input.query_mean = mean;
  head.input.query_covariance = covariance;
  head.input.mean_turn = turn;
  const std::vector<float> scores = ScoresOf("expected:sink=0", head.input);
  EXPECT_NEAR(scores[1] - scores[0], 1 / std::sqrt(2.0), 1e-6);
  EXPECT_NEAR(scores[1] - scores[2], 2 / std::sqrt(2.0),
              1e-6);  // turned the other way it would be the reverse
}

TEST(ExpectedGoldenTest, TheNormOfTheValueWeighs) {
  KeyHead head({{1}, {1}, {1}}, {{3}, {-6}, {0}});
  const std::vector<float> mean = {1}, covariance = {0};
  head.input.query_mean = mean;
  head.input.query_covariance = covariance;
  const std::vector<float> scores = ScoresOf("expected:sink=0", head.input);
  EXPECT_NEAR(scores[1] - scores[0], std::log(2.0), 1e-6);
  EXPECT_EQ(scores[2], -kInfinity);
  const std::vector<float> alike = ScoresOf("expected:sink=0,values=no", head.input);
  EXPECT_EQ(alike[0], alike[1]);
  EXPECT_EQ(alike[0], alike[2]);
}

TEST_F(ExpectedTest, IsItsDefinition) {
  for (const int64_t group : {1, 3}) {
    for (const char* text : {"expected", "expected:covariance=no", "expected:values=no,sink=0",
                             "expected:epsilon=0.01,sink=9"}) {
      mean_.clear(), covariance_.clear(), turn_.clear();
      Draw(300, group, 18, 40);
      const PolicySpec spec = *ParsePolicy(text);
      const std::vector<double> exact = reference::Expected(keys_, values_, queries_, turns_, spec);
      const std::vector<float> scores = ScoresOf(text, head_->input);
      for (size_t i = 0; i < scores.size(); ++i) {
        if (std::isinf(exact[i])) {
          EXPECT_EQ(scores[i], kInfinity);
          continue;
        }
        // The spread's sums of 18 * 18 products of up to 1.5 * 1.5 * 2 in float32 bound the logarithm's
        // error.
        ASSERT_NEAR(scores[i], std::log(exact[i]), 1e-4) << text << " token " << i;
      }
      EXPECT_GE(reference::Overlap(TopOf(scores, 60), reference::Top(exact, 60)), 0.98) << text;
    }
  }
}

TEST_F(ExpectedTest, EqualQueryHeadsScoreLikeOne) {
  Draw(100, 1, 16, 10);
  const std::vector<float> one = ScoresOf("expected", head_->input);
  const std::vector<float> means = [&] {
    auto two = mean_;
    two.insert(two.end(), mean_.begin(), mean_.end());
    return two;
  }();
  const std::vector<float> covariances = [&] {
    auto two = covariance_;
    two.insert(two.end(), covariance_.begin(), covariance_.end());
    return two;
  }();
  HeadInput input = head_->input;
  input.group = 2;
  input.query_mean = means;
  input.query_covariance = covariances;
  EXPECT_THAT(ScoresOf("expected", input), Pointwise(FloatNear(1e-6f), one));
}

TEST_F(ExpectedTest, SmallScoresStillDiffer) {
  // Where a softmax in float32 is 0 for all but one token.
  KeyHead head({{200}, {0.5}, {0}, {-1}}, {{1}, {1}, {1}, {1}});
  const std::vector<float> mean = {1}, covariance = {0};
  head.input.query_mean = mean;
  head.input.query_covariance = covariance;
  EXPECT_THAT(TopOf(ScoresOf("expected:sink=0", head.input), 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(TopOf(ScoresOf("expected:sink=0", head.input), 2), ElementsAre(0, 1));
}

TEST_F(ExpectedTest, AKeyThatIsNoNumberHarmsNoOther) {
  Draw(50, 2, 16, 5);
  const std::vector<float> right = ScoresOf("expected:sink=0", head_->input);
  head_->keys[7 * 16] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores = ScoresOf("expected:sink=0", head_->input);
  EXPECT_FALSE(scores[7] > -kInfinity);
  for (size_t i = 0; i < scores.size(); ++i) {
    EXPECT_EQ(std::isfinite(scores[i]), i != 7) << i;
  }
  const double shift = static_cast<double>(scores[0] - right[0]);
  for (size_t i = 1; i < 7; ++i) EXPECT_NEAR(scores[i] - right[i], shift, 0.05);
}

TEST(KeyPoliciesTest, TheOrderOfTheTokensDoesNotMatter) {
  const TestHead head(RandomAttention(2, 90, 5));
  TestHead turned(RandomAttention(2, 90, 5));
  const int64_t size = TestHead::kHeadSize;
  for (int64_t i = 0; i < 90; ++i) {
    for (int64_t d = 0; d < size; ++d) {
      turned.keys[i * size + d] = head.keys[(89 - i) * size + d];
      turned.values[i * size + d] = head.values[(89 - i) * size + d];
    }
  }
  for (const char* policy : {"knorm", "keydiff", "expected:sink=0"}) {
    std::vector<float> scores = ScoresOf(policy, turned.input);
    std::reverse(scores.begin(), scores.end());
    EXPECT_THAT(scores, Pointwise(FloatNear(2e-5f), ScoresOf(policy, head.input))) << policy;
  }
}

TEST(SirLlmTest, SinksSurprisesAndTheLastStay) {
  TestHead head(RandomAttention(1, 8, 1));
  const std::vector<float> losses = {kInfinity, 1, 5, 2, 7, 0.5, 3, 0.25};
  head.input.losses = losses;
  EXPECT_THAT(ScoresOf("sirllm:sink=2", head.input),
              ElementsAre(kInfinity, kInfinity, 5, 2, 7, 0.5, 3, 0.25));
  EXPECT_THAT(TopOf(ScoresOf("sirllm:sink=2", head.input), 5), ElementsAre(0, 1, 2, 4, 6));
  EXPECT_THAT(TopOf(ScoresOf("sirllm:sink=1,recent=2", head.input), 4), ElementsAre(0, 4, 6, 7));
  head.input.window_stays = false;  // more text follows
  EXPECT_THAT(TopOf(ScoresOf("sirllm:sink=1,recent=2", head.input), 4), ElementsAre(0, 2, 4, 6));
}

TEST(SirLlmTest, EveryHeadAndLayerPicksTheSame) {
  TestHead head(RandomAttention(2, 50, 1));
  const std::vector<float> scores = ScoresOf("sirllm", head.input);
  head.input.layer = 3;
  head.input.kv_head = 1;
  EXPECT_EQ(ScoresOf("sirllm", head.input), scores);
}

}  // namespace
}  // namespace palimpsest
