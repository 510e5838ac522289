// What lies below is damaged, foreign, short or gone: a miss. What is used wrongly dies.
#include <gtest/gtest.h>

#include <utility>

#include "tests/storage/tiered_store_fixture.h"

namespace palimpsest {
namespace {

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
