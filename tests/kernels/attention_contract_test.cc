// The contract of attention and of its operand, the tiles: what StoreKv and LoadBlock write, what Attention
// reads.
#include <cmath>
#include <thread>

#include "tests/kernels/attention_world.h"

namespace palimpsest {
namespace {

class AttentionContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(AttentionContractTest);

// Decode rows (up to 4 of a sequence) and prefill rows side by side; more than one split of tiles.
TEST_P(AttentionContractTest, MatchesTheReferenceForEveryHeadShape) {
  uint64_t seed = 100;
  for (const int64_t head_size : {16, 32, 64, 80, 96, 128}) {
    for (const int64_t group : {1, 2, 3, 4, 8}) {
      const int64_t kv_heads = 1 + static_cast<int64_t>(seed % 3);
      SCOPED_TRACE(::testing::Message() << "head size " << head_size << ", " << group
                                        << " queries for each of " << kv_heads << " KV heads, seed " << seed);
      AttentionWorld world({.heads = group * kv_heads, .kv_heads = kv_heads, .head_size = head_size},
                           {{1, 11}, {4, 3}, {5, 10, true}, {13, 4}}, seed++);
      const Guarded<Bf16> out = world.Attend(*backend_);
      const reference::AttentionResult exact = world.Reference();
      ExpectWithin(out, exact.out, world.Bound(exact));
      EXPECT_TRUE(out.GuardsIntact());
    }
  }
}

TEST_P(AttentionContractTest, MatchesTheReferenceForLongPromptsAndManySplits) {
  // 200 rows of 3 queries are more than one block of rows; up to 35 tiles are five splits.
  AttentionWorld world({.heads = 3, .kv_heads = 1, .head_size = 64}, {{200, 20}, {2, 35, true}, {1, 35}},
                       200);
  const Guarded<Bf16> out = world.Attend(*backend_);
  const reference::AttentionResult exact = world.Reference();
  ExpectWithin(out, exact.out, world.Bound(exact));
}

// Rows of every count from 1 to 20: each remainder of the register tiles, alone in its call.
TEST_P(AttentionContractTest, MatchesTheReferenceForEveryRowCount) {
  for (int64_t rows = 1; rows <= 20; ++rows) {
    SCOPED_TRACE(::testing::Message() << rows << " rows");
    AttentionWorld world({.heads = 2, .kv_heads = 2, .head_size = 32}, {{rows, 9, rows % 2 == 0}},
                         300 + static_cast<uint64_t>(rows));
    const Guarded<Bf16> out = world.Attend(*backend_);
    const reference::AttentionResult exact = world.Reference();
    ExpectWithin(out, exact.out, world.Bound(exact));
  }
}

// Rows of decoding and of a prompt over tiles in 2 bits and the exact ones behind them: each head has its own
// numbers of both, some none of one of them, and splits hold both.
TEST_P(AttentionContractTest, MatchesTheReferenceOverTilesInTwoBits) {
  uint64_t seed = 250;
  for (const int64_t head_size : {16, 48, 64, 80, 128, 256}) {
    SCOPED_TRACE(::testing::Message() << "head size " << head_size << ", seed " << seed);
    AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = head_size},
                         {{.rows = 1, .tiles_max = 4, .coded_max = 20},
                          {.rows = 4, .tiles_max = 9, .shuffled = true, .coded_max = 3},
                          {.rows = 2, .tiles_max = 6, .shifted = true},
                          {.rows = 21, .tiles_max = 3, .dropped = true, .coded_max = 9}},
                         seed++);
    const Guarded<Bf16> out = world.Attend(*backend_);
    const reference::AttentionResult exact = world.Reference();
    ExpectWithin(out, exact.out, world.Bound(exact));
    EXPECT_TRUE(out.GuardsIntact());
  }
}

