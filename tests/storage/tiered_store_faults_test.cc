// What lies below is damaged, foreign, short or gone: a miss. What is used wrongly dies.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "tests/storage/tiered_store_fixture.h"

namespace palimpsest {
namespace {

constexpr auto kLong = std::chrono::seconds(20);

TEST_F(TieredStoreTest, ADamagedValueIsAMissAndIsErased) {
  for (const TierFaults& faults : {TierFaults{.seed = 1, .get_corrupt = 1}, TierFaults{.get_truncated = 1}}) {
    Make(3);
    Sealed(1);
    store_->DropUnpinned();
    tier_->SetFaults(faults);
    EXPECT_FALSE(Find(1).has_value());
    EXPECT_EQ(store_->stats().damaged, 1);
    EXPECT_EQ(store_->stats().misses, 1);
    EXPECT_FALSE(tier_->Contains(Id(1)));
    EXPECT_EQ(arena_->used_tiles(), 0);
    tier_->SetFaults({});
    Sealed(1);  // computed again, it is stored again
    store_->DropUnpinned();
    EXPECT_TRUE(Find(1).has_value());
  }
}

// What host memory did to its copy says nothing of the one on SSD.
TEST_F(TieredStoreTest, WhatIsDamagedInHostMemoryIsFoundOnSsdAndStaysThere) {
  Make(3, 1 << 24, /*ssd_bytes=*/1 << 24, {});
  store_->MakeDigests(DigestKind::kQ2);
  std::vector<int64_t> computed;
  {
    const TieredStore::Pin pin = Sealed(1);
    computed = Seen(pin.group());
  }
  ASSERT_TRUE(mover_->Flush(kLong));
  const auto digests = [&] {
    const auto read = store_->ReadDigests(DigestKind::kQ2, Id(1), 0, 64);
    const int64_t bytes = kTiles * DigestBytes(DigestKind::kQ2, kShape.head_size);
    return read.has_value() ? std::vector<uint8_t>(read->data, read->data + bytes) : std::vector<uint8_t>();
  };
  const std::vector<uint8_t> intact = digests();
  ASSERT_FALSE(intact.empty());
  int64_t damaged = 0;
  for (const TierFaults& faults : {TierFaults{.seed = 1, .get_corrupt = 1}, TierFaults{.get_truncated = 1}}) {
    store_->DropUnpinned();
    tier_->SetFaults(faults);
    {
      const auto found = Find(1);
      ASSERT_TRUE(found.has_value());
      EXPECT_EQ(found->source, TieredStore::Source::kSsd);
      EXPECT_EQ(Seen(found->pin.group()), computed);
    }
    EXPECT_EQ(store_->stats().damaged, ++damaged);
    EXPECT_EQ(digests(), intact);
    EXPECT_EQ(store_->stats().damaged, ++damaged);
    EXPECT_TRUE(ssd_->Contains(Id(1)));
    EXPECT_EQ(ssd_->Stats().values, 2) << "the group and its digests";
  }
  EXPECT_EQ(store_->stats().misses, 0);
  tier_->SetFaults({});
  store_->DropUnpinned();
  EXPECT_EQ(Find(1)->source, TieredStore::Source::kHost) << "what came from SSD is intact there too";
}

// Group 1 is on a disk of which every read fails, and nowhere else.
class FailingDiskTest : public TieredStoreTest {
 protected:
  void MakeOneOnAFailingDisk(const MoverOptions& options) {
    Make(3, /*host_bytes=*/0, /*ssd_bytes=*/1 << 24, options);
    Sealed(1);
    ASSERT_TRUE(mover_->Flush(kLong));
    store_->DropUnpinned();
    ssd_->SetFaults({.get_error = 1});
  }
};

// As the engine does, nobody reads what no tier says it holds: the disk must offer itself for the one try.
TEST_F(FailingDiskTest, ADiskThatFailedIsReadAgainAfterItsPause) {
  MoverOptions options;
  options.breaker_pause = std::chrono::milliseconds(50);
  MakeOneOnAFailingDisk(options);
  while (!mover_->stats().disk_off) EXPECT_FALSE(Find(1).has_value());
  EXPECT_EQ(ssd_->Counts().get_errors, options.breaker_failures);
  ssd_->SetFaults({});
  for (int i = 0; i < 2000 && !store_->Holds(Id(1)); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(store_->Holds(Id(1)));
  EXPECT_TRUE(Find(1).has_value());
  EXPECT_FALSE(mover_->stats().disk_off);
}

TEST_F(TieredStoreTest, AnotherBlocksValueIsAMiss) {
  Make(3);
  Sealed(1);
  Sealed(2);
  store_->DropUnpinned();
  tier_->SetFaults({.get_misplaced = 1});
  { EXPECT_TRUE(Find(1).has_value()); }
  EXPECT_FALSE(Find(2).has_value()) << "the tier answered with block 1";
  EXPECT_EQ(store_->stats().damaged, 1);
}

// The id is right, but the caller expects another length: not its block.
TEST_F(TieredStoreTest, AValueOfAnotherLengthIsAMiss) {
  Make(3);
  Sealed(1, 0, 40);
  store_->DropUnpinned();
  EXPECT_FALSE(Find(1, 0, 41).has_value());
}

TEST_F(TieredStoreTest, ATierThatFailsIsAMissAndKeepsItsValues) {
  Make(3);
  Sealed(1);
  store_->DropUnpinned();
  tier_->SetFaults({.get_error = 1});
  EXPECT_FALSE(Find(1).has_value());
  EXPECT_EQ(store_->stats().damaged, 0);
  tier_->SetFaults({});
  EXPECT_TRUE(Find(1).has_value());
}

// Dropping the only copy costs a recomputation: it is counted, whatever became of the one below.
TEST_F(TieredStoreTest, LostCountsDropsWithoutACopyBelow) {
  Make(3, /*host_bytes=*/0);
  Sealed(1);
  store_->DropUnpinned();
  EXPECT_EQ(store_->stats().lost, 1) << "no tier below";
  EXPECT_EQ(mover_->stats().level[0].put_bytes, 0);

  for (const TierFaults& faults :
       {TierFaults{.put_error = 1}, TierFaults{.put_full = 1}, TierFaults{.put_lost = 1}}) {
    Make(3);
    tier_->SetFaults(faults);
    Sealed(1);
    store_->DropUnpinned();
    EXPECT_EQ(store_->stats().lost, 1);
    EXPECT_FALSE(Find(1).has_value());
  }

  Make(3, /*host_bytes=*/EnvelopeBytes(64) * 3 / 2);
  Sealed(1);
  Sealed(2);  // evicts 1 from the host
  store_->DropUnpinned();
  EXPECT_EQ(store_->stats().evicted, 2);
  EXPECT_EQ(store_->stats().lost, 1);
}

// That a disk is left alone for a while costs no copy.
TEST_F(FailingDiskTest, WhatADiskThatIsLeftAloneHoldsIsNotLost) {
  MoverOptions options;
  options.breaker_failures = 1;
  options.breaker_pause = std::chrono::hours(1);
  MakeOneOnAFailingDisk(options);
  EXPECT_FALSE(Find(1).has_value());
  EXPECT_FALSE(store_->Holds(Id(1))) << "it is not offered";
  Sealed(1);  // computed again
  store_->DropUnpinned();
  BlockGroup group = Filled(1, 0, 64);
  EXPECT_TRUE(store_->WriteBelow(Id(1), group));
  store_->Discard(std::move(group));
  EXPECT_EQ(store_->stats().evicted, 2);
  EXPECT_EQ(store_->stats().lost, 0);
}

TEST_F(TieredStoreTest, GroupsThatKeptNoFormAtRestStayOnTheDevice) {
  Make(3);
  BlockGroup group = *store_->Open(0, 0, 64, /*keep_rest=*/false);
  group.filled = 64;
  { const auto pin = store_->Seal(Id(1), std::move(group)); }
  EXPECT_EQ(tier_->Stats().values, 0);
  EXPECT_TRUE(Find(1).has_value());
}

TEST_F(TieredStoreTest, SealingAGroupThatIsNotFullDies) {
  Make(3);
  BlockGroup group = Filled(1, 0, 64);
  group.filled = 63;
  EXPECT_DEATH(store_->Seal(Id(1), group), "63 of 64 rows");
  store_->Discard(std::move(group));
}

}  // namespace
}  // namespace palimpsest
