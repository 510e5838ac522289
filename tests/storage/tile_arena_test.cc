#include "storage/tile_arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kHeadSize = 16;

int64_t BytesOf(int64_t tiles) { return tiles * TileArena(1, kHeadSize).tile_bytes(); }

std::vector<int32_t> Take(TileArena& arena, size_t count) {
  std::vector<int32_t> tiles(count);
  EXPECT_TRUE(arena.Allocate(tiles).ok());
  return tiles;
}

TEST(TileArenaTest, CapacityIsTheWholeTilesThatFit) {
  // K, V padded to 64 columns, 64 positions, a count, a start and a base.
  EXPECT_EQ(BytesOf(1), (16 * 64 + 64 * 64) * 2 + 64 * 4 + 12);
  EXPECT_EQ(TileArena(BytesOf(5), kHeadSize).capacity_tiles(), 5);
  EXPECT_EQ(TileArena(BytesOf(5) - 1, kHeadSize).capacity_tiles(), 4);
  EXPECT_EQ(TileArena(BytesOf(5) + 1, kHeadSize).capacity_tiles(), 5);
}

TEST(TileArenaTest, AllocatesAllOrNone) {
  TileArena arena(BytesOf(5), kHeadSize);
  Take(arena, 3);
  std::vector<int32_t> tiles(3, -7);
  const absl::Status status = arena.Allocate(tiles);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status),
              ::testing::AllOf(::testing::HasSubstr("3 tiles"), ::testing::HasSubstr("2 of 5"),
                               ::testing::HasSubstr("device.arena_bytes"),
                               ::testing::HasSubstr(fmt::format("{}", BytesOf(5)))));
  EXPECT_EQ(tiles, std::vector<int32_t>(3, -7));
  EXPECT_EQ(arena.used_tiles(), 3);
  Take(arena, 2);
  EXPECT_EQ(arena.free_tiles(), 0);
}

TEST(TileArenaTest, TilesAreDistinctAndInRange) {
  TileArena arena(BytesOf(50), kHeadSize);
  std::vector<int32_t> tiles = Take(arena, 50);
  arena.Free(std::span(tiles).first(20));
  const std::vector<int32_t> again = Take(arena, 20);
  std::set<int32_t> ids(tiles.begin() + 20, tiles.end());
  ids.insert(again.begin(), again.end());
  EXPECT_EQ(ids.size(), 50u);
  EXPECT_EQ(*ids.begin(), 0);
  EXPECT_EQ(*ids.rbegin(), 49);
}

TEST(TileArenaTest, ATileIsEmptyWhenItIsTaken) {
  TileArena arena(BytesOf(2), kHeadSize);
  const std::vector<int32_t> tiles = Take(arena, 2);
  for (const int32_t tile : tiles) {
    arena.pool().counts[tile] = 64;
    arena.pool().bases[tile] = 9;
    arena.pool().positions[tile * kTileSlots + 63] = 1;
    std::memset(arena.pool().k(tile), 1, static_cast<size_t>(arena.pool().tile_elements) * sizeof(Bf16));
  }
  arena.Free(tiles);
  EXPECT_EQ(arena.pool().counts[tiles[0]], 0) << "what is free is seen by nobody";
  for (const int32_t tile : Take(arena, 2)) {
    EXPECT_EQ(arena.pool().counts[tile], 0);
    EXPECT_EQ(arena.pool().bases[tile], 0);
  }
}

TEST(TileArenaTest, PeakIsTheMostSinceTheReset) {
  TileArena arena(BytesOf(9), kHeadSize);
  std::vector<int32_t> a = Take(arena, 4), b = Take(arena, 3);
  arena.Free(a);
  EXPECT_EQ(arena.used_tiles(), 3);
  EXPECT_EQ(arena.peak_tiles(), 7);
  arena.ResetPeak();
  EXPECT_EQ(arena.peak_tiles(), 3);
  Take(arena, 1);
  EXPECT_EQ(arena.peak_tiles(), 4);
}

TEST(TileArenaDeathTest, FreeingTwiceIsCaughtAtOnce) {
  TileArena arena(BytesOf(9), kHeadSize);
  const std::vector<int32_t> a = Take(arena, 1), others = Take(arena, 8);
  arena.Free(a);
  EXPECT_DEATH(arena.Free(a), "freed twice");
  EXPECT_DEATH(arena.Free(std::vector<int32_t>{others[0], others[0]}), "freed twice");
}

TEST(TileArenaDeathTest, FreeingWhatIsNoTileIsCaught) {
  TileArena arena(BytesOf(9), kHeadSize);
  EXPECT_DEATH(arena.Free(std::vector<int32_t>{9}), "tile 9 of 9");
  EXPECT_DEATH(arena.Free(std::vector<int32_t>{-1}), "tile -1 of 9");
}

}  // namespace
}  // namespace palimpsest
