#include "worker/model/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

proto::Sampling Greedy() {
  proto::Sampling s;
  s.set_max_tokens(10);
  s.set_top_p(1);
  s.set_repetition_penalty(1);
  return s;
}
proto::Sampling Warm(double temperature, uint64_t seed = 1) {
  proto::Sampling s = Greedy();
  s.set_temperature(temperature);
  s.set_seed(seed);
  return s;
}

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f, 0.0f, -3.0f, 1.5f};

struct Share {
  int32_t id;
  double probability;
};

// What the sampler must draw from, by the definition in its header: best first, probabilities after all cuts.
std::vector<Share> Definition(const proto::Sampling& s, std::vector<float> logits) {
  std::vector<Share> shares;
  for (size_t id = 0; id < logits.size(); ++id) {
    shares.push_back({static_cast<int32_t>(id), std::exp(static_cast<double>(logits[id]) / s.temperature())});
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const Share& a, const Share& b) { return a.probability > b.probability; });
  const auto normalise = [&] {
    double sum = 0;
    for (const Share& share : shares) sum += share.probability;
    for (Share& share : shares) share.probability /= sum;
  };
  if (s.top_k() > 0 && static_cast<size_t>(s.top_k()) < shares.size())
    shares.resize(static_cast<size_t>(s.top_k()));
  normalise();
  double sum = 0;
  size_t keep = 0;
  while (keep < shares.size() && (keep == 0 || s.top_p() == 1 || sum < s.top_p()))
    sum += shares[keep++].probability;
  shares.resize(keep);
  std::erase_if(shares, [&](const Share& x) { return x.probability < s.min_p() * shares[0].probability; });
  normalise();
  return shares;
}

// Each of many draws is the token in whose stretch of [0, 1) its random number lies: exact probabilities,
// without statistics. No token outside of the support is drawn, and all that are likely enough.
void ExpectExact(const proto::Sampling& s, const std::vector<float>& logits = kLogits) {
  const std::vector<Share> shares = Definition(s, logits);
  Sampler sampler(s, std::ssize(logits), {});
  std::set<int32_t> drawn, support, likely;
  for (const Share& share : shares) {
    support.insert(share.id);
    if (share.probability > 0.005) likely.insert(share.id);
  }
  for (int64_t i = 0; i < 4000; ++i) {
    const double u = Rng(s.seed()).UniformAt(static_cast<uint64_t>(i));
    const int32_t token = sampler.Next(logits, i);
    drawn.insert(token);
    double low = 0;
    for (const Share& share : shares) {
      if (token == share.id) {
        EXPECT_GE(u, low - 1e-12);
        EXPECT_LE(u, low + share.probability + 1e-12);
      }
      low += share.probability;
    }
  }
  EXPECT_THAT(support, ::testing::IsSupersetOf(drawn)) << s.ShortDebugString();
  EXPECT_THAT(drawn, ::testing::IsSupersetOf(likely)) << s.ShortDebugString();
}

TEST(SamplerTest, GreedyTakesTheBestAndOfEqualsTheLowerId) {
  Sampler sampler(Greedy(), 8, {});
  EXPECT_EQ(sampler.Next(kLogits, 0), 1);
  EXPECT_EQ(sampler.Next(std::vector<float>(8, -5.0f), 1), 0);
  EXPECT_EQ(sampler.Next(std::vector<float>{-3, -2, -2, -3, -2, -9, -9, -9}, 2), 1);
}

