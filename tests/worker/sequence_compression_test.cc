// What compression does to a session's tiles: ragged packing, packing in place, probes, a sliding window,
// tiles that stand elsewhere than they say.
#include <gtest/gtest.h>

#include <numeric>

#include "proto/base/status.h"
#include "worker/sequence.h"

namespace palimpsest {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 2, .head_size = 16};
constexpr int64_t kHeads = 4;

BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }

class SequenceCompressionTest : public ::testing::Test {
 protected:
  void Fill(Sequence& sequence, int64_t rows, bool keep_rest = false) {
    ASSERT_TRUE(sequence.OpenGroup(rows, keep_rest).ok());
    sequence.Extend(rows);
  }
  // For each head so many tokens at rest, at positions from `first` on.
  std::vector<Sequence::Packing> Pack(const std::vector<int64_t>& counts, int32_t first = 0) {
    std::vector<Sequence::Packing> heads;
    for (const int64_t count : counts) {
      Sequence::Packing& head = heads.emplace_back();
      head.sources.assign(static_cast<size_t>(count), {.key = rest_.data(), .value = rest_.data()});
      head.positions.resize(static_cast<size_t>(count));
      std::iota(head.positions.begin(), head.positions.end(), first);
    }
    return heads;
  }
  std::vector<int32_t> Counts(const Sequence& sequence, int64_t head) const {
    std::vector<int32_t> counts;
    for (const int32_t tile : sequence.tiles(head / 2, head % 2))
      counts.push_back(arena_.pool().counts[tile] - arena_.pool().starts[tile]);
    return counts;
  }
  // Where the slots in use stand for attention.
  std::vector<int64_t> Positions(const Sequence& sequence, int64_t head) const {
    std::vector<int64_t> positions;
    const TilePool pool = arena_.pool();
    const auto tiles = sequence.tiles(head / 2, head % 2);
    const auto shifts = sequence.shifts(head / 2, head % 2);
    for (size_t i = 0; i < tiles.size(); ++i) {
      for (int32_t slot = pool.starts[tiles[i]]; slot < pool.counts[tiles[i]]; ++slot) {
        positions.push_back(pool.positions[tiles[i] * kTileSlots + slot] + (shifts.empty() ? 0 : shifts[i]));
      }
    }
    return positions;
  }
  static std::vector<int64_t> Range(int64_t first, int64_t end) {
    std::vector<int64_t> range(static_cast<size_t>(end - first));
    std::iota(range.begin(), range.end(), first);
    return range;
  }

  const std::vector<Bf16> rest_ = std::vector<Bf16>(16, FloatToBf16(1));
  const std::unique_ptr<Backend> backend_ =
      MakeBackend({.isa = "portable", .threads = {.threads = 1, .pin = false}}).value();
  const RopeTable rope_{16, 16, 10000, {}, 8};
  TileArena arena_{12 * kHeads * TileArena(1, 16).tile_bytes(), 16};
  Mover mover_{{}, nullptr, nullptr, nullptr};  // no tier below
  TieredStore store_{kShape, &arena_, backend_.get(), &rope_, &mover_};
};

TEST_F(SequenceCompressionTest, NoHeadPaysForTheLargest) {
  Sequence sequence(&store_, 4);
  ASSERT_TRUE(sequence.AppendPacked(Pack({200, 64, 1, 0}), 0, 200).ok());
  EXPECT_EQ(arena_.used_tiles(), 4 + 1 + 1 + 0);
  EXPECT_EQ(sequence.resident_tiles(), 6);
  EXPECT_EQ(sequence.resident_tokens(), 265);
  EXPECT_EQ(Counts(sequence, 0), (std::vector<int32_t>{64, 64, 64, 8}));
  EXPECT_EQ(Counts(sequence, 1), (std::vector<int32_t>{64}));
  EXPECT_EQ(Counts(sequence, 3), (std::vector<int32_t>{}));
  Fill(sequence, 30);
  EXPECT_EQ(sequence.next_position(), 230);
  for (int64_t head = 0; head < kHeads; ++head) {
    EXPECT_EQ(Counts(sequence, head).back(), 30);
    EXPECT_EQ(Positions(sequence, head).back(), 229) << "the same position in all heads";
  }
}

TEST_F(SequenceCompressionTest, NoRoomToPackChangesNothing) {
  Sequence sequence(&store_, 20);
  ASSERT_TRUE(sequence.AppendPacked(Pack({64, 64, 64, 64}), 0, 64).ok());
  const absl::Status full = sequence.AppendPacked(Pack({45 * 64, 0, 0, 0}), 0, 9999);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(arena_.used_tiles(), 4);
  EXPECT_EQ(sequence.next_position(), 64);
  EXPECT_EQ(sequence.resident_tiles(), 4);
  ASSERT_TRUE(sequence.AppendPacked(Pack({44 * 64, 0, 0, 0}), 0, 9999).ok()) << "one tile less fits";
}