// Tiles that come a few at a time: whole splits give the bits of one call, any number what the reference
// does. Heads have their own numbers of tiles, rows see nothing of some calls, and few rows are as many.
TEST_P(AttentionContractTest, TilesThatComeInSeveralCallsAreMetAsInOne) {
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64},
                       {{.rows = 1, .tiles_max = 35},
                        {.rows = 4, .tiles_max = 20, .shuffled = true},
                        {.rows = 200, .tiles_max = 35, .shuffled = true, .dropped = true},
                        {.rows = 21, .tiles_max = 12, .shifted = true}},
                       280);
  const Guarded<Bf16> whole = world.Attend(*backend_);
  const reference::AttentionResult exact = world.Reference();
  for (const int64_t tiles : {1, 3, 8, 16, 64}) {
    SCOPED_TRACE(::testing::Message() << tiles << " tiles a call");
    Guarded<Bf16> out = world.FreshOut();
    for (size_t s = 0; s < world.sequences().size(); ++s) world.AttendCarried(*backend_, s, tiles, &out);
    EXPECT_TRUE(out.GuardsIntact());
    ExpectWithin(out, exact.out, world.Bound(exact));
    if (tiles % kSplitTiles == 0) {
      EXPECT_TRUE(out.SameBits(whole));
    }
  }
}

// Bit for bit.
TEST_P(AttentionContractTest, ATileInTwoBitsIsMetAsTheOneItComesBackAs) {
  for (const int64_t head_size : {16, 48, 64, 128}) {
    AttentionWorld world(
        {.heads = 3, .kv_heads = 1, .head_size = head_size},
        {{.rows = 1, .tiles_max = 9, .coded_max = 20}, {.rows = 70, .tiles_max = 4, .coded_max = 12}}, 270);
    const Guarded<Bf16> coded = world.Attend(*backend_);
    world.Decode();
    EXPECT_TRUE(world.Attend(*backend_).SameBits(coded)) << "head size " << head_size;
  }
}

// One visible slot: its value comes back with no rounding but its own.
TEST_P(AttentionContractTest, ARowThatSeesOneSlotGetsItsValue) {
  constexpr int64_t kD = 64;
  for (const int64_t rows : {1, 6}) {
    std::vector<Bf16> data(static_cast<size_t>(TileElements(kD)));
    RngSequence rng{Rng(400)};
    for (Bf16& x : data) x = FloatToBf16(RandomFloat(rng, 1.0));
    std::vector<int32_t> positions(kTileSlots);
    for (int32_t i = 0; i < kTileSlots; ++i) positions[static_cast<size_t>(i)] = 10 + i;
    int32_t count = kTileSlots, start = 0, base = 3;
    const int32_t tile = 0;
    const std::span<const int32_t> tiles(&tile, 1);
    const std::vector<int64_t> at(static_cast<size_t>(rows), 10);  // sees slot 0 only
    const AttentionSequence sequence = {
        .first_row = 0, .rows = rows, .positions = at.data(), .tiles = &tiles};
    const RopeTable table(kD, kD, 1e4, {}, 32);
    const std::vector<float> q = RandomFloats(rng, rows * kD, 4.0);
    Guarded<Bf16> out(rows, kD, 1);
    backend_->Attention({.q = {.data = q.data(), .rows = rows, .columns = kD, .stride = kD},
                         .out = out.All(),
                         .heads = 1,
                         .kv_heads = 1,
                         .head_size = kD,
                         .rope = &table,
                         .pool = {data.data(), TileElements(kD), &count, &start, &base, positions.data()},
                         .sequences = std::span(&sequence, 1)});
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < kD; ++i) {
        EXPECT_EQ(out(t, i), data[static_cast<size_t>(reference::ValueIndex(kD, 0, i))]);
      }
    }
  }
}

