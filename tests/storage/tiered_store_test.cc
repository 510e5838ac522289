// What is sealed is found while it is pinned, there is room, or a copy lies below.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/storage/tiered_store_fixture.h"

namespace palimpsest {
namespace {

TEST_F(TieredStoreTest, AnOpenGroupKnowsItsPlaceAndIsEmpty) {
  Make(2);
  absl::StatusOr<BlockGroup> group = store_->Open(130, 5, 10, /*keep_rest=*/false);
  ASSERT_TRUE(group.ok());
  EXPECT_EQ(group->tiles.size(), static_cast<size_t>(kTiles));
  EXPECT_EQ(group->rest(0, kShape), nullptr);
  for (const int32_t tile : group->tiles) {
    EXPECT_EQ(arena_->pool().counts[tile], 0);
    EXPECT_EQ(arena_->pool().bases[tile], 5);
    for (int64_t slot = 0; slot < kTileSlots; ++slot) {
      EXPECT_EQ(arena_->pool().positions[tile * kTileSlots + slot], 130 + slot);
    }
  }
  EXPECT_EQ(arena_->used_tiles(), kTiles);
  store_->Discard(*std::move(group));
  EXPECT_EQ(arena_->used_tiles(), 0);
}

TEST_F(TieredStoreTest, WhatComesBackFromBelowIsWhatWasThere) {
  Make(4);
  for (const int64_t rows : {1, 2, 37, 63, 64}) {
    const int number = static_cast<int>(rows);
    std::vector<int64_t> before;
    {
      const TieredStore::Pin pin = Sealed(number, 100, rows);
      before = Seen(pin.group());
    }
    store_->DropUnpinned();
    EXPECT_FALSE(store_->OnDevice(Id(number)));
    for (auto dirt = store_->Open(0, 3, 64, false); dirt.ok();) {  // what was there is not read again
      for (const int32_t tile : dirt->tiles) {
        std::fill_n(arena_->pool().k(tile), arena_->pool().tile_elements, Bf16{0x3f80});
      }
      store_->Discard(*std::move(dirt));
      break;
    }
    auto found = Find(number, 100, rows);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->source, TieredStore::Source::kHost);
    EXPECT_EQ(Seen(found->pin.group()), before) << rows << " rows";
    EXPECT_EQ(Find(number, 100, rows)->source, TieredStore::Source::kDevice);
  }
}

// Keys rest unrotated, so a block can be loaded to another base: what it would have been, computed there.
TEST_F(TieredStoreTest, ABlockIsLoadedToAnyBase) {
  Make(4);
  Sealed(1, 100, 20);
  store_->DropUnpinned();
  const auto found = Find(1, 100, 20, /*base=*/90);
  ASSERT_TRUE(found.has_value());
  BlockGroup computed = Filled(1, 100, 20, /*base=*/90);
  EXPECT_EQ(Seen(found->pin.group()), Seen(computed));
  store_->Discard(std::move(computed));
}

TEST_F(TieredStoreTest, UnpinnedGroupsGoLeastRecentlyUsedFirst) {
  Make(3);
  {
    auto a = Sealed(1);
    auto c = Sealed(3);
    { auto b = Sealed(2); }  // unpinned first, then c, then a
  }
  EXPECT_EQ(arena_->free_tiles(), 0);
  EXPECT_EQ(store_->available_tiles(), 3 * kTiles);
  ASSERT_TRUE(Find(2).has_value());  // used again: now last
  { auto d = Sealed(4); }
  EXPECT_FALSE(store_->OnDevice(Id(3)));
  { auto e = Sealed(5); }
  EXPECT_FALSE(store_->OnDevice(Id(1)));
  EXPECT_TRUE(store_->OnDevice(Id(2)));
  EXPECT_EQ(store_->stats().evicted, 2);
  EXPECT_EQ(store_->stats().lost, 0) << "copies are below";
  EXPECT_EQ(store_->stats().device_groups, 3);
}

TEST_F(TieredStoreTest, APinnedGroupStays) {
  Make(3);
  const auto a = Sealed(1);
  const std::vector<int64_t> before = Seen(a.group());
  auto again = Find(1);
  { const TieredStore::Pin moved = std::move(again->pin); }  // two pins, one is gone
  again.reset();
  for (int i = 10; i < 20; ++i) Sealed(i);
  EXPECT_TRUE(store_->OnDevice(Id(1)));
  EXPECT_EQ(Seen(a.group()), before);
  store_->DropUnpinned();
  EXPECT_TRUE(store_->OnDevice(Id(1)));
  EXPECT_EQ(arena_->used_tiles(), kTiles);
}

TEST_F(TieredStoreTest, WhatIsLeftGoesIfItIsBelowAndNobodyPinsIt) {
  Make(4);
  Sealed(1);
  const TieredStore::Pin pinned = Sealed(2);
  Sealed(3);
  ASSERT_TRUE(tier_->Erase(Id(3)).ok());
  const std::vector<BlockId> ids = {Id(1), Id(2), Id(3), Id(9)};
  store_->Leave(ids);
  EXPECT_FALSE(store_->OnDevice(Id(1)));
  EXPECT_TRUE(store_->OnDevice(Id(2)));
  EXPECT_TRUE(store_->OnDevice(Id(3))) << "the only copy";
  EXPECT_EQ(store_->stats().lost, 0);
  store_->Forget(Id(2));
  store_->Forget(Id(3));
  store_->Forget(Id(9));
  EXPECT_TRUE(store_->OnDevice(Id(2)));
  EXPECT_FALSE(store_->OnDevice(Id(3)));
  EXPECT_EQ(store_->stats().lost, 1);
}

TEST_F(TieredStoreTest, NoRoomIsAnErrorWithNumbersAndTakesNothing) {
  Make(2);
  const auto a = Sealed(1), b = Sealed(2);
  const absl::StatusOr<BlockGroup> group = store_->Open(0, 0, 64, false);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(Message(group.status()).find("6 tiles"), std::string::npos) << group.status();
  EXPECT_EQ(store_->available_tiles(), 0);
  EXPECT_EQ(arena_->used_tiles(), 2 * kTiles);
}

TEST_F(TieredStoreTest, NoRoomOnTheDeviceIsAMiss) {
  Make(2);
  Sealed(1);
  store_->DropUnpinned();
  const auto b = Sealed(2), c = Sealed(3);
  EXPECT_FALSE(Find(1).has_value());
  EXPECT_EQ(store_->stats().misses, 1);
  EXPECT_EQ(store_->stats().damaged, 0);
  EXPECT_TRUE(tier_->Contains(Id(1)));
}

TEST_F(TieredStoreTest, SealingAKnownIdGivesTheGroupThatIsThere) {
  Make(3);
  const auto first = Sealed(1);
  const auto second = Sealed(1);
  EXPECT_EQ(&first.group(), &second.group());
  EXPECT_EQ(arena_->used_tiles(), kTiles);
  EXPECT_EQ(store_->stats().device_groups, 1);
  EXPECT_EQ(mover_->stats().level[0].put_bytes, EnvelopeBytes(64)) << "stored once";
  EXPECT_EQ(tier_->Stats().puts, 1);
}

TEST_F(TieredStoreTest, StatsCountGroupsAndBytes) {
  Make(3);
  EXPECT_FALSE(Find(1).has_value());
  Sealed(1, 0, 40);
  ASSERT_TRUE(Find(1, 0, 40).has_value());
  store_->DropUnpinned();
  ASSERT_TRUE(Find(1, 0, 40).has_value());
  const TieredStoreStats stats = store_->stats();
  EXPECT_EQ(stats.misses, 1);
  EXPECT_EQ(stats.hits_device, 1);
  EXPECT_EQ(stats.hits_host, 1);
  EXPECT_EQ(mover_->stats().level[0].put_bytes, EnvelopeBytes(40));
  EXPECT_EQ(stats.loaded_bytes, 40 * kShape.bytes_per_token());
  EXPECT_EQ(stats.evicted, 1);
  EXPECT_EQ(stats.device_groups, 1);
}

// Any order of calls over a tier with every fault: what is found is what was stored, and no tile is lost or
// counted twice (I-5, I-12).
TEST_F(TieredStoreTest, AnyOrderOfCallsKeepsTheAccounts) {
  constexpr int64_t kGroups = 6;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Make(kGroups, /*host_bytes=*/4 * EnvelopeBytes(64));
    tier_->SetFaults({.seed = seed,
                      .put_error = 0.1,
                      .put_lost = 0.1,
                      .get_error = 0.1,
                      .get_corrupt = 0.1,
                      .get_truncated = 0.1,
                      .get_misplaced = 0.1});
    RngSequence rng{Rng(seed)};
    std::map<int, std::vector<int64_t>> truth;
    std::vector<TieredStore::Pin> pins;
    std::vector<BlockGroup> open;
    for (int i = 0; i < 1500; ++i) {
      const int number = static_cast<int>(rng.Below(12));
      const int64_t rows = 5 * number + 1, position = 7 * number;
      switch (rng.Below(6)) {
        case 0:
        case 1:
          if (auto found = Find(number, position, rows)) {
            EXPECT_EQ(Seen(found->pin.group()), truth[number]);
            if (rng.Below(2) == 0) pins.push_back(std::move(found->pin));
          } else if (store_->available_tiles() >= kTiles) {
            pins.push_back(Sealed(number, position, rows));
            truth[number] = Seen(pins.back().group());
          }
          break;
        case 2:
          if (auto group = store_->Open(position, 0, rows, rng.Below(2) == 0); group.ok()) {
            open.push_back(*std::move(group));
          }
          break;
        case 3:
          if (!open.empty()) {
            store_->Discard(std::move(open.back()));
            open.pop_back();
          }
          break;
        case 4:
          if (!pins.empty()) {
            std::swap(pins[rng.Below(pins.size())], pins.back());
            pins.pop_back();
          }
          break;
        case 5:
          if (rng.Below(10) == 0) store_->DropUnpinned();
          break;
      }
      const int64_t groups = static_cast<int64_t>(open.size()) + store_->stats().device_groups;
      ASSERT_EQ(arena_->used_tiles(), groups * kTiles);
      ASSERT_LE(groups, kGroups);
      ASSERT_GE(store_->available_tiles(), arena_->free_tiles());
    }
    EXPECT_GT(store_->stats().hits_host, 10);
    EXPECT_GT(store_->stats().damaged, 10);
    for (BlockGroup& group : open) store_->Discard(std::move(group));
    pins.clear();
    EXPECT_EQ(store_->available_tiles(), arena_->capacity_tiles());
    store_->DropUnpinned();
    EXPECT_EQ(arena_->used_tiles(), 0);
  }
}

}  // namespace
}  // namespace palimpsest