TEST_F(SequenceCompressionTest, RepackTakesTheFirstTilesAndFreesTheRest) {
  Sequence sequence(&store_, 6);
  ASSERT_TRUE(sequence.AppendPacked(Pack({100, 100, 100, 100}), 0, 100).ok());
  Fill(sequence, 64, true);
  Fill(sequence, 10, true);
  EXPECT_EQ(arena_.used_tiles(), 4 * kHeads);
  const std::vector<int32_t> before(sequence.tiles(0, 1).begin(), sequence.tiles(0, 1).end());
  sequence.Repack(Pack({70, 129, 64, 0}), 129);
  EXPECT_EQ(arena_.used_tiles(), 2 + 3 + 1 + 0);
  EXPECT_EQ(std::vector<int32_t>(sequence.tiles(0, 1).begin(), sequence.tiles(0, 1).end()),
            std::vector<int32_t>(before.begin(), before.begin() + 3));
  EXPECT_EQ(Positions(sequence, 1), Range(0, 129));
  EXPECT_EQ(sequence.next_position(), 129);
  EXPECT_EQ(sequence.room(), 0) << "what follows opens a group of its own";
  EXPECT_TRUE(sequence.open_groups().empty());
  sequence.Repack(Pack({1, 1, 1, 0}), 1);  // twice in a row
  EXPECT_EQ(arena_.used_tiles(), 3);
  Fill(sequence, 5);
  EXPECT_EQ(arena_.used_tiles(), 3 + kHeads);
}

TEST_F(SequenceCompressionTest, AllPackedTilesComeBack) {
  {
    Sequence sequence(&store_, 6);
    ASSERT_TRUE(sequence.AppendPacked(Pack({100, 64, 3, 0}), 0, 100).ok());
    Fill(sequence, 20);
    sequence.Repack(Pack({10, 10, 70, 0}), 70);
    Fill(sequence, 20);
  }
  EXPECT_EQ(arena_.used_tiles(), 0);
}

TEST_F(SequenceCompressionTest, AProbeLeavesNothing) {
  Sequence sequence(&store_, 8);
  ASSERT_TRUE(sequence.AppendPacked(Pack({10, 3, 1, 64}), 0, 64).ok());
  Fill(sequence, 20, true);
  const int64_t used = arena_.used_tiles();
  for (const int64_t probe : {1, 64, 130}) {
    sequence.BeginProbe();
    EXPECT_TRUE(sequence.probing());
    for (int64_t done = 0; done < probe; done += 64) {
      ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
      sequence.Extend(std::min<int64_t>(64, probe - done));
    }
    EXPECT_EQ(sequence.next_position(), 84 + probe);
    EXPECT_EQ(arena_.used_tiles(), used + DivideUp(probe, 64) * kHeads);
    sequence.EndProbe();
    EXPECT_FALSE(sequence.probing());
    EXPECT_EQ(sequence.next_position(), 84);
    EXPECT_EQ(arena_.used_tiles(), used);
    EXPECT_EQ(sequence.tiles(0, 0).size(), 2u);
  }
  EXPECT_TRUE(sequence.SealOldest(Id(1))) << "what was open before stays open";
}

TEST_F(SequenceCompressionTest, AProbeOfNothingEndsToo) {
  Sequence sequence(&store_, 2);
  sequence.BeginProbe();
  sequence.EndProbe();
  EXPECT_EQ(sequence.next_position(), 0);
  EXPECT_EQ(arena_.used_tiles(), 0);
}