TEST(SamplerTest, TemperatureScalesLogits) {
  ExpectExact(Warm(1));
  ExpectExact(Warm(0.5));
  ExpectExact(Warm(2.5, 9));
  Sampler cold(Warm(1e-6), 8, {});
  for (int64_t i = 0; i < 200; ++i) {
    const int32_t token = cold.Next(kLogits, i);
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
}

TEST(SamplerTest, LargeLogitsDoNotOverflow) {
  Sampler sampler(Warm(1e-3), 3, {});
  const float largest = std::numeric_limits<float>::max();
  EXPECT_EQ(sampler.Next(std::vector<float>{-largest, largest, 0}, 0), 1);
  EXPECT_EQ(sampler.Next(std::vector<float>{-INFINITY, 5, -INFINITY}, 1), 1);
}

TEST(SamplerTest, TopKKeepsTheKBest) {
  for (const int64_t k : {1, 2, 3, 7, 8, 100, 0}) {
    proto::Sampling s = Warm(2);
    s.set_top_k(k);
    ExpectExact(s);
  }
  // Of the two equals at the edge the lower id is kept.
  proto::Sampling s = Warm(2);
  s.set_top_k(1);
  Sampler sampler(s, 8, {});
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(sampler.Next(kLogits, i), 1);
}

TEST(SamplerTest, TopPKeepsTheBestUntilTheyReachP) {
  for (const double p : {0.0, 0.2, 0.5, 0.75, 0.9, 0.999, 1.0}) {
    proto::Sampling s = Warm(1);
    s.set_top_p(p);
    ExpectExact(s);
  }
  // Half and half: 0.5 is reached by the first, a little more needs the second.
  const std::vector<float> equal = {1, 1};
  proto::Sampling s = Warm(1);
  s.set_top_p(0.5);
  EXPECT_EQ(Definition(s, equal).size(), 1u);
  ExpectExact(s, equal);
  s.set_top_p(0.500001);
  EXPECT_EQ(Definition(s, equal).size(), 2u);
  ExpectExact(s, equal);
}

TEST(SamplerTest, MinPKeepsWhatIsNearTheBest) {
  for (const double p : {0.0, 0.01, 0.1, 0.36, 0.37, 0.9, 1.0}) {
    proto::Sampling s = Warm(1);
    s.set_min_p(p);
    ExpectExact(s);
  }
}

TEST(SamplerTest, CutsAreMadeInOrder) {
  for (const uint64_t seed : {1, 2, 3, 4}) {
    proto::Sampling s = Warm(1.7, seed);
    s.set_top_k(6);
    s.set_top_p(0.9);
    s.set_min_p(0.2);
    ExpectExact(s);
  }
}

TEST(SamplerTest, ThePenaltyDividesPositiveAndMultipliesNegativeLogitsOfWhatWasSeen) {
  proto::Sampling s = Greedy();
  s.set_repetition_penalty(2);
  const std::vector<int32_t> prompt = {1, 1, 0};  // twice counts once
  Sampler sampler(s, 4, prompt);
  EXPECT_EQ(sampler.Next(std::vector<float>{-1.0f, 3.0f, 1.6f, -5}, 0), 2);  // -2, 1.5, 1.6
  EXPECT_EQ(sampler.Next(std::vector<float>{-1.0f, 3.0f, 1.6f, -5}, 1), 1);  // 2 was drawn: 0.8
  EXPECT_EQ(sampler.Next(std::vector<float>{-1.0f, -9, -9, -1.9f}, 2), 3);   // -2 and -1.9
  EXPECT_EQ(sampler.Next(std::vector<float>{0.0f, -1, -1, -1}, 3), 0);       // zero stays

  // Before temperature and cuts.
  proto::Sampling warm = Warm(1.3);
  warm.set_repetition_penalty(1.5);
  warm.set_top_p(0.8);
  std::vector<float> penalised = kLogits;
  for (const int32_t id : {3, 6}) {
    float& logit = penalised[static_cast<size_t>(id)];
    logit = static_cast<float>(logit > 0 ? logit / 1.5 : logit * 1.5);
  }
  const std::vector<Share> shares = Definition(warm, penalised);
  for (int64_t i = 0; i < 500; ++i) {
    Sampler fresh(warm, 8, std::vector<int32_t>{3, 6});
    const int32_t token = fresh.Next(kLogits, i);
    const double u = Rng(warm.seed()).UniformAt(static_cast<uint64_t>(i));
    double low = 0;
    for (const Share& share : shares) {
      if (u >= low + 1e-12 && u < low + share.probability - 1e-12) {
        EXPECT_EQ(token, share.id);
      }
      low += share.probability;
    }
  }
}

// A draw is a function of seed and step: not of what was drawn before, or of another sampler.
TEST(SamplerTest, ADrawIsAFunctionOfSeedAndStep) {
  Sampler a(Warm(1, 5), 8, {}), b(Warm(1, 5), 8, {}), other(Warm(1, 6), 8, {});
  std::vector<int32_t> forward, backward, different;
  for (int64_t i = 0; i < 100; ++i) {
    forward.push_back(a.Next(kLogits, i));
    different.push_back(other.Next(kLogits, i));
  }
  for (int64_t i = 99; i >= 0; --i) backward.push_back(b.Next(kLogits, i));
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  EXPECT_NE(forward, different);
}

TEST(CheckSamplingTest, EveryParameterHasARange) {
  EXPECT_TRUE(CheckSampling(Greedy()).ok());
  const auto expect = [](auto set, const char* name, bool ok) {
    proto::Sampling s = Greedy();
    set(s);
    const absl::Status status = CheckSampling(s);
    EXPECT_EQ(status.ok(), ok) << status;
    if (!ok) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(Message(status), ::testing::HasSubstr(name));
    }
  };
  const double nan = std::nan("");
  for (const auto& [value, ok] :
       {std::pair{0.0, true}, {100.0, true}, {-0.1, false}, {100.1, false}, {nan, false}}) {
    expect([value = value](auto& s) { s.set_temperature(value); }, "temperature", ok);
  }
  for (const auto& [value, ok] :
       {std::pair{0.0, true}, {1.0, true}, {-0.1, false}, {1.1, false}, {nan, false}}) {
    expect([value = value](auto& s) { s.set_top_p(value); }, "top_p", ok);
    expect([value = value](auto& s) { s.set_min_p(value); }, "min_p", ok);
  }
  for (const auto& [value, ok] :
       {std::pair{0.01, true}, {100.0, true}, {0.0, false}, {-1.0, false}, {nan, false}}) {
    expect([value = value](auto& s) { s.set_repetition_penalty(value); }, "repetition_penalty", ok);
  }
  for (const auto& [value, ok] :
       {std::pair<int64_t, bool>{0, true}, {1 << 24, true}, {-1, false}, {(1 << 24) + 1, false}}) {
    expect([value = value](auto& s) { s.set_top_k(value); }, "top_k", ok);
    expect([value = value](auto& s) { s.set_max_tokens(value); }, "max_tokens", ok);
  }
}

