// A disk that refuses, stalls or lies below the mover is a miss and nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <span>
#include <thread>
#include <vector>

#include "tests/storage/mover_fixture.h"

namespace palimpsest {
namespace {

TEST_F(MoverTest, OneDamagedValueOfARunIsAMissForItselfAlone) {
  for (const bool encrypt : {true, false}) {
    Make(0, encrypt);
    std::vector<TierKey> keys;
    for (int i = 0; i < 20; ++i) {
      Put(i);
      keys.push_back(Key(i));
    }
    ASSERT_TRUE(mover_->Flush(kLong));
    const auto replace = [&](int number, auto change) {
      const absl::StatusOr<TierView> stored = ssd_->Get(Key(number));
      ASSERT_TRUE(stored.ok()) << stored.status();
      std::vector<uint8_t> value(stored->bytes.begin(), stored->bytes.end());
      ASSERT_TRUE(ssd_->Erase(Key(number)).ok());
      const uint32_t parts = change(value);
      if (parts > 0) {
        ASSERT_TRUE(ssd_->Put(Key(number), value, parts).ok());
      }
    };
    replace(3, [](std::vector<uint8_t>& value) {  // a tile is missing
      value.erase(value.end() - kTile, value.end());
      return kParts - 1;
    });
    replace(5, [](std::vector<uint8_t>& value) {  // a bit is another
      value[2 * kTile + kEnvelopeHeaderBytes + 9] ^= 1;
      return kParts;
    });
    replace(11, [](std::vector<uint8_t>&) { return 0u; });  // it is gone
    mover_->Prefetch(keys);
    for (int i = 0; i < 20; ++i) {
      if (i == 3 || i == 5 || i == 11) {
        EXPECT_FALSE(mover_->Get(Key(i)).has_value()) << i;
      } else {
        ExpectFound(i, Level::kSsd);
      }
    }
    EXPECT_EQ(mover_->stats().damaged, 2);
    EXPECT_FALSE(mover_->OnSsd(Key(3))) << "forgotten";
    EXPECT_TRUE(mover_->OnSsd(Key(4)));
  }
}

// Who waits gives up at the deadline; what comes later is thrown away, and nothing waits for ever.
TEST_F(MoverTest, ALateRunIsAMiss) {
  MoverOptions options;
  options.read_wait = std::chrono::milliseconds(-480);  // 8 values of a run add 500 ms
  options.breaker_pause = std::chrono::milliseconds(1);
  Make(0, true, options);
  std::vector<TierKey> keys;
  for (int i = 0; i < 8; ++i) {
    Put(i);
    keys.push_back(Key(i));
  }
  ASSERT_TRUE(mover_->Flush(kLong));
  std::atomic<bool> hangs{true};
  ssd_->SetFaults({.slow = 1, .delay = std::chrono::milliseconds(1), .sleep = [&](std::chrono::nanoseconds) {
                     while (hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                   }});
  mover_->Prefetch(keys);
  EXPECT_FALSE(mover_->Get(Key(0)).has_value());
  EXPECT_EQ(mover_->stats().late, 1);
  hangs = false;
  ssd_->SetFaults({});
  mover_.reset();  // ends with the run
}

TEST_F(MoverTest, LiesOfTheDiskAreMisses) {
  for (const TierFaults& faults : {TierFaults{.seed = 1, .get_corrupt = 1}, TierFaults{.get_truncated = 1},
                                   TierFaults{.get_misplaced = 1}}) {
    Make(0);
    for (int i = 0; i < 6; ++i) Put(i);
    ASSERT_TRUE(mover_->Flush(kLong));
    ssd_->SetFaults(faults);
    for (int i = 0; i < 6; ++i) {
      if (const auto found = mover_->Get(Key(i)); found.has_value()) ExpectFound(i, Level::kSsd);
    }
    EXPECT_GT(mover_->stats().damaged, 0);
    ssd_->SetFaults({});
    EXPECT_EQ(ExpectTiles(5), 0) << "what was damaged was forgotten";
  }
}

// Once damaged in host memory, a value is taken from the disk; what does not open from there either goes
// everywhere.
TEST_F(MoverTest, WhatHostMemoryDamagedIsTakenFromTheDisk) {
  for (const bool encrypt : {true, false}) {
    Make(1 << 20, encrypt);
    Put(1);
    ASSERT_TRUE(mover_->Flush(kLong));
    std::vector<uint8_t> damaged = Value(1);
    damaged.back() ^= 1;
    ASSERT_TRUE(mover_->host()->Erase(Key(1)).ok());
    ASSERT_TRUE(mover_->host()->Put(Key(1), damaged, kParts).ok());
    const std::vector<uint8_t> right = Value(1);
    const auto found = mover_->GetIntact(Key(1), [&](std::span<const uint8_t> value) {
      return std::equal(value.begin(), value.end(), right.begin(), right.end());
    });
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->level, Level::kSsd);
    EXPECT_EQ(mover_->stats().damaged, 1);
    ExpectFound(1, Level::kHost);
    EXPECT_FALSE(mover_->GetIntact(Key(1), [](std::span<const uint8_t>) { return false; }).has_value());
    EXPECT_FALSE(mover_->Contains(Key(1)));
    EXPECT_FALSE(mover_->OnSsd(Key(1)));
  }
}

TEST_F(MoverTest, ADiskThatFailsIsLeftAloneForAWhile) {
  MoverOptions options;
  options.breaker_pause = std::chrono::hours(1);
  Make(0, true, options);
  for (int i = 0; i < 20; ++i) Put(i);
  ASSERT_TRUE(mover_->Flush(kLong));
  ssd_->SetFaults({.get_error = 1});
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(mover_->Get(Key(i)).has_value());
  EXPECT_TRUE(mover_->stats().disk_off);
  EXPECT_FALSE(mover_->Contains(Key(1))) << "it is not offered";
  EXPECT_TRUE(mover_->OnSsd(Key(1))) << "it is there all the same";
  ssd_->SetFaults({});
  EXPECT_FALSE(mover_->Get(Key(1)).has_value()) << "still left alone";
  EXPECT_LE(ssd_->Stats().hits, 0);
}

TEST_F(MoverTest, ARefusedBatchIsTriedAgain) {
  MoverOptions options;
  options.retry = std::chrono::milliseconds(20);
  options.tries = 1000;
  Make(0, true, options);
  ssd_->SetFaults({.put_full = 1});
  Put(1);
  EXPECT_FALSE(mover_->Flush(std::chrono::milliseconds(200)));
  ExpectFound(1, Level::kHost);
  ssd_->SetFaults({});
  EXPECT_TRUE(mover_->Flush(kLong));
  ExpectFound(1, Level::kSsd);
}

TEST_F(MoverTest, WhatTheDiskNeverTakesIsDroppedAndCounted) {
  MoverOptions options;
  options.retry = std::chrono::milliseconds(1);
  options.tries = 3;
  Make(1 << 20, true, options);
  ssd_->SetFaults({.put_error = 1});
  Put(1);
  EXPECT_TRUE(mover_->Flush(kLong));
  EXPECT_EQ(mover_->stats().dropped_refused, 1);
  ExpectFound(1, Level::kHost);
  EXPECT_TRUE(Put(2)) << "host memory has it";
}

// A put waits for the memory of what is on its way, but not for ever, and not for a disk that refuses.
TEST_F(MoverTest, APutGivesUpWhenTooMuchWaits) {
  MoverOptions options;
  options.waiting_bytes_max = 3 * kParts * kTile;
  options.put_wait = std::chrono::milliseconds(50);
  options.retry = std::chrono::hours(1);
  Make(0, true, options);
  ssd_->SetFaults({.put_full = 1});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Put(i));
  EXPECT_FALSE(Put(3));
  EXPECT_FALSE(Put(4));
  EXPECT_EQ(mover_->stats().dropped_full, 2);
  for (int i = 0; i < 3; ++i) ExpectFound(i, Level::kHost);
}

// It would wait for room that there never is.
TEST_F(MoverTest, WhatIsLargerThanMayWaitIsDroppedAtOnce) {
  MoverOptions options;
  options.waiting_bytes_max = kParts * kTile - 1;
  options.put_wait = std::chrono::hours(1);
  Make(0, true, options);
  EXPECT_FALSE(Put(1));
  EXPECT_EQ(mover_->stats().dropped_full, 1);
  EXPECT_TRUE(mover_->Flush(kLong));
}

// What was read ahead and failed is no reason to miss what is in host memory by now.
TEST_F(MoverTest, AReadAheadThatFailedHidesNothing) {
  MoverOptions options;
  options.breaker_failures = 1;
  options.breaker_pause = std::chrono::hours(1);
  Make(0, true, options);
  for (int i = 0; i < 2; ++i) Put(i);
  ASSERT_TRUE(mover_->Flush(kLong));
  ssd_->SetFaults({.get_error = 1});
  mover_->Prefetch(std::vector<TierKey>{Key(0), Key(1)});
  EXPECT_FALSE(mover_->Get(Key(0)).has_value()) << "so both were read";
  ssd_->SetFaults({.put_full = 1});
  ASSERT_TRUE(ssd_->Erase(Key(1)).ok());
  Put(1);
  ExpectFound(1, Level::kHost);
}

// The first put that finds no room waits for a disk that hangs, those after it do not, until it writes again.
TEST_F(MoverTest, OnlyOnePutWaitsForADiskThatHangs) {
  MoverOptions options;
  options.waiting_bytes_max = 3 * kParts * kTile;
  options.batch_bytes = 1;
  options.put_wait = std::chrono::milliseconds(300);
  Make(0, true, options);
  std::atomic<bool> hangs{true};
  ssd_->SetFaults({.slow = 1, .delay = std::chrono::milliseconds(1), .sleep = [&](std::chrono::nanoseconds) {
                     while (hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                   }});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Put(i));
  const TimePoint start = RealClock().Now();
  for (int i = 3; i < 103; ++i) EXPECT_FALSE(Put(i)) << i;
  EXPECT_LT(RealClock().Now() - start, 50 * options.put_wait) << "each of a hundred would have waited";
  EXPECT_EQ(mover_->stats().dropped_full, 100);
  hangs = false;
  ASSERT_TRUE(mover_->Flush(kLong));
  for (int i = 200; i < 210; ++i) EXPECT_TRUE(Put(i)) << "it waits for room again";
  ASSERT_TRUE(mover_->Flush(kLong));
  ssd_->SetFaults({});
  ExpectFound(209, Level::kSsd);
}

// Each tile of it is right and in its place: only their number tells.
TEST_F(MoverTest, AValueCutBetweenTwoTilesIsAMiss) {
  for (const bool encrypt : {true, false}) {
    Make(0, encrypt);
    Put(1);
    ASSERT_TRUE(mover_->Flush(kLong));
    const absl::StatusOr<TierView> stored = ssd_->Get(Key(1));
    ASSERT_TRUE(stored.ok()) << stored.status();
    for (uint32_t kept = 1; kept < kParts; ++kept) {
      const std::vector<uint8_t> cut(stored->bytes.begin(),
                                     stored->bytes.begin() + static_cast<std::ptrdiff_t>(kept * kTile));
      ASSERT_TRUE(ssd_->Erase(Key(1)).ok());
      ASSERT_TRUE(ssd_->Put(Key(1), cut, kept).ok());
      EXPECT_FALSE(mover_->Get(Key(1)).has_value()) << kept << " of " << kParts << " tiles";
      EXPECT_FALSE(ssd_->Contains(Key(1))) << "it is forgotten";
    }
  }
}

}  // namespace
}  // namespace palimpsest
