// The contract of GatherKv: what is packed are the bits that StoreKv wrote, wherever they are read from, also
// when a head is packed into its own tiles.
#include <algorithm>
#include <cmath>

#include "tests/kernels/backend_fixture.h"

namespace palimpsest {
namespace {

class GatherContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(GatherContractTest);

constexpr int64_t kHeads = 3;

// Tiles full of random numbers, `tiles` for each head, and as many keys and values at rest.
struct GatherWorld {
  GatherWorld(int64_t head_size, int64_t tiles_of_head, uint64_t seed)
      : d(head_size), tiles(tiles_of_head), rng(Rng(seed)) {
    const int64_t all = kHeads * tiles;
    for (int64_t i = 0; i < all * TileElements(d); ++i) data.push_back(Random());
    for (int64_t i = 0; i < all * kTileSlots * d; ++i) {
      keys.push_back(Random());
      values.push_back(Random());
    }
    for (int64_t t = 0; t < all; ++t) {
      counts.push_back(static_cast<int32_t>(rng.Below(65)));
      starts.push_back(static_cast<int32_t>(rng.Below(65)));
      bases.push_back(static_cast<int32_t>(rng.Below(50)) - 25);
      ids.push_back(static_cast<int32_t>(all - 1 - t));
    }
    positions.assign(static_cast<size_t>(all * kTileSlots), -7);
  }
  Bf16 Random() { return FloatToBf16(RandomFloat(rng, 2.0)); }
  TilePool Pool() {
    return {.data = data.data(),
            .tile_elements = TileElements(d),
            .counts = counts.data(),
            .starts = starts.data(),
            .bases = bases.data(),
            .positions = positions.data()};
  }
  std::span<const int32_t> TilesOf(int64_t h) const {
    return std::span(ids).subspan(static_cast<size_t>(h * tiles), static_cast<size_t>(tiles));
  }
  const Bf16* Key(int64_t h, int64_t t) const { return keys.data() + (h * tiles * kTileSlots + t) * d; }
  const Bf16* Value(int64_t h, int64_t t) const { return values.data() + (h * tiles * kTileSlots + t) * d; }

