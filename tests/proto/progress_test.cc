#include "proto/base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace palimpsest {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class ProgressTest : public ::testing::Test {
 protected:
  ProgressOutput Plain() {
    return {.write = [this](std::string_view text) { written_.emplace_back(text); }};
  }
  ProgressOutput Terminal(int columns) {
    ProgressOutput output = Plain();
    output.terminal = true;
    output.columns = columns;
    return output;
  }
  ManualClock clock_;
  std::vector<std::string> written_;
};

TEST_F(ProgressTest, APlainLineComesEveryFewSeconds) {
  Progress progress("ingest", "tokens", 1000, Plain(), clock_);
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(1s);
    progress.Add(50);
  }
  EXPECT_THAT(written_, ElementsAre("ingest  25%  250 tokens of 1000 tokens  50 tokens/s  15 s left\n",
                                    "ingest  50%  500 tokens of 1000 tokens  50 tokens/s  10 s left\n"));
}

TEST_F(ProgressTest, ABarIsDrawnAtMostTenTimesASecond) {
  Progress progress("ingest", "tokens", 100'000, Terminal(100), clock_);
  for (int i = 0; i < 1000; ++i) {
    clock_.Advance(1ms);
    progress.Add(1);
  }
  EXPECT_LE(written_.size(), 10u);
  EXPECT_GE(written_.size(), 9u);
}

TEST_F(ProgressTest, ABarShowsShareRateAndTimeLeftAndReturnsToItsLinesStart) {
  Progress progress("ingest", "tokens", 1000, Terminal(120), clock_);
  clock_.Advance(10s);
  progress.Add(250);
  ASSERT_EQ(written_.size(), 1u);
  EXPECT_EQ(written_[0],
            "ingest [==========                              ]  25%  250 tokens of 1000 tokens  25 tokens/s  "
            "30 s left"
            "\x1b[K\r");
}

TEST_F(ProgressTest, ALineNeverReachesTheLastColumn) {
  for (int columns = 0; columns < 130; ++columns) {
    written_.clear();
    Progress progress("a label that is rather long", "tokens", 1'000'000'000, Terminal(columns), clock_);
    clock_.Advance(10s);
    progress.Add(500'000'000);
    ASSERT_EQ(written_.size(), 1u);
    EXPECT_LE(written_[0].size() - std::string_view("\x1b[K\r").size(),
              static_cast<size_t>(std::max(columns - 1, 0)));
  }
}

TEST_F(ProgressTest, DoneTellsTheRateOverAllOnce) {
  Progress progress("ingest", "tokens", 1000, Plain(), clock_);
  clock_.Advance(4s);
  progress.Add(1000);
  progress.Done();
  progress.Done();
  clock_.Advance(1h);
  progress.Add(1);
  EXPECT_THAT(written_, ElementsAre("ingest: 1000 tokens in 4.0 s, 250 tokens/s\n"));
}

TEST_F(ProgressTest, DoneReplacesTheBar) {
  Progress progress("verify", "blocks", 10, Terminal(80), clock_);
  clock_.Advance(2s);
  progress.Add(10);
  progress.Done();
  EXPECT_EQ(written_.back(), "verify: 10 blocks in 2.0 s, 5.0 blocks/s\x1b[K\n");
}

TEST_F(ProgressTest, WithoutDoneTheBarsLineIsEnded) {
  {
    Progress progress("verify", "blocks", 10, Terminal(80), clock_);
    progress.Add(1);
  }
  EXPECT_EQ(written_.back(), "\n");
}

TEST_F(ProgressTest, NothingIsWrittenWhereNothingWasBegun) {
  { Progress progress("verify", "blocks", 10, Terminal(80), clock_); }
  { Progress progress("verify", "blocks", 10, Plain(), clock_); }
  EXPECT_THAT(written_, IsEmpty());
}

TEST_F(ProgressTest, AnUnknownTotalShowsNoShare) {
  Progress progress("read", "bytes", 0, Plain(), clock_);
  clock_.Advance(5s);
  progress.Add(5 << 20);
  EXPECT_THAT(written_, ElementsAre("read 5.00 MiB  1.00 MiB/s\n"));
}

TEST_F(ProgressTest, MoreThanTheTotalIsNotMoreThanAll) {
  Progress progress("read", "tokens", 10, Plain(), clock_);
  clock_.Advance(5s);
  progress.Add(20);
  EXPECT_THAT(written_[0], HasSubstr("100%"));
  EXPECT_THAT(written_[0], Not(HasSubstr("left")));
}

TEST_F(ProgressTest, TheShownRateFollowsAChangeWithinSeconds) {
  Progress progress("prefill", "tokens", 1'000'000, Plain(), clock_);
  clock_.Advance(5s);
  progress.Add(5000);  // 1000 a second
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(5s);
    progress.Add(500);  // 100 a second
  }
  // After 20 s at the new rate the old one weighs exp(-4): 100 + 900 * 0.018.
  EXPECT_THAT(written_.back(), HasSubstr("  116 tokens/s"));
}

TEST_F(ProgressTest, AHostileLabelStaysOnItsLine) {
  Progress progress("a\nb\x1b[2J", "tokens", 10, Plain(), clock_);
  progress.Done();
  EXPECT_THAT(written_[0], StartsWith("a\\x0ab\\x1b[2J: "));
  EXPECT_THAT(written_[0], EndsWith("\n"));
}

TEST_F(ProgressTest, ManyThreadsAddUp) {
  Progress progress("count", "tokens", 40'000, NoProgress());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) progress.Add(1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(progress.done(), 40'000);
}

TEST(FormatSecondsTest, UsesTheTwoLargestUnits) {
  EXPECT_EQ(FormatSeconds(0.2), "1 s");
  EXPECT_EQ(FormatSeconds(45), "45 s");
  EXPECT_EQ(FormatSeconds(130), "2 min 10 s");
  EXPECT_EQ(FormatSeconds(11'100), "3 h 5 min");
  EXPECT_EQ(FormatSeconds(-1), "0 s");
}

}  // namespace
}  // namespace palimpsest