// Front 0..2; behind it a window that slides for 300 tokens.
TEST_F(SequenceCompressionTest, ASlidingWindowKeepsDistancesBySlot) {
  for (const int64_t window : {1, 2, 63, 64, 65, 130}) {
    for (const int64_t front : {0, 3}) {
      Sequence sequence(&store_, 20);
      const std::vector<int64_t> fronts(kHeads, front), windows(kHeads, window);
      ASSERT_TRUE(sequence.AppendPacked(Pack(fronts), 0, front).ok());
      const size_t front_tiles = sequence.tiles(0, 0).size();
      EXPECT_EQ(front_tiles, front == 0 ? 0u : 1u);
      ASSERT_TRUE(sequence.AppendPacked(Pack(windows, static_cast<int32_t>(front)), 0, front + window).ok());
      for (int64_t step = 0; step < 300; ++step) {
        sequence.SlideWindow(front_tiles);
        if (sequence.room() == 0) {
          ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
        }
        sequence.Extend(1);
        const std::vector<int64_t> positions = Positions(sequence, step % kHeads);
        ASSERT_EQ(positions, Range(step + 1, step + 1 + front + window))
            << "front " << front << ", window " << window;
        ASSERT_EQ(sequence.next_position(), front + window + step + 1);
        ASSERT_LE(sequence.resident_tiles(), (DivideUp(window, 64) + 3) * kHeads);
        ASSERT_EQ(sequence.resident_tiles(), arena_.used_tiles());
        for (const int32_t tile : sequence.tiles(1, 1).first(front_tiles)) {
          EXPECT_EQ(arena_.pool().bases[tile], step + 1) << "the front moves along, its keys unturned";
        }
      }
    }
    EXPECT_EQ(arena_.used_tiles(), 0);
  }
}

// The next token stands one position further, in the slot of the one that left.
TEST_F(SequenceCompressionTest, TheNewestTokenLeavesItsSlotToTheNext) {
  Sequence sequence(&store_, 6);
  ASSERT_TRUE(sequence.AppendPacked(Pack({70, 64, 3, 1}), 0, 100).ok());
  Fill(sequence, 64);
  ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
  sequence.Extend(2);
  for (int64_t step = 0; step < 200; ++step) {
    sequence.TakeBack();
    EXPECT_EQ(sequence.room(), 63);
    sequence.Extend(1);
    EXPECT_EQ(sequence.next_position(), 167 + step);
    const Sequence::Place place = sequence.PlaceOf(166 + step);
    EXPECT_EQ(place.slot, 1);
    for (int64_t head = 0; head < kHeads; ++head) {
      EXPECT_EQ(Counts(sequence, head).back(), 2);
      EXPECT_EQ(Positions(sequence, head).back(), 166 + step);
    }
  }
  EXPECT_EQ(arena_.used_tiles(), 2 + 1 + 1 + 1 + 2 * kHeads);
}

TEST_F(SequenceCompressionTest, AShiftMovesAPinnedGroup) {
  {
    Sequence sequence(&store_, 1);
    Fill(sequence, 40, true);
    ASSERT_TRUE(sequence.SealOldest(Id(1)));
  }
  Sequence sequence(&store_, 4);
  EXPECT_TRUE(sequence.shifts(0, 0).empty());
  for (int i = 0; i < 3; ++i) sequence.AddPinned(std::move(store_.Find(Id(1), 0, 0, 40)->pin), i * 40);
  Fill(sequence, 10);
  EXPECT_EQ(arena_.used_tiles(), 2 * kHeads) << "one group in three places, and one's own";
  for (int64_t head = 0; head < kHeads; ++head) EXPECT_EQ(Positions(sequence, head), Range(0, 130));
  EXPECT_EQ(sequence.shifts(1, 1).size(), 4u);
}

// Residual 64: of 300 tokens four times 64 are full, and one of them stays behind the rest.
TEST_F(SequenceCompressionTest, WhatIsPackedGoesToTwoBitsButForItsLastTokens) {
  {
    Sequence sequence(&store_, 8, 64);
    ASSERT_TRUE(sequence.AppendPacked(Pack({300, 127, 128, 0}), 0, 300).ok());
    const size_t coded[] = {3, 0, 1, 0};
    for (int64_t head = 0; head < kHeads; ++head)
      EXPECT_EQ(sequence.coded(head / 2, head % 2).size(), coded[head]) << head;
    EXPECT_EQ(Counts(sequence, 0), (std::vector<int32_t>{64, 44}));
    EXPECT_EQ(Positions(sequence, 0), Range(192, 300)) << "the last ones are exact";
    EXPECT_EQ(Positions(sequence, 1), Range(0, 127));
    EXPECT_EQ(Positions(sequence, 2), Range(64, 128));
    EXPECT_EQ(arena_.used_tiles(), 1 + 2 + 2 + 1) << "four in 2 bits are less than a tile";
    EXPECT_EQ(sequence.resident_tiles(), arena_.used_tiles());
    EXPECT_EQ(sequence.resident_tokens(), 300 + 127 + 128);
    EXPECT_EQ(sequence.depth(), 5 * 64);
  }
  EXPECT_EQ(arena_.used_tiles(), 0);
}

