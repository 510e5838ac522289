// The parts that compression is made of: what competing spans keep, the cache of views, queries kept while
// rows run.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "worker/compression/view.h"
#include "worker/model/query_capture.h"

namespace palimpsest {
namespace {

constexpr int64_t kHeadSize = 2;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Tokens whose K and V tell which token they are of.
class CompeteTest : public ::testing::Test {
 protected:
  void Add(int64_t budget, const std::vector<int32_t>& tokens, const std::vector<float>& scores) {
    std::vector<Bf16> numbers;
    for (const int32_t token : tokens) {
      for (const int32_t number : {token, 1, -token, 2})
        numbers.push_back(FloatToBf16(static_cast<float>(number)));
    }
    std::vector<RestToken> at;
    for (size_t i = 0; i < tokens.size(); ++i)
      at.push_back({numbers.data() + i * 2 * kHeadSize, numbers.data() + (i * 2 + 1) * kHeadSize});
    Compete(budget, kHeadSize, {.tokens = tokens, .ranking = {scores, {}}, .at = at}, &kept_);
    ASSERT_EQ(kept_.scores.size(), kept_.tokens.size());
    for (size_t i = 0; i < kept_.tokens.size(); ++i) {
      const RestToken token = kept_.At(i, kHeadSize);
      EXPECT_EQ(Bf16ToFloat(token.key[0]), static_cast<float>(kept_.tokens[i]));
      EXPECT_EQ(Bf16ToFloat(token.value[0]), static_cast<float>(-kept_.tokens[i]));
    }
  }
  RestHead kept_;
};

TEST_F(CompeteTest, TheBestOfAllSpansStay) {
  Add(3, {0, 1}, {1, 5});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{0, 1}));
  Add(3, {2, 3, 4}, {2, 0, 3});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{1, 2, 4}));
  Add(3, {5, 6}, {4, 1});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{1, 4, 5}));
  EXPECT_EQ(kept_.scores, (std::vector<float>{5, 3, 4}));
}

TEST_F(CompeteTest, TiesGoToTheEarlier) {
  Add(2, {0, 1, 2}, {1, 1, 1});
  Add(2, {3, 4}, {1, 1});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{0, 1}));
  Add(2, {5, 6, 7}, {kInfinity, kInfinity, kInfinity});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{5, 6}));
}

TEST_F(CompeteTest, WhatIsNothingWorthFillsUp) {
  Add(4, {0, 1}, {-kInfinity, -kInfinity});
  Add(4, {2, 3}, {-kInfinity, 0});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{0, 1, 2, 3}));
  Add(4, {4}, {-1});
  EXPECT_EQ(kept_.tokens, (std::vector<int32_t>{0, 1, 3, 4}));
  Add(4, {}, {});
  EXPECT_EQ(kept_.tokens.size(), 4u);
}

// In any cut into spans it is the top of the whole list.
TEST_F(CompeteTest, TheCutIntoSpansMakesNoDifference) {
  RngSequence rng{Rng(3)};
  for (int round = 0; round < 50; ++round) {
    std::vector<float> scores;
    for (int i = 0; i < 100; ++i) scores.push_back(static_cast<float>(rng.Below(12)));
    std::vector<int32_t> expected(100);
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    expected.resize(23);
    std::sort(expected.begin(), expected.end());
    kept_ = {};
    for (size_t first = 0; first < 100;) {
      const size_t n = std::min<size_t>(100 - first, 1 + rng.Below(40));
      std::vector<int32_t> tokens(n);
      std::iota(tokens.begin(), tokens.end(), static_cast<int32_t>(first));
      Add(23, tokens,
          {scores.begin() + static_cast<int64_t>(first), scores.begin() + static_cast<int64_t>(first + n)});
      first += n;
    }
    EXPECT_EQ(kept_.tokens, expected);
  }
}

