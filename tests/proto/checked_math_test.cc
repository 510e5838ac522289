#include "proto/base/checked_math.h"

#include <gtest/gtest.h>

#include <limits>

namespace palimpsest {
namespace {

constexpr uint64_t kMaxU64 = std::numeric_limits<uint64_t>::max();
constexpr int64_t kMaxI64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinI64 = std::numeric_limits<int64_t>::min();

static_assert((CheckedSize(3) * 5 + 1).value() == 16, "usable in constant expressions");

TEST(CheckedMath, ComputesWhatFits) {
  EXPECT_EQ((CheckedSize(kMaxU64 - 1) + 1).value(), kMaxU64);
  EXPECT_EQ((CheckedSize(7) - 7).value(), 0u);
  EXPECT_EQ((CheckedSize(7) / 2).value(), 3u);
  EXPECT_EQ((CheckedSize(7) % 4).value(), 3u);
  EXPECT_EQ((CheckedCount(-7) / 2).value(), -3);
  EXPECT_EQ((CheckedCount(kMinI64) % -1).value(), 0);
  CheckedCount sum = 1;
  sum += 4;
  sum *= -3;
  sum -= 1;
  EXPECT_EQ(sum.value(), -16);
}

TEST(CheckedMath, WhatDoesNotFitIsLost) {
  EXPECT_FALSE((CheckedSize(kMaxU64) + 1).ok());
  EXPECT_FALSE((CheckedSize(1) - 2).ok());
  EXPECT_FALSE((CheckedSize(uint64_t{1} << 32) * (uint64_t{1} << 32)).ok());
  EXPECT_FALSE((CheckedCount(kMaxI64) + 1).ok());
  EXPECT_FALSE((CheckedCount(kMinI64) - 1).ok());
  EXPECT_FALSE((CheckedCount(kMinI64) * -1).ok());
  EXPECT_FALSE((CheckedCount(kMinI64) / -1).ok());
}

TEST(CheckedMath, DivisionByZeroIsLost) {
  EXPECT_FALSE((CheckedSize(1) / 0).ok());
  EXPECT_FALSE((CheckedSize(1) % 0).ok());
  EXPECT_FALSE((CheckedCount(1) / 0).ok());
}

TEST(CheckedMath, NumbersOfTheWrongRangeAreLost) {
  EXPECT_FALSE(CheckedSize(-1).ok());
  EXPECT_FALSE(CheckedCount(kMaxU64).ok());
  EXPECT_TRUE(CheckedCount(uint64_t{5}).ok());
}

TEST(CheckedMath, ALostNumberStaysLost) {
  const CheckedSize lost = CheckedSize(kMaxU64) * 2;
  EXPECT_FALSE((lost * 0).ok());
  EXPECT_FALSE((lost / 2).ok());
  EXPECT_FALSE((CheckedSize(1) / lost).ok());
  EXPECT_FALSE((lost - lost).ok());
  EXPECT_FALSE(lost.PadTo(8).ok());
  EXPECT_FALSE(lost.AtMost(kMaxU64));
}

TEST(CheckedMath, AtMostComparesWhatFits) {
  EXPECT_TRUE(CheckedSize(4).AtMost(4));
  EXPECT_FALSE(CheckedSize(5).AtMost(4));
  EXPECT_TRUE(CheckedCount(-5).AtMost(-4));
}

TEST(CheckedMath, PadsUpToPowersOfTwo) {
  EXPECT_EQ(CheckedSize(0).PadTo(32).value(), 0u);
  EXPECT_EQ(CheckedSize(1).PadTo(32).value(), 32u);
  EXPECT_EQ(CheckedSize(32).PadTo(32).value(), 32u);
  EXPECT_EQ(CheckedCount(33).PadTo(32).value(), 64);
  EXPECT_EQ(CheckedSize(kMaxU64 - 31).PadTo(32).value(), kMaxU64 - 31);
}

TEST(CheckedMath, BadPadsAreLost) {
  EXPECT_FALSE(CheckedSize(kMaxU64).PadTo(32).ok());
  EXPECT_FALSE(CheckedSize(5).PadTo(0).ok());
  EXPECT_FALSE(CheckedSize(5).PadTo(24).ok());
  EXPECT_FALSE(CheckedCount(5).PadTo(-8).ok());
  EXPECT_FALSE(CheckedCount(-5).PadTo(8).ok());
}

TEST(CheckedMathDeathTest, TheValueOfALostNumberAborts) {
  EXPECT_DEATH((void)(CheckedSize(1) - 2).value(), "overflowed");
}

}  // namespace
}  // namespace palimpsest