// Rows of K and V going to tiles of their own numbers and bases, and to a block at rest.
class StoreWorld {
 public:
  StoreWorld(int64_t kv_heads, int64_t head_size, int64_t rows, uint64_t seed)
      : kv_heads_(kv_heads),
        d_(head_size),
        rows_(rows),
        rope_{.head_size = d_, .rope_size = d_, .theta = 1e4, .factors = {}},
        table_(d_, d_, 1e4, {}, 100),
        k_(rows, kv_heads * d_, 3),
        v_(rows, kv_heads * d_, 5),
        rest_(static_cast<size_t>(kv_heads * 2 * rows * d_), kUntouched) {
    RngSequence rng{Rng(seed)};
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < kv_heads * d_; ++i) {
        k_(t, i) = RandomFloat(rng, 6.0);
        v_(t, i) = RandomFloat(rng, 2.0);
      }
    }
  }

  // A pool of one tile per head in reverse order, all with `base`, every number untouched.
  struct Pool {
    std::vector<Bf16> data;
    std::vector<int32_t> counts, starts, bases, positions;
    std::vector<int32_t> tiles;  // (kv_heads)
    TilePool View(int64_t d) {
      return {data.data(), TileElements(d), counts.data(), starts.data(), bases.data(), positions.data()};
    }
  };
  Pool FreshPool(int32_t base) const {
    const size_t tiles = static_cast<size_t>(kv_heads_) + 1;  // and one that is nobody's
    Pool pool{std::vector<Bf16>(tiles * static_cast<size_t>(TileElements(d_)), kUntouched),
              std::vector<int32_t>(tiles, static_cast<int32_t>(rows_)),
              std::vector<int32_t>(tiles, 0),
              std::vector<int32_t>(tiles, base),
              std::vector<int32_t>(tiles * 64),
              {}};
    for (int64_t h = 0; h < kv_heads_; ++h) pool.tiles.push_back(static_cast<int32_t>(kv_heads_ - h));
    return pool;
  }

  // Rows cuts[i] to cuts[i + 1] in a call of their own; token t goes to slot t.
  void Store(Backend& backend, Pool& pool, const std::vector<int64_t>& cuts, bool keep) {
    for (size_t c = 0; c + 1 < cuts.size(); ++c) {
      std::vector<KvRow> rows;
      std::vector<int32_t> tiles;
      for (int64_t t = cuts[c]; t < cuts[c + 1]; ++t) {
        rows.push_back({.position = kFirst + t,
                        .slot = static_cast<int32_t>(t),
                        .rest = keep ? rest_.data() : nullptr,
                        .rest_rows = keep ? rows_ : 0});
        tiles.insert(tiles.end(), pool.tiles.begin(), pool.tiles.end());
      }
      const int64_t count = cuts[c + 1] - cuts[c];
      backend.StoreKv({.k = k_.PartConst(cuts[c], count),
                       .v = v_.PartConst(cuts[c], count),
                       .kv_heads = kv_heads_,
                       .head_size = d_,
                       .rope = &table_,
                       .pool = pool.View(d_),
                       .rows = rows,
                       .tiles = tiles});
    }
  }
  void Load(Backend& backend, Pool& pool) {
    backend.LoadBlock({.rest = rest_.data(),
                       .rows = rows_,
                       .kv_heads = kv_heads_,
                       .head_size = d_,
                       .first_position = kFirst,
                       .rope = &table_,
                       .pool = pool.View(d_),
                       .tiles = pool.tiles.data()});
  }

  void CheckAgainstReference(const Pool& pool, int32_t base) const;

  static constexpr Bf16 kUntouched = 0x4321;
  static constexpr int64_t kFirst = 77;  // position of token 0; some rows of the table, some computed

 private:
  void CheckToken(const Pool& pool, int32_t base, int64_t t, int64_t h, std::vector<bool>* written) const;

  int64_t kv_heads_, d_, rows_;
  reference::Rope rope_;
  RopeTable table_;
  Guarded<float> k_, v_;
  std::vector<Bf16> rest_;  // (kv_heads, 2, rows, D)
};

// At rest and V: exactly the rounded numbers. Keys in the tile: rotated in float, where cos and sin are off
// by 2^-24 of themselves and two products and a sum round: less than 4 * 2^-24 (|x| + |partner|); then
// rounded: 2^-8.
void StoreWorld::CheckToken(const Pool& pool, int32_t base, int64_t t, int64_t h,
                            std::vector<bool>* written) const {
  const auto head_of = [&](const Guarded<float>& x) {
    return std::vector<float>(x.PartConst(t, 1).data + h * d_, x.PartConst(t, 1).data + (h + 1) * d_);
  };
  const reference::StoredToken want =
      reference::StoreToken(rope_, kFirst + t - base, head_of(k_), head_of(v_));
  const auto value_of = [](Bf16 x) { return static_cast<double>(Bf16ToFloat(x)); };
  const int64_t tile = pool.tiles[static_cast<size_t>(h)] * TileElements(d_);
  for (int64_t i = 0; i < d_; ++i) {
    const size_t e = static_cast<size_t>(i);
    const size_t key = static_cast<size_t>(tile + reference::KeyIndex(t, i));
    const size_t value = static_cast<size_t>(tile + reference::ValueIndex(d_, t, i));
    const double slack = 0x1p-22 * (std::abs(want.rest_key[e]) + std::abs(want.rest_key[e ^ 1]));
    const double bound = slack + 0x1p-8 * (std::abs(want.tile_key[e]) + slack);
    ASSERT_NEAR(value_of(pool.data[key]), want.tile_key[e], bound) << "token " << t << " element " << i;
    ASSERT_EQ(value_of(pool.data[value]), want.value[e]) << "token " << t << " element " << i;
    (*written)[key] = (*written)[value] = true;
    for (const bool is_value : {false, true}) {
      const Bf16 rest = rest_[static_cast<size_t>(reference::RestIndex(rows_, d_, h, is_value, t, i))];
      ASSERT_EQ(value_of(rest), is_value ? want.value[e] : want.rest_key[e]);
    }
  }
}