// Of two stages too, whichever of them a token is kept for.
TEST_F(CompeteTest, TheCutIntoSpansMakesNoDifferenceToTwoStages) {
  RngSequence rng{Rng(4)};
  for (int round = 0; round < 50; ++round) {
    std::vector<float> scores, rest;
    std::vector<Bf16> numbers(100 * 2 * kHeadSize);
    std::vector<RestToken> at;
    std::vector<int32_t> all(100), expected;
    std::iota(all.begin(), all.end(), 0);
    for (size_t i = 0; i < 100; ++i) {
      scores.push_back(static_cast<float>(rng.Below(12)));
      rest.push_back(static_cast<float>(rng.Below(9)));
      at.push_back({numbers.data() + i * 2 * kHeadSize, numbers.data() + (i * 2 + 1) * kHeadSize});
    }
    const double share = 0.25 * static_cast<double>(rng.Below(4));
    SelectTop(Ranking{scores, rest, share}, 23, &expected);
    kept_ = {};
    for (size_t first = 0; first < 100;) {
      const size_t n = std::min<size_t>(100 - first, 1 + rng.Below(40));
      const Ranking ranking{std::span(scores).subspan(first, n), std::span(rest).subspan(first, n), share};
      Compete(23, kHeadSize,
              {.tokens = std::span(all).subspan(first, n),
               .ranking = ranking,
               .at = std::span(at).subspan(first, n)},
              &kept_);
      EXPECT_LE(kept_.tokens.size(), 46u);
      first += n;
    }
    KeepBest(23, share, kHeadSize, &kept_);
    EXPECT_EQ(kept_.tokens, expected);
    EXPECT_EQ(kept_.rest.size(), 23u * 2 * kHeadSize);
    EXPECT_TRUE(kept_.rest_scores.empty());
  }
}

// What follows stands right behind the last token of each head.
TEST(PackAtRestTest, HeadsOfDifferentSizesEndAtOnePlace) {
  View view;
  view.heads.resize(3);
  const Bf16 numbers[2 * kHeadSize] = {};
  for (size_t head = 0; head < 3; ++head) {
    for (size_t i = 0; i < 2 + 3 * head; ++i)
      view.heads[head].Append(static_cast<int32_t>(5 * i), {numbers, numbers + kHeadSize}, kHeadSize);
  }
  const std::vector<Sequence::Packing> packed = PackAtRest(view, kHeadSize, 10);
  EXPECT_EQ(packed[0].positions, (std::vector<int32_t>{16, 17}));
  EXPECT_EQ(packed[1].positions, (std::vector<int32_t>{13, 14, 15, 16, 17}));
  EXPECT_EQ(packed[2].positions.front(), 10);
  EXPECT_EQ(packed[2].positions.back(), 17);
}

TEST(RestBlockTest, EachTokenIsFoundInItsBlock) {
  const std::vector<RestBlock> blocks = {
      {10, 5, nullptr}, {15, 64, nullptr}, {79, 1, nullptr}, {100, 2, nullptr}};
  EXPECT_EQ(BlockOf(blocks, 10).first, 10);
  EXPECT_EQ(BlockOf(blocks, 14).first, 10);
  EXPECT_EQ(BlockOf(blocks, 15).first, 15);
  EXPECT_EQ(BlockOf(blocks, 79).first, 79);
  EXPECT_EQ(BlockOf(blocks, 101).first, 100);
  for (const int64_t nowhere : {0, 9, 80, 99, 102}) {
    EXPECT_DEATH(BlockOf(blocks, nowhere), "in none of 4 blocks");
  }
}

// --- views

std::shared_ptr<const View> ViewOf(size_t bytes) {
  auto view = std::make_shared<View>();
  view->losses.resize(bytes / sizeof(float));
  return view;
}
Hash256 Key(int number) { return Sha256(std::to_string(number)); }

