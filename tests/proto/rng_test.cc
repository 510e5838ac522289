#include "proto/base/rng.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace palimpsest {
namespace {

using ::testing::ElementsAre;

// The three known answers that the authors publish for philox4x32 with 10 rounds: zeros, ones, digits of pi.
TEST(PhiloxTest, GivesThePublishedAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

// Saved seeds must give the same numbers in every later version: this is the layout of counter, stream and
// seed.
TEST(RngTest, TheLayoutOfItsBlocksIsFixed) {
  EXPECT_EQ(Rng(0, 0).At(0), 0xe169c58d6627e8d5u);
  EXPECT_EQ(Rng(0, 0).At(1), 0x9b00dbd8bc57ac4cu);
  const Rng pi(0x299f31d0a4093822u, 0x0370734413198a2eu);
  const std::array<uint32_t, 4> second = Philox4x32({1, 0, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0});
  EXPECT_EQ(pi.At(2), second[0] | static_cast<uint64_t>(second[1]) << 32);
  EXPECT_EQ(pi.At(3), second[2] | static_cast<uint64_t>(second[3]) << 32);
}

TEST(RngTest, SeedsAndStreamsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint64_t stream = 0; stream < 10; ++stream) {
      for (uint64_t counter = 0; counter < 10; ++counter) seen.insert(Rng(seed, stream).At(counter));
    }
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(RngTest, UniformNumbersLieInTheHalfOpenIntervalAndFillIt) {
  const Rng rng(1);
  constexpr int kCount = 100'000;
  double sum = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = rng.UniformAt(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  // The mean's standard deviation is 1 / sqrt(12 n) = 0.0009; five of them.
  EXPECT_NEAR(sum / kCount, 0.5, 0.0046);
}

TEST(RngSequenceTest, GivesTheNumbersOfItsRngInOrder) {
  const Rng rng(3, 4);
  RngSequence sequence(rng, 5);
  EXPECT_EQ(sequence.Next(), rng.At(5));
  EXPECT_EQ(sequence.Uniform(), rng.UniformAt(6));
  EXPECT_EQ(sequence.counter(), 7u);
}

TEST(RngSequenceTest, BelowIsEvenOverItsRange) {
  RngSequence sequence(Rng(7));
  constexpr int kBins = 6, kMean = 10'000, kCount = kBins * kMean;
  std::vector<int> bins(kBins);
  for (int i = 0; i < kCount; ++i) ++bins.at(sequence.Below(kBins));
  // Each bin is binomial with standard deviation 91; five of them.
  for (const int bin : bins) EXPECT_NEAR(bin, kMean, 456);
}

TEST(RngSequenceTest, BelowStaysBelowAwkwardBounds) {
  RngSequence sequence(Rng(9));
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(sequence.Below(1), 0u);
    EXPECT_LT(sequence.Below((uint64_t{1} << 63) + 1), (uint64_t{1} << 63) + 1);
    EXPECT_LT(sequence.Below(UINT64_MAX), UINT64_MAX);
  }
}

}  // namespace
}  // namespace palimpsest
