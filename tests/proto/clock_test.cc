#include "proto/base/clock.h"

#include <gtest/gtest.h>

namespace palimpsest {
namespace {

using namespace std::chrono_literals;

TEST(ManualClockTest, StandsStillUntilItIsAdvanced) {
  ManualClock clock;
  const TimePoint start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(1500ms);
  EXPECT_EQ(clock.Now() - start, 1500ms);
}

TEST(ManualClockTest, MovesWallTimeWithMonotonicTime) {
  ManualClock clock(5000);
  clock.Advance(1500ms);
  EXPECT_EQ(clock.UnixMillis(), 6500);
}

TEST(ManualClockTest, ADefaultTimePointIsInThePast) { EXPECT_LT(TimePoint(), ManualClock().Now()); }

TEST(ManualClockDeathTest, RefusesToGoBack) {
  ManualClock clock;
  EXPECT_DEATH(clock.Advance(-1ns), "advanced by -1 ns");
}

TEST(RealClockTest, NeverGoesBack) {
  TimePoint last = RealClock().Now();
  for (int i = 0; i < 1000; ++i) {
    const TimePoint now = RealClock().Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(RealClockTest, WallTimeIsInMilliseconds) {
  EXPECT_GT(RealClock().UnixMillis(), 1'600'000'000'000);  // September 2020
  EXPECT_LT(RealClock().UnixMillis(), 10'000'000'000'000);
}

TEST(AddSaturatedTest, StopsAtTheEndOfTime) {
  const TimePoint start = ManualClock().Now();
  EXPECT_EQ(AddSaturated(start, Duration::max()), TimePoint::max());
  EXPECT_EQ(AddSaturated(start, 3s), start + 3s);
  EXPECT_EQ(AddSaturated(start, -3s), start);
}

}  // namespace
}  // namespace palimpsest
