// What goes joins what stays: goldens, the definition in float64, edges, and the mistakes that are known of
// others' code.
#include "worker/compression/merging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/backend.h"
#include "proto/base/rng.h"
#include "tests/testing/reference.h"
#include "tests/worker/compression/merge_reference.h"

namespace palimpsest {
namespace {

using Merge = PolicySpec::Merge;

constexpr Merge kAll[] = {Merge::kAveraged,  Merge::kPivotal,    Merge::kWeighted,
                          Merge::kThreshold, Merge::kNormalized, Merge::kValues};

using reference::Token;
using reference::Tokens;

// Of head size 16, with zeros behind what is given.
Token Of(std::vector<double> key, std::vector<double> value) {
  key.resize(16);
  value.resize(16);
  return {key, value};
}

std::vector<Bf16> Narrow(const std::vector<double>& x) {
  std::vector<Bf16> narrow;
  for (const double v : x) narrow.push_back(FloatToBf16(static_cast<float>(v)));
  return narrow;
}

// Tokens at rest.
class Rest {
 public:
  explicit Rest(const Tokens& tokens) {
    for (const Token& token : tokens) {
      keys_.push_back(Narrow(token.key));
      values_.push_back(Narrow(token.value));
    }
    for (size_t i = 0; i < tokens.size(); ++i) at_.push_back({keys_[i].data(), values_[i].data()});
  }
  const std::vector<RestToken>& at() const { return at_; }