TEST(CheckSamplingTest, StopStringsAreFewShortAndText) {
  proto::Sampling s = Greedy();
  for (int i = 0; i < 16; ++i) s.add_stop(std::string(256, 'x'));
  EXPECT_TRUE(CheckSampling(s).ok());
  s.add_stop("x");
  EXPECT_THAT(Message(CheckSampling(s)), ::testing::HasSubstr("17 stop strings"));
  for (const std::string& bad :
       {std::string(), std::string(257, 'x'), std::string("a\x80"), std::string("\xe6\x97")}) {
    proto::Sampling one = Greedy();
    one.add_stop(bad);
    EXPECT_EQ(CheckSampling(one).code(), absl::StatusCode::kInvalidArgument) << bad.size();
  }
}

TEST(TopTokensTest, BestFirstWithLogProbabilities) {
  const std::vector<TopToken> top = TopTokens(kLogits, 4);
  ASSERT_EQ(top.size(), 4u);
  const std::vector<int32_t> ids = {1, 3, 7, 4};
  double sum = 0;
  for (const float logit : kLogits) sum += std::exp(static_cast<double>(logit));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(top[i].id, ids[i]);
    EXPECT_EQ(top[i].logit, kLogits[static_cast<size_t>(ids[i])]);
    EXPECT_NEAR(top[i].log_probability, top[i].logit - std::log(sum), 1e-12);
  }
  EXPECT_EQ(TopTokens(kLogits, 100).size(), 8u);
  EXPECT_TRUE(TopTokens(kLogits, 0).empty());
}

}  // namespace
}  // namespace palimpsest