// At exactly twice the residual so many go, and none before; heads by themselves.
TEST_F(SequenceCompressionTest, WhileItGrowsTheResidualGoesAtOnce) {
  for (const int64_t residual : {64, 128}) {
    Sequence sequence(&store_, 12, residual);
    const std::vector<int64_t> packed = {100, 77, 64, 0};
    ASSERT_TRUE(sequence.AppendPacked(Pack(packed), 0, 100).ok());
    Fill(sequence, 64);  // a question
    std::vector<int64_t> exact;
    for (const int64_t count : packed) exact.push_back(count + 64);
    for (int64_t step = 0; step < 300; ++step) {
      ASSERT_TRUE(sequence.EncodeOldest().ok());
      if (sequence.room() == 0) {
        ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
      }
      int64_t parts = 0, tiles = 0;
      for (int64_t head = 0; head < kHeads; ++head) {
        if (exact[static_cast<size_t>(head)] >= 2 * residual) exact[static_cast<size_t>(head)] -= residual;
        const int64_t all = packed[static_cast<size_t>(head)] + 64 + step,
                      left = exact[static_cast<size_t>(head)];
        ASSERT_EQ(std::ssize(sequence.coded(head / 2, head % 2)) * 64, all - left) << "head " << head;
        const std::vector<int64_t> positions = Positions(sequence, head);
        ASSERT_EQ(std::ssize(positions), left) << "head " << head << " at " << step;
        if (left <= 64 + step) {
          ASSERT_EQ(positions, Range(164 + step - left, 164 + step)) << "the newest";
        }
        parts += std::ssize(sequence.coded(head / 2, head % 2));
        tiles += std::ssize(sequence.tiles(head / 2, head % 2));
        ++exact[static_cast<size_t>(head)];
      }
      ASSERT_EQ(arena_.used_tiles(), tiles + DivideUp(parts, 5));
      ASSERT_EQ(sequence.resident_tiles(), arena_.used_tiles());
      ASSERT_LE(tiles, kHeads * (2 * residual / 64 + 2));
      sequence.Extend(1);
    }
    EXPECT_EQ(sequence.next_position(), 464);
  }
  EXPECT_EQ(arena_.used_tiles(), 0);
}

// What is pinned is shared: it stays exact, in front.
TEST_F(SequenceCompressionTest, APinnedPrefixStaysExact) {
  Sequence sequence(&store_, 8, 64);
  Fill(sequence, 30, true);
  ASSERT_TRUE(sequence.SealOldest(Id(1)));
  ASSERT_TRUE(sequence.AppendPacked(Pack({140, 140, 140, 140}, 30), 0, 170).ok());
  for (int64_t group = 0; group < 2; ++group) {
    Fill(sequence, 64);
    ASSERT_TRUE(sequence.EncodeOldest().ok());
  }
  for (int64_t head = 0; head < kHeads; ++head) {
    EXPECT_EQ(sequence.coded(head / 2, head % 2).size(), 3u);
    std::vector<int64_t> want = Range(0, 30);
    const std::vector<int64_t> last = Range(222, 298);
    want.insert(want.end(), last.begin(), last.end());
    EXPECT_EQ(Positions(sequence, head), want);
  }
}

TEST_F(SequenceCompressionTest, NoRoomForTwoBitsChangesNothing) {
  TileArena small(9 * TileArena(1, 16).tile_bytes(), 16);
  TieredStore store(kShape, &small, backend_.get(), &rope_, &mover_);
  Sequence sequence(&store, 8, 64);
  ASSERT_TRUE(sequence.AppendPacked(Pack({64, 64, 64, 64}), 0, 64).ok());
  Fill(sequence, 64);
  std::vector<int32_t> rest(1);
  ASSERT_TRUE(small.Allocate(rest).ok());
  EXPECT_EQ(sequence.EncodeOldest().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sequence.coded(0, 0).size(), 0u);
  EXPECT_EQ(sequence.resident_tokens(), 128 * kHeads);
  small.Free(rest);
  ASSERT_TRUE(sequence.EncodeOldest().ok());
  EXPECT_EQ(small.used_tiles(), 5) << "four exact tiles, and four in 2 bits in one";
  EXPECT_EQ(sequence.resident_tokens(), 128 * kHeads);
}

TEST_F(SequenceCompressionTest, MisuseDies) {
  EXPECT_DEATH(Sequence(&store_, 4, 32), "a residual of 32 tokens");
  Sequence sequence(&store_, 4);
  Fill(sequence, 10);
  EXPECT_DEATH((void)sequence.AppendPacked(Pack({1, 1, 1, 1}), 0, 11), "packed behind 1 open groups");
  EXPECT_DEATH(Sequence(&store_, 1).TakeBack(), "0 open groups");
  EXPECT_DEATH(sequence.Repack(Pack({65, 1, 1, 1}), 65), "2 tiles packed into 1");
}

}  // namespace
}  // namespace palimpsest