TEST(ViewCacheTest, TheLeastRecentlyUsedGoFirst) {
  ViewCache cache(1000);
  for (int i = 0; i < 3; ++i) cache.Put(Key(i), ViewOf(300));
  EXPECT_EQ(cache.bytes(), 900);
  EXPECT_NE(cache.Find(Key(0)), nullptr);  // now 1 is the oldest
  cache.Put(Key(3), ViewOf(400));
  EXPECT_EQ(cache.Find(Key(1)), nullptr);
  EXPECT_NE(cache.Find(Key(0)), nullptr);
  EXPECT_NE(cache.Find(Key(2)), nullptr);
  EXPECT_NE(cache.Find(Key(3)), nullptr);
  EXPECT_EQ(cache.bytes(), 1000);
}

TEST(ViewCacheTest, AViewThatIsHeldStaysWhole) {
  ViewCache cache(400);
  const auto held = ViewOf(400);
  cache.Put(Key(1), held);
  cache.Put(Key(2), ViewOf(400));
  EXPECT_EQ(cache.Find(Key(1)), nullptr);
  EXPECT_EQ(held->bytes(), 400);
}

TEST(ViewCacheTest, WhatNeverFitsPushesNothingOut) {
  ViewCache cache(400);
  cache.Put(Key(1), ViewOf(200));
  cache.Put(Key(2), ViewOf(404));
  EXPECT_EQ(cache.Find(Key(2)), nullptr);
  EXPECT_NE(cache.Find(Key(1)), nullptr);
  ViewCache none(0);
  none.Put(Key(1), ViewOf(4));
  EXPECT_EQ(none.Find(Key(1)), nullptr);
  EXPECT_EQ(none.bytes(), 0);
}

TEST(ViewCacheTest, OneKeyIsKeptOnce) {
  ViewCache cache(1000);
  cache.Put(Key(1), ViewOf(300));
  cache.Put(Key(1), ViewOf(300));
  EXPECT_EQ(cache.bytes(), 300);
}

// --- queries

class QueryCaptureTest : public ::testing::Test {
 protected:
  static constexpr int64_t kLayers = 3, kColumns = 4;
  // Rows of tokens [first, end) at positions 1000 + token, all layers, in one step.
  void Step(int64_t first, int64_t end) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<float> q;
      std::vector<int64_t> positions;
      for (int64_t token = first; token < end; ++token) {
        positions.push_back(1000 + token);
        for (int64_t column = 0; column < kColumns; ++column)
          q.push_back(static_cast<float>(layer * 10000 + token * 10 + column));
        q.push_back(-1);  // the stride is longer
      }
      capture_.Take(layer, first, positions, {q.data(), end - first, kColumns, kColumns + 1});
    }
  }
  void ExpectAll(int64_t first, int64_t count) {
    EXPECT_TRUE(capture_.complete());
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const Rows<const float> rows = capture_.Queries(layer, 2, 2);
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(rows.row(i)[1], static_cast<float>(layer * 10000 + (first + i) * 10 + 3));
        EXPECT_EQ(capture_.positions()[static_cast<size_t>(i)], 1000 + first + i);
      }
    }
  }
  QueryCapture capture_;
};

TEST_F(QueryCaptureTest, AnyCutGivesTheSame) {
  for (const int64_t chunk : {1, 2, 3, 7, 20, 100}) {
    capture_.Begin(kLayers, kColumns, 13, 9);
    for (int64_t first = 0; first < 40; first += chunk) {
      EXPECT_EQ(capture_.complete(), first >= 22) << chunk << " at a time, before " << first;
      Step(first, std::min<int64_t>(40, first + chunk));
    }
    ExpectAll(13, 9);
  }
}

TEST_F(QueryCaptureTest, BeginForgets) {
  capture_.Begin(kLayers, kColumns, 0, 5);
  Step(0, 5);
  EXPECT_TRUE(capture_.complete());
  capture_.Begin(kLayers, kColumns, 5, 20);
  EXPECT_FALSE(capture_.complete());
  Step(0, 40);
  ExpectAll(5, 20);
  capture_.Begin(kLayers, kColumns, 7, 0);
  EXPECT_TRUE(capture_.complete()) << "of nothing";
}

}  // namespace
}  // namespace palimpsest