  int64_t d, tiles;
  RngSequence rng;
  std::vector<Bf16> data, keys, values;
  std::vector<int32_t> counts, starts, bases, positions, ids;
};

struct Packing {
  std::vector<KvSource> sources;
  std::vector<int32_t> positions;
};

// `count` tokens of head h, each from a slot at or behind its new place or from rest, key and value each.
Packing RandomPacking(GatherWorld& world, int64_t h, int64_t count) {
  Packing packing;
  int32_t position = 30;
  const int64_t slots = world.tiles * kTileSlots;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = i + static_cast<int64_t>(world.rng.Below(static_cast<uint64_t>(slots - i)));
    const uint64_t kind = world.rng.Below(4);
    packing.sources.push_back({.key = kind & 1 ? world.Key(h, from) : nullptr,
                               .value = kind & 2 ? world.Value(h, from) : nullptr,
                               .tile = world.TilesOf(h)[static_cast<size_t>(from / kTileSlots)],
                               .slot = static_cast<int32_t>(from % kTileSlots)});
    packing.positions.push_back(position);
    position += 1 + static_cast<int32_t>(world.rng.Below(3));
  }
  return packing;
}

// As before, but for the tokens of one head.
void ExpectPacked(const GatherWorld& before, const GatherWorld& after, int64_t h, const Packing& packing) {
  const int64_t d = before.d;
  const reference::Rope rope{.head_size = d, .rope_size = d, .theta = 1e4, .factors = {}};
  std::vector<Bf16> want = before.data;
  for (size_t i = 0; i < packing.sources.size(); ++i) {
    const int64_t slot = static_cast<int64_t>(i) % kTileSlots;
    const int32_t tile = before.TilesOf(h)[i / kTileSlots];
    const KvSource& source = packing.sources[i];
    const int64_t to = tile * TileElements(d), from = source.tile * TileElements(d);
    std::vector<double> rotated(static_cast<size_t>(d));
    if (source.key != nullptr) {
      for (int64_t e = 0; e < d; ++e) rotated[static_cast<size_t>(e)] = Bf16ToFloat(source.key[e]);
      rotated =
          reference::Rotate(rope, packing.positions[i] - before.bases[static_cast<size_t>(tile)], rotated);
    }
    for (int64_t e = 0; e < d; ++e) {
      const size_t key = static_cast<size_t>(to + reference::KeyIndex(slot, e));
      if (source.key == nullptr) {
        want[key] = before.data[static_cast<size_t>(from + reference::KeyIndex(source.slot, e))];
      } else {  // its bits are StoreKv's: the test below
        want[key] = after.data[key];
        const double exact = rotated[static_cast<size_t>(e)];
        ASSERT_NEAR(Bf16ToFloat(want[key]), exact, 0x1p-8 * std::abs(exact) + 0x1p-20) << "source " << i;
      }
      want[static_cast<size_t>(to + reference::ValueIndex(d, slot, e))] =
          source.value != nullptr
              ? source.value[e]
              : before.data[static_cast<size_t>(from + reference::ValueIndex(d, source.slot, e))];
    }
    EXPECT_EQ(after.positions[static_cast<size_t>(tile * kTileSlots + slot)], packing.positions[i]);
  }
  for (size_t i = 0; i < before.TilesOf(h).size(); ++i) {
    const int32_t tile = before.TilesOf(h)[i];
    const int64_t left = static_cast<int64_t>(packing.sources.size()) - static_cast<int64_t>(i) * kTileSlots;
    EXPECT_EQ(after.counts[static_cast<size_t>(tile)], std::clamp<int64_t>(left, 0, kTileSlots));
    EXPECT_EQ(after.starts[static_cast<size_t>(tile)], 0);
    const int64_t at = tile * TileElements(before.d);
    EXPECT_TRUE(std::equal(want.begin() + at, want.begin() + at + TileElements(d), after.data.begin() + at))
        << "tile " << i << " of head " << h;
  }
}

TEST_P(GatherContractTest, EveryTokenArrivesWhenHeadsArePackedIntoTheirOwnTiles) {
  for (const int64_t head_size : {16, 64, 80, 128, 256}) {
    for (const int64_t count : {0, 1, 63, 64, 65, 130, 192}) {
      SCOPED_TRACE(::testing::Message() << "head size " << head_size << ", " << count << " tokens");
      const RopeTable rope(head_size, head_size, 1e4, {}, 100);
      GatherWorld world(head_size, 3, 3000 + static_cast<uint64_t>(head_size + count));
      std::vector<Packing> packings;
      std::vector<GatherHead> heads;
      for (int64_t h = 0; h < kHeads; ++h) packings.push_back(RandomPacking(world, h, count - count * h / 5));
      for (int64_t h = 0; h < kHeads; ++h) {
        const Packing& packing = packings[static_cast<size_t>(h)];
        heads.push_back(
            {.sources = packing.sources, .positions = packing.positions, .tiles = world.TilesOf(h)});
      }
      // What is at rest stays where it is: sources point into `world`, the tiles of `after` are packed.
      GatherWorld after = world;
      backend_->GatherKv({.head_size = head_size, .rope = &rope, .pool = after.Pool(), .heads = heads});
      for (int64_t h = 0; h < kHeads; ++h) ExpectPacked(world, after, h, packings[static_cast<size_t>(h)]);
    }
  }
}

TEST_P(GatherContractTest, FromRestItWritesTheBitsOfStoreKv) {
  for (const int64_t head_size : {16, 64, 80, 128}) {
    constexpr int64_t kTokens = 150, kTiles = 3;
    const RopeTable rope(head_size, head_size, 1e4, {}, 100);
    GatherWorld world(head_size, kTiles, 3100 + static_cast<uint64_t>(head_size));
    GatherWorld stored = world, gathered = world;
    std::vector<Bf16> rest(static_cast<size_t>(kTiles * 2 * kTileSlots * head_size));
    const std::vector<float> k = RandomFloats(world.rng, kTokens * head_size, 3.0),
                             v = RandomFloats(world.rng, kTokens * head_size, 3.0);
    std::vector<KvRow> rows;
    std::vector<int32_t> tiles;
    Packing packing;
    for (int64_t t = 0; t < kTokens; ++t) {
      Bf16* block = rest.data() + t / kTileSlots * 2 * kTileSlots * head_size;
      const int32_t slot = static_cast<int32_t>(t % kTileSlots), position = static_cast<int32_t>(30 + 2 * t);
      rows.push_back({.position = position, .slot = slot, .rest = block, .rest_rows = kTileSlots});
      tiles.push_back(world.TilesOf(0)[static_cast<size_t>(t / kTileSlots)]);
      packing.sources.push_back(
          {.key = block + slot * head_size, .value = block + (kTileSlots + slot) * head_size});
      packing.positions.push_back(position);
    }
    backend_->StoreKv({.k = {k.data(), kTokens, head_size, head_size},
                       .v = {v.data(), kTokens, head_size, head_size},
                       .kv_heads = 1,
                       .head_size = head_size,
                       .rope = &rope,
                       .pool = stored.Pool(),
                       .rows = rows,
                       .tiles = tiles});
    const GatherHead head{
        .sources = packing.sources, .positions = packing.positions, .tiles = world.TilesOf(0)};
    backend_->GatherKv(
        {.head_size = head_size, .rope = &rope, .pool = gathered.Pool(), .heads = std::span(&head, 1)});
    EXPECT_EQ(gathered.data, stored.data) << "head size " << head_size;
  }
}

TEST_P(GatherContractTest, MoreTokensThanSlotsAreRefused) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const RopeTable rope(16, 16, 1e4, {}, 100);
  GatherWorld world(16, 1, 3200);
  const std::vector<KvSource> sources(65, KvSource{.tile = 0});
  const std::vector<int32_t> positions(65);
  const auto gather = [&](size_t places) {
    const GatherHead head{
        .sources = sources, .positions = std::span(positions).first(places), .tiles = world.TilesOf(0)};
    backend_->GatherKv({.head_size = 16, .rope = &rope, .pool = world.Pool(), .heads = std::span(&head, 1)});
  };
  EXPECT_DEATH(gather(65), "65 sources for 1 tiles");
  EXPECT_DEATH(gather(64), "65 sources, 64 positions");
  backend_->GatherKv({.head_size = 16, .rope = &rope, .pool = world.Pool(), .heads = {}});
}

}  // namespace
}  // namespace palimpsest
