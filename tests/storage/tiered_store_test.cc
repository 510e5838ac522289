#include "storage/tiered_store.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "storage/tier/faulty_tier.h"
#include "storage/tier/host_tier.h"

namespace palimpsest {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 3, .head_size = 16};
constexpr int64_t kTiles = 6;  // of a group

BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }

int64_t EnvelopeBytes(int64_t rows) { return kShape.group_bytes(rows); }

// A device of `groups` groups over a host tier with faults.
class TieredStoreTest : public ::testing::Test {
 protected:
  void Make(int64_t groups, int64_t host_bytes = 1 << 24) {
    store_.reset();
    arena_ = std::make_unique<TileArena>(groups * kTiles * TileArena(1, kShape.head_size).tile_bytes(),
                                         kShape.head_size);
    auto tier = host_bytes > 0 ? MakeFaultyTier(MakeHostTier({.capacity_bytes = host_bytes}), {}) : nullptr;
    tier_ = tier.get();
    mover_ = std::make_unique<Mover>(MoverOptions{}, std::move(tier), nullptr, nullptr);
    store_ = std::make_unique<TieredStore>(kShape, arena_.get(), backend_.get(), &rope_, mover_.get());
  }
  void TearDown() override {  // I-12
    if (store_ == nullptr) return;
    store_->DropUnpinned();
    EXPECT_EQ(arena_->used_tiles(), 0);
  }

  // A full group of random keys and values, a function of the number and the position.
  BlockGroup Filled(int number, int64_t position, int64_t rows, int64_t base = 0) {
    absl::StatusOr<BlockGroup> group = store_->Open(position, base, rows, /*keep_rest=*/true);
    PALIMPSEST_CHECK(group.ok(), "{}", Message(group.status()));
    RngSequence rng{Rng(static_cast<uint64_t>(number))};
    const int64_t columns = kShape.kv_heads * kShape.head_size;
    for (int64_t layer = 0; layer < kShape.layers; ++layer) {
      std::vector<float> kv(static_cast<size_t>(rows * columns * 2));
      for (float& x : kv) x = static_cast<float>(rng.Uniform() * 8 - 4);
      std::vector<KvRow> places;
      std::vector<int32_t> tiles;
      for (int64_t row = 0; row < rows; ++row) {
        places.push_back({.position = position + row,
                          .slot = static_cast<int32_t>(row),
                          .rest = group->rest(layer, kShape),
                          .rest_rows = rows,
                          .rest_stride = kShape.tile_stride(rows)});
        const auto first = group->tiles.begin() + layer * kShape.kv_heads;
        tiles.insert(tiles.end(), first, first + kShape.kv_heads);
      }
      backend_->StoreKv({.k = {kv.data(), rows, columns, columns},
                         .v = {kv.data() + rows * columns, rows, columns, columns},
                         .kv_heads = kShape.kv_heads,
                         .head_size = kShape.head_size,
                         .rope = &rope_,
                         .pool = arena_->pool(),
                         .rows = places,
                         .tiles = tiles});
    }
    group->filled = rows;
    for (const int32_t tile : group->tiles) arena_->pool().counts[tile] = static_cast<int32_t>(rows);
    return *std::move(group);
  }
  TieredStore::Pin Sealed(int number, int64_t position = 0, int64_t rows = 64) {
    return store_->Seal(Id(number), Filled(number, position, rows));
  }
  std::optional<TieredStore::Found> Find(int number, int64_t position = 0, int64_t rows = 64,
                                         int64_t base = 0) {
    return store_->Find(Id(number), position, base, rows);
  }

  // All that attention sees of a group: counts, bases, positions, keys and values of the filled slots.
  std::vector<int64_t> Seen(const BlockGroup& group) {
    const TilePool pool = arena_->pool();
    std::vector<int64_t> seen = {group.first_position, group.base, group.rows, group.filled};
    for (const int32_t tile : group.tiles) {
      seen.push_back(pool.counts[tile]);
      seen.push_back(pool.bases[tile]);
      for (int64_t slot = 0; slot < pool.counts[tile]; ++slot) {
        seen.push_back(pool.positions[tile * kTileSlots + slot]);
        for (int64_t i = 0; i < kShape.head_size; ++i) {
          seen.push_back(pool.k(tile)[i / 2 * 128 + slot * 2 + i % 2]);
          seen.push_back(pool.v(tile, kShape.head_size)[slot / 2 * 128 + i * 2 + slot % 2]);
        }
      }
    }
    return seen;
  }

  const std::unique_ptr<Backend> backend_ =
      MakeBackend({.isa = "portable", .threads = {.threads = 1, .pin = false}}).value();
  const RopeTable rope_{kShape.head_size, kShape.head_size, 10000, {}, 512};
  std::unique_ptr<TileArena> arena_;
  FaultyTier* tier_ = nullptr;  // the mover's
  std::unique_ptr<Mover> mover_;
  std::unique_ptr<TieredStore> store_;
};

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
  EXPECT_EQ(store_->stats().spilled_bytes, EnvelopeBytes(64)) << "stored once";
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
  EXPECT_EQ(stats.spilled_bytes, EnvelopeBytes(40));
  EXPECT_EQ(stats.loaded_bytes, 40 * kShape.bytes_per_token());
  EXPECT_EQ(stats.evicted, 1);
  EXPECT_EQ(stats.device_groups, 1);
}

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
  EXPECT_EQ(store_->stats().spilled_bytes, 0);

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
