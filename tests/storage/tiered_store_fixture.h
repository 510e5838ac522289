// A tiered store on a small device over host memory with faults, and perhaps a disk with others. Groups are
// functions of their number.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "storage/tier/faulty_tier.h"
#include "storage/tier/host_tier.h"
#include "storage/tiered_store.h"

namespace palimpsest {

inline constexpr KvShape kShape = {.layers = 2, .kv_heads = 3, .head_size = 16};
inline constexpr int64_t kTiles = 6;  // of a group

inline BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }

inline int64_t EnvelopeBytes(int64_t rows) { return kShape.group_bytes(rows); }

class TieredStoreTest : public ::testing::Test {
 protected:
  // A device of `groups` groups over a host tier with faults.
  void Make(int64_t groups, int64_t host_bytes = 1 << 24) { Make(groups, host_bytes, /*ssd_bytes=*/0, {}); }
  void Make(int64_t groups, int64_t host_bytes, int64_t ssd_bytes, const MoverOptions& options) {
    store_.reset();
    arena_ = std::make_unique<TileArena>(groups * kTiles * TileArena(1, kShape.head_size).tile_bytes(),
                                         kShape.head_size);
    const auto make = [](int64_t bytes) {
      return bytes > 0 ? MakeFaultyTier(MakeHostTier({.capacity_bytes = bytes}), {}) : nullptr;
    };
    auto tier = make(host_bytes), ssd = make(ssd_bytes);
    tier_ = tier.get();
    ssd_ = ssd.get();
    mover_ = std::make_unique<Mover>(options, std::move(tier), std::move(ssd), nullptr);
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
  FaultyTier *tier_ = nullptr, *ssd_ = nullptr;  // the mover's
  std::unique_ptr<Mover> mover_;
  std::unique_ptr<TieredStore> store_;
};

}  // namespace palimpsest
