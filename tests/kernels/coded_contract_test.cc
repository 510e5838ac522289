// The contract of EncodeKv: which numbers share a group, how far each is off, and that nothing else is
// touched.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/backend_fixture.h"

namespace palimpsest {
namespace {

class CodedContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(CodedContractTest);

constexpr int32_t kExact = 3;  // tiles of exact tokens; parts of one more receive them

// Tokens of one head in exact tiles of base 0, and a tile for what is made of them.
struct CodedWorld {
  explicit CodedWorld(int64_t head_size) : d(head_size), rope(d, d, 1e4, {}, 500) {
    data.assign(static_cast<size_t>((kExact + 1) * TileElements(d)), kUntouched);
    positions.resize(static_cast<size_t>((kExact + 1) * kTileSlots));
    std::iota(positions.begin(), positions.end(), 0);
    for (int32_t tile = 0; tile < kExact; ++tile) {
      for (int32_t slot = 0; slot < kTileSlots; ++slot) sources.push_back({.tile = tile, .slot = slot});
    }
  }
  TilePool Pool() {
    return {data.data(), TileElements(d), counts.data(), starts.data(), bases.data(), positions.data()};
  }
  Bf16& Key(int64_t token, int64_t i) {
    return Pool().k(static_cast<int32_t>(token / kTileSlots))[reference::KeyIndex(token % kTileSlots, i)];
  }
  Bf16& Value(int64_t token, int64_t i) {
    return Pool().k(
        static_cast<int32_t>(token / kTileSlots))[reference::ValueIndex(d, token % kTileSlots, i)];
  }
  void Fill(uint64_t seed) {
    RngSequence rng{Rng(seed)};
    for (int64_t token = 0; token < kExact * kTileSlots; ++token) {
      for (int64_t i = 0; i < d; ++i) {
        // A channel far from 0 and wide, as some of a model's keys are; a channel of one number.
        const float key = i == 3 ? 40 + RandomFloat(rng, 20.0) : RandomFloat(rng, 2.0);
        Key(token, i) = FloatToBf16(i == 5 ? 1.5f : key);
        Value(token, i) = FloatToBf16(RandomFloat(rng, token % 7 == 0 ? 9.0 : 0.5));
      }
    }
  }
  // Token 64 i goes to slot 0 of part parts[i].
  void Encode(Backend& backend, const std::vector<int32_t>& parts) {
    std::vector<CodedTile> tiles;
    for (const int32_t part : parts) tiles.push_back({.tile = kExact, .part = part});
    const size_t count = parts.size() * kTileSlots;
    const EncodeHead head = {.sources = std::span(sources).first(count),
                             .positions = std::span(positions).first(count),
                             .tiles = tiles};
    backend.EncodeKv({.head_size = d, .rope = &rope, .pool = Pool(), .heads = std::span(&head, 1)});
  }
  double KeyBack(int32_t part, int64_t slot, int64_t i) {
    return reference::CodedElement(Pool().coded({.tile = kExact, .part = part}),
                                   reference::KeyIndex(slot, i));
  }
  double ValueBack(int32_t part, int64_t slot, int64_t i) {
    return reference::CodedElement(Pool().coded({.tile = kExact, .part = part}),
                                   reference::ValueIndex(d, slot, i));
  }