void StoreWorld::CheckAgainstReference(const Pool& pool, int32_t base) const {
  std::vector<bool> written(pool.data.size(), false);
  for (int64_t t = 0; t < rows_; ++t) {
    for (int64_t h = 0; h < kv_heads_; ++h) CheckToken(pool, base, t, h, &written);
  }
  for (size_t i = 0; i < pool.data.size(); ++i) {
    ASSERT_TRUE(written[i] || pool.data[i] == kUntouched) << "element " << i << " is nobody's";
  }
}

TEST_P(AttentionContractTest, StoreKvWritesTilesAndTheBlockAtRest) {
  for (const int64_t head_size : {16, 32, 64, 80, 96, 128}) {
    for (const int64_t rows : {1, 17, 63, 64}) {
      SCOPED_TRACE(::testing::Message() << "head size " << head_size << ", " << rows << " rows");
      StoreWorld world(3, head_size, rows, 500 + static_cast<uint64_t>(head_size + rows));
      StoreWorld::Pool pool = world.FreshPool(13);
      world.Store(*backend_, pool, {0, rows}, true);
      world.CheckAgainstReference(pool, 13);
    }
  }
}

TEST_P(AttentionContractTest, StoreKvInSeveralCallsWritesTheSameBits) {
  RngSequence rng{Rng(600)};
  for (int trial = 0; trial < 10; ++trial) {
    StoreWorld world(2, 64, 64, 601);
    StoreWorld::Pool whole = world.FreshPool(5), parts = world.FreshPool(5);
    world.Store(*backend_, whole, {0, 64}, true);
    world.Store(*backend_, parts, RandomCuts(rng, 64), false);
    EXPECT_EQ(whole.data, parts.data);
  }
}

TEST_P(AttentionContractTest, LoadBlockReproducesTheTileBits) {
  for (const int64_t head_size : {16, 32, 64, 80, 96, 128}) {
    for (const int64_t rows : {1, 17, 64}) {
      SCOPED_TRACE(::testing::Message() << "head size " << head_size << ", " << rows << " rows");
      StoreWorld world(3, head_size, rows, 700 + static_cast<uint64_t>(head_size + rows));
      StoreWorld::Pool stored = world.FreshPool(13);
      world.Store(*backend_, stored, {0, rows}, true);
      for (const int32_t base : {13, 0, 77}) {  // as it was, and moved to other places
        StoreWorld::Pool loaded = world.FreshPool(base), again = world.FreshPool(base);
        world.Load(*backend_, loaded);
        world.Store(*backend_, again, {0, rows}, false);
        EXPECT_EQ(loaded.data, again.data) << "base " << base;
        EXPECT_EQ(loaded.data == stored.data, base == 13);
      }
    }
  }
}

TEST_P(AttentionContractTest, LoadBlockRunsOnSeveralThreadsAtOnce) {
  constexpr int kThreads = 4;
  StoreWorld world(3, 64, 64, 800);
  StoreWorld::Pool want = world.FreshPool(13);
  world.Store(*backend_, want, {0, 64}, true);
  std::vector<StoreWorld::Pool> pools(kThreads, world.FreshPool(13));
  {
    std::vector<std::jthread> threads;
    for (StoreWorld::Pool& pool : pools) {
      threads.emplace_back([&] {
        for (int round = 0; round < 20; ++round) world.Load(*backend_, pool);
      });
    }
  }
  for (const StoreWorld::Pool& pool : pools) EXPECT_EQ(pool.data, want.data);
}

}  // namespace
}  // namespace palimpsest