 private:
  std::vector<std::vector<Bf16>> keys_, values_;
  std::vector<RestToken> at_;
};

// What stays, afterwards.
std::vector<Tokens> Merged(Merge merge, const std::vector<std::pair<Tokens, Tokens>>& heads,
                           int threads = 2) {
  auto backend = MakeBackend({.isa = "auto", .threads = {.threads = threads, .pin = false, .spin_us = 20}});
  EXPECT_TRUE(backend.ok());
  const size_t d = heads[0].first[0].key.size();
  std::vector<std::unique_ptr<Rest>> rest;
  std::vector<MergeHead> merge_heads;
  for (const auto& [stays, goes] : heads) {
    rest.push_back(std::make_unique<Rest>(stays));
    rest.push_back(std::make_unique<Rest>(goes));
    merge_heads.push_back({rest[rest.size() - 2]->at(), rest.back()->at()});
  }
  std::vector<std::vector<Bf16>> merged;
  MergeTokens(**backend, merge, static_cast<int64_t>(d), merge_heads, &merged);
  std::vector<Tokens> out(heads.size());
  for (size_t h = 0; h < heads.size(); ++h) {
    EXPECT_EQ(merged[h].size(), heads[h].first.size() * 2 * d);
    for (size_t j = 0; j < heads[h].first.size(); ++j) {
      Token token;
      for (size_t i = 0; i < d; ++i) {
        token.key.push_back(static_cast<double>(Bf16ToFloat(merged[h][2 * j * d + i])));
        token.value.push_back(static_cast<double>(Bf16ToFloat(merged[h][(2 * j + 1) * d + i])));
      }
      out[h].push_back(token);
    }
  }
  return out;
}

Tokens RandomTokens(RngSequence& rng, int64_t count, int64_t head_size) {
  Tokens tokens(static_cast<size_t>(count));
  for (Token& token : tokens) {
    for (int64_t i = 0; i < head_size; ++i) {
      for (std::vector<double>* const x : {&token.key, &token.value}) {
        x->push_back(
            static_cast<double>(Bf16ToFloat(FloatToBf16(static_cast<float>(4 * rng.Uniform() - 2)))));
      }
    }
  }
  return tokens;
}

const Tokens kStays = {Of({1, 0}, {10}), Of({0, 1}, {20})};
const Tokens kGoes = {Of({3, 0}, {4}), Of({2, 1}, {7}), Of({0, 2}, {6})};

// Within the rounding of a result to bf16.
void ExpectGolden(Merge merge, const std::vector<std::vector<double>>& keys,
                  const std::vector<double>& values) {
  const Tokens merged = Merged(merge, {{kStays, kGoes}})[0];
  for (size_t j = 0; j < 2; ++j) {
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(merged[j].key[i], keys[j][i], 0x1p-8 * keys[j][i] + 1e-6);
    EXPECT_NEAR(merged[j].value[0], values[j], 0x1p-8 * values[j]);
  }
}

TEST(MergingTest, TheGoldenExample) {
  ExpectGolden(Merge::kAveraged, {{2, 1.0 / 3}, {0, 1.5}}, {7, 13});
  ExpectGolden(Merge::kPivotal, {{1.5, 1.0 / 6}, {0, 1.25}}, {8.5, 16.5});
  ExpectGolden(Merge::kWeighted, {{1.929618, 0.298142}, {0, 1.5}}, {6.753663, 13});
  ExpectGolden(Merge::kThreshold, {{2, 0}, {0, 1.5}}, {7, 13});
  ExpectGolden(Merge::kNormalized, {{2, 0.321393}, {0, 1.5}}, {7, 13});
  ExpectGolden(Merge::kValues, {{1, 0}, {0, 1}}, {8.295554, 17.375});
}

// A result rounds to bf16; before that a few roundings of float, and those of n additions, of numbers
// below 4.
TEST(MergingTest, IsItsDefinition) {
  RngSequence rng{Rng(51)};
  for (const int64_t head_size : {16, 64, 128}) {
    std::vector<std::pair<Tokens, Tokens>> heads;
    for (const auto& [stays, goes] : {std::pair{1, 9}, {7, 1}, {70, 300}, {130, 40}}) {
      heads.emplace_back(RandomTokens(rng, stays, head_size), RandomTokens(rng, goes, head_size));
    }
    for (const Merge merge : kAll) {
      const std::vector<Tokens> merged = Merged(merge, heads);
      for (size_t h = 0; h < heads.size(); ++h) {
        const Tokens exact = reference::Merge(merge, heads[h].first, heads[h].second);
        for (size_t j = 0; j < exact.size(); ++j) {
          for (size_t i = 0; i < exact[j].key.size(); ++i) {
            const double k = exact[j].key[i], v = exact[j].value[i];
            ASSERT_NEAR(merged[h][j].key[i], k, 0x1p-8 * std::abs(k) + 1e-4) << static_cast<int>(merge);
            ASSERT_NEAR(merged[h][j].value[i], v, 0x1p-8 * std::abs(v) + 1e-4) << static_cast<int>(merge);
          }
        }
      }
    }
  }
}

// n + 1 times each average is all that there was.
TEST(MergingTest, AveragedKeepsTheMass) {
  RngSequence rng{Rng(52)};
  const Tokens stays = RandomTokens(rng, 20, 64), goes = RandomTokens(rng, 100, 64);
  const Tokens merged = Merged(Merge::kAveraged, {{stays, goes}})[0];
  ASSERT_EQ(merged.size(), stays.size());
  std::vector<double> joined(stays.size(), 1), before(64), after(64);
  for (const Token& token : goes) {
    size_t best = 0;
    for (size_t j = 1; j < stays.size(); ++j) {
      if (reference::Cosine(token.key, stays[j].key) > reference::Cosine(token.key, stays[best].key))
        best = j;
    }
    ++joined[best];
    for (size_t i = 0; i < 64; ++i) before[i] += token.value[i];
  }
  for (size_t j = 0; j < stays.size(); ++j) {
    for (size_t i = 0; i < 64; ++i) {
      before[i] += stays[j].value[i];
      after[i] += joined[j] * merged[j].value[i];
    }
  }
  for (size_t i = 0; i < 64; ++i) EXPECT_NEAR(after[i], before[i], 120 * 2 * 0x1p-8);
}

TEST(MergingTest, WhereNothingGoesNoBitChanges) {
  RngSequence rng{Rng(53)};
  const Tokens stays = RandomTokens(rng, 80, 64);
  for (const Merge merge : kAll) {
    const Tokens merged = Merged(merge, {{stays, {}}})[0];
    for (size_t j = 0; j < stays.size(); ++j) {
      EXPECT_EQ(merged[j].key, stays[j].key);
      EXPECT_EQ(merged[j].value, stays[j].value);
    }
  }
}

// Where heads share one budget, one may win nothing of it.
TEST(MergingTest, WhereNothingStaysAllOfItIsGone) {
  for (const Merge merge : kAll) {
    const std::vector<Tokens> merged = Merged(merge, {{kStays, kGoes}, {{}, kGoes}, {kStays, kGoes}});
    EXPECT_TRUE(merged[1].empty());
    for (size_t j = 0; j < 2; ++j) {
      EXPECT_NE(merged[2][j].value, kStays[j].value);
      EXPECT_EQ(merged[2][j].value, merged[0][j].value);
    }
  }
}

TEST(MergingTest, WhatNothingJoinsKeepsItsBits) {
  const Tokens stays = {Of({1, 0}, {10}), Of({0, 1}, {20}), Of({-1, 0}, {30})};
  for (const Merge merge : kAll) {
    const Tokens merged = Merged(merge, {{stays, kGoes}})[0];
    EXPECT_EQ(merged[2].key, stays[2].key);
    EXPECT_EQ(merged[2].value, stays[2].value);
  }
}

TEST(MergingTest, OfEqualsTheEarlierIsJoined) {
  const Tokens merged =
      Merged(Merge::kAveraged, {{{Of({1, 0}, {1}), Of({1, 0}, {1})}, {Of({1, 0}, {3})}}})[0];
  EXPECT_EQ(merged[0].value[0], 2);
  EXPECT_EQ(merged[1].value[0], 1);
}

// A key without length is like none: it joins the first, with no weight where weights are cosines.
TEST(MergingTest, AKeyWithoutLengthGivesNumbers) {
  const Tokens goes = {Of({0, 0}, {5})};
  for (const Merge merge : kAll) {
    const Tokens merged = Merged(merge, {{kStays, goes}})[0];
    for (const Token& token : merged) {
      for (const double x : token.value) EXPECT_TRUE(std::isfinite(x));
    }
  }
  EXPECT_EQ(Merged(Merge::kValues, {{kStays, goes}})[0][0].value[0], 10);
  EXPECT_EQ(Merged(Merge::kAveraged, {{kStays, goes}})[0][0].value[0], 7.5);
  EXPECT_EQ(Merged(Merge::kAveraged, {{{Of({0, 0}, {10})}, kGoes}})[0][0].value[0], 6.75);
}

// The public code scatters values that it has filtered by indices that it has not: what follows a token that
// is dropped then joins another's place.
TEST(MergingTest, ATokenBelowTheThresholdDoesNotShiftTheOnesAfterIt) {
  const Tokens goes = {Of({2, 1}, {7}), Of({3, 0}, {4}), Of({0, 2}, {6})};  // the first is dropped
  const Tokens merged = Merged(Merge::kThreshold, {{kStays, goes}})[0];
  EXPECT_EQ(merged[0].value[0], 7);
  EXPECT_EQ(merged[1].value[0], 13);
}

// The public code's weighted form writes over what it still needs. Weights are of keys as they were before
// anything joined: the second token's is 0.6 to the pivot it came for, and would be 0.95 to what that is by
// then.
TEST(MergingTest, WeightsAreOfKeysBeforeAnythingJoined) {
  const Tokens stays = {Of({1, 0}, {10}), Of({-1, 0}, {30})};
  const Tokens goes = {Of({0, 4}, {0}), Of({3, 4}, {5})};
  const Token merged = Merged(Merge::kWeighted, {{stays, goes}})[0][0];
  EXPECT_NEAR(merged.value[0], (10 + 0 * 0 + 0.6 * 5) / 3, 0x1p-8 * 5);
  EXPECT_NEAR(merged.key[0], (1 + 0.6 * 3) / 3, 0x1p-8);
  EXPECT_NEAR(merged.key[1], 0.6 * 4 / 3, 0x1p-8);
  const Token turned = Merged(Merge::kWeighted, {{stays, {goes[1], goes[0]}}})[0][0];
  EXPECT_EQ(turned.value, merged.value);
  EXPECT_EQ(turned.key, merged.key);
}

// The public code has 128 numbers a head written in.
TEST(MergingTest, AnyHeadSizeMerges) {
  RngSequence rng{Rng(56)};
  for (const int64_t head_size : {16, 80, 96, 128, 256}) {
    const Tokens stays = RandomTokens(rng, 5, head_size), goes = RandomTokens(rng, 9, head_size);
    for (const Merge merge : kAll) {
      const Tokens merged = Merged(merge, {{stays, goes}})[0], exact = reference::Merge(merge, stays, goes);
      for (size_t j = 0; j < exact.size(); ++j) {
        const double k = exact[j].key.back(), v = exact[j].value.back();
        EXPECT_NEAR(merged[j].key.back(), k, 0x1p-8 * std::abs(k) + 1e-4) << head_size;
        EXPECT_NEAR(merged[j].value.back(), v, 0x1p-8 * std::abs(v) + 1e-4) << head_size;
      }
    }
  }
}

// The public code is of one sequence with a query head for each KV head; here each KV head merges by itself.
TEST(MergingTest, HeadsDoNotMixAndThreadsChangeNoBit) {
  RngSequence rng{Rng(54)};
  std::vector<std::pair<Tokens, Tokens>> heads;
  for (int h = 0; h < 5; ++h) heads.emplace_back(RandomTokens(rng, 40 + h, 64), RandomTokens(rng, 200, 64));
  for (const Merge merge : kAll) {
    const std::vector<Tokens> together = Merged(merge, heads, 3);
    for (size_t h = 0; h < heads.size(); ++h) {
      const Tokens alone = Merged(merge, {heads[h]}, 1)[0];
      for (size_t j = 0; j < alone.size(); ++j) {
        EXPECT_EQ(alone[j].key, together[h][j].key);
        EXPECT_EQ(alone[j].value, together[h][j].value);
      }
    }
  }
}

// Turning is linear: keys merged before it and then turned to their token's place are keys that were each
// turned to that place. Keys that were turned to their own places, as the public code merges them, are not.
TEST(MergingTest, AMergedKeyIsOfKeysTurnedToItsPlace) {
  RngSequence rng{Rng(55)};
  const reference::Rope rope{.head_size = 16, .rope_size = 16, .theta = 1e4, .factors = {}};
  const Tokens stays = RandomTokens(rng, 1, 16), goes = RandomTokens(rng, 1, 16);
  const int64_t at = 7, from = 90;
  const std::vector<double> merged = reference::Merge(Merge::kAveraged, stays, goes)[0].key;
  const std::vector<double> turned = reference::Rotate(rope, at, merged);
  const std::vector<double> ours =
      reference::Rotate(rope, at, Merged(Merge::kAveraged, {{stays, goes}})[0][0].key);
  const std::vector<double> own = reference::Rotate(rope, at, stays[0].key);
  const std::vector<double> there = reference::Rotate(rope, at, goes[0].key);
  const std::vector<double> elsewhere = reference::Rotate(rope, from, goes[0].key);
  double apart = 0;
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_NEAR(turned[i], (own[i] + there[i]) / 2, 1e-12);
    EXPECT_NEAR(ours[i], turned[i], 0x1p-6);  // rounded to bf16 before it is turned
    apart = std::max(apart, std::abs(turned[i] - (own[i] + elsewhere[i]) / 2));
  }
  EXPECT_GT(apart, 0.1);
}

}  // namespace
}  // namespace palimpsest