  static constexpr Bf16 kUntouched = 0x4321;
  int64_t d;
  RopeTable rope;
  std::vector<Bf16> data;
  std::vector<int32_t> counts = std::vector<int32_t>(kExact + 1, 64),
                       starts = std::vector<int32_t>(kExact + 1, 0),
                       bases = std::vector<int32_t>(kExact + 1, 0), positions;
  std::vector<KvSource> sources;
};

// A group in float64: from its least number in thirds of its span.
struct Group {
  void Add(double x) {
    least = std::min(least, x);
    most = std::max(most, x);
  }
  double step() const { return (most - least) / 3; }
  // Half a step, a little more where float or bf16 rounds a tie or the step to the other side; and the last
  // rounding, to bf16.
  void Expect(double x, double back) const {
    const double half = step() / 2 * (1 + 0x1p-6);
    ASSERT_LE(std::abs(back - x), half + 0x1p-8 * std::max(std::abs(x), std::abs(back)));
    ASSERT_GE(back, least - 0x1p-8 * std::abs(least));
  }
  double least = std::numeric_limits<double>::infinity(), most = -least;
};

double Number(Bf16 x) { return static_cast<double>(Bf16ToFloat(x)); }

TEST_P(CodedContractTest, KeysAreOffByHalfAStepOfTheirChannelAndValuesOfTheirToken) {
  for (const int64_t d : {16, 32, 48, 64, 80, 128, 256}) {
    SCOPED_TRACE(::testing::Message() << "head size " << d);
    CodedWorld world(d);
    world.Fill(static_cast<uint64_t>(d));
    world.Encode(*backend_, {0, 4, 1});
    int64_t part_index = 0;
    for (const int32_t part : {0, 4, 1}) {
      const int64_t first = kTileSlots * part_index++;
      for (int64_t i = 0; i < d; ++i) {
        for (const int64_t run : {0, 32}) {
          Group group;
          for (int64_t s = run; s < run + 32; ++s) group.Add(Number(world.Key(first + s, i)));
          for (int64_t s = run; s < run + 32; ++s)
            group.Expect(Number(world.Key(first + s, i)), world.KeyBack(part, s, i));
        }
      }
      for (int64_t s = 0; s < kTileSlots; ++s) {
        for (int64_t run = 0; run < d; run += 32) {
          Group group;
          for (int64_t i = run; i < std::min(d, run + 32); ++i) group.Add(Number(world.Value(first + s, i)));
          for (int64_t i = run; i < std::min(d, run + 32); ++i)
            group.Expect(Number(world.Value(first + s, i)), world.ValueBack(part, s, i));
        }
      }
    }
  }
}

// Worked out by hand: [0, 1, 2, 3] is exact; of [0, 0.4, 0.9, 3] the steps are of 1; equal numbers stay.
TEST_P(CodedContractTest, GoldenGroups) {
  CodedWorld world(64);
  const float exact[] = {0, 1, 2, 3}, near[] = {0, 0.4f, 0.9f, 3}, back[] = {0, 0, 1, 3};
  for (int64_t token = 0; token < kTileSlots; ++token) {
    for (int64_t i = 0; i < 64; ++i) {
      const float key = i == 0 ? exact[token % 4] : i == 1 ? near[token % 4] : -2.5f;
      world.Key(token, i) = FloatToBf16(key);
      world.Value(token, i) = FloatToBf16(token == 7 ? exact[i % 4] : token == 8 ? near[i % 4] : 0.0f);
    }
  }
  world.Encode(*backend_, {2});
  for (int64_t s = 0; s < kTileSlots; ++s) {
    EXPECT_EQ(world.KeyBack(2, s, 0), exact[s % 4]);
    EXPECT_EQ(world.KeyBack(2, s, 1), back[s % 4]);
    EXPECT_EQ(world.KeyBack(2, s, 2), -2.5);
    EXPECT_EQ(world.ValueBack(2, 7, s), exact[s % 4]);
    EXPECT_EQ(world.ValueBack(2, 8, s), back[s % 4]);
    EXPECT_EQ(world.ValueBack(2, 9, s), 0);
  }
}

// What is not a number stays in its own group: 32 tokens of a channel, 32 channels of a token.
TEST_P(CodedContractTest, WhatIsNotFiniteSpoilsItsGroupAlone) {
  CodedWorld world(64);
  world.Fill(9);
  world.Key(40, 2) = 0x7fc0;     // not a number
  world.Value(11, 33) = 0x7f80;  // infinite
  world.Encode(*backend_, {0});
  for (int64_t s = 0; s < kTileSlots; ++s) {
    for (int64_t i = 0; i < 64; ++i) {
      EXPECT_EQ(std::isnan(world.KeyBack(0, s, i)), s >= 32 && i == 2) << s << " " << i;
      EXPECT_EQ(std::isnan(world.ValueBack(0, s, i)), s == 11 && i >= 32) << s << " " << i;
    }
  }
}

TEST_P(CodedContractTest, OnlyThePartsThatWereNamedAreWritten) {
  CodedWorld world(64);
  world.Fill(10);
  const std::vector<Bf16> before = world.data;
  world.Encode(*backend_, {1, 3});
  const int64_t part = TileElements(64) / kCodedRunElements * static_cast<int64_t>(sizeof(CodedRun) / 2);
  ASSERT_LE(kCodedPerTile * part, TileElements(64));
  EXPECT_EQ(kCodedPerTile, 5);
  for (int64_t i = 0; i < std::ssize(before); ++i) {
    const int64_t of_part = (i - kExact * TileElements(64)) / part;
    const bool named = i >= kExact * TileElements(64) && (of_part == 1 || of_part == 3);
    ASSERT_TRUE(named || world.data[static_cast<size_t>(i)] == before[static_cast<size_t>(i)]) << i;
  }
}

// From rest a key is turned to where it stands, as StoreKv would have.
TEST_P(CodedContractTest, FromRestAndFromASlotItIsTheSame) {
  for (const int64_t d : {48, 64}) {
    CodedWorld world(d), rested(d);
    RngSequence rng{Rng(12)};
    const Guarded<Bf16> keys = RandomBf16(rng, kTileSlots, d, 1, 3.0),
                        values = RandomBf16(rng, kTileSlots, d, 1, 2.0);
    std::vector<KvSource> sources;
    for (int64_t s = 0; s < kTileSlots; ++s)
      sources.push_back({.key = keys.PartConst(s, 1).data, .value = values.PartConst(s, 1).data});
    const int32_t tile = 0;
    const GatherHead gather = {.sources = sources,
                               .positions = std::span(world.positions).first(kTileSlots),
                               .tiles = std::span(&tile, 1)};
    backend_->GatherKv(
        {.head_size = d, .rope = &world.rope, .pool = world.Pool(), .heads = std::span(&gather, 1)});
    world.Encode(*backend_, {0});
    rested.sources = sources;
    rested.Encode(*backend_, {0});
    for (int64_t s = 0; s < kTileSlots; ++s) {
      for (int64_t i = 0; i < d; ++i) {
        ASSERT_EQ(world.KeyBack(0, s, i), rested.KeyBack(0, s, i));
        ASSERT_EQ(world.ValueBack(0, s, i), rested.ValueBack(0, s, i));
      }
    }
  }
}

// Bits do not depend on the heads beside it or on the threads.
TEST_P(CodedContractTest, HeadsTogetherAreHeadsAlone) {
  CodedWorld together(64), alone(64);
  together.Fill(13);
  alone.Fill(13);
  auto one = MakeTestBackend(1);
  ASSERT_TRUE(one.ok());
  const CodedTile tiles[] = {{kExact, 0}, {kExact, 1}, {kExact, 2}};
  std::vector<EncodeHead> heads;
  for (size_t i = 0; i < 3; ++i) {
    heads.push_back({.sources = std::span(together.sources).subspan(i * kTileSlots, kTileSlots),
                     .positions = std::span(together.positions).subspan(i * kTileSlots, kTileSlots),
                     .tiles = std::span(&tiles[i], 1)});
  }
  backend_->EncodeKv({.head_size = 64, .rope = &together.rope, .pool = together.Pool(), .heads = heads});
  for (const EncodeHead& head : heads) {
    (*one)->EncodeKv(
        {.head_size = 64, .rope = &alone.rope, .pool = alone.Pool(), .heads = std::span(&head, 1)});
  }
  EXPECT_EQ(together.data, alone.data);
}

}  // namespace
}  // namespace palimpsest
