#include "worker/sequence.h"

#include <gtest/gtest.h>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 2, .head_size = 16};

BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }

class SequenceTest : public ::testing::Test {
 protected:
  void Fill(Sequence& sequence, int64_t rows, bool keep_rest) {
    ASSERT_TRUE(sequence.OpenGroup(rows, keep_rest).ok());
    sequence.Extend(rows);
  }

  const std::unique_ptr<Backend> backend_ =
      MakeBackend({.isa = "portable", .threads = {.threads = 1, .pin = false}}).value();
  const RopeTable rope_{16, 16, 10000, {}, 8};
  TileArena arena_{10 * kShape.tiles() * TileArena(1, 16).tile_bytes(), 16};
  Mover mover_{{}, nullptr, nullptr, nullptr};  // no tier below
  TieredStore store_{kShape, &arena_, backend_.get(), &rope_, &mover_};
};

// A partial block leaves slots empty: positions go on, tiles begin anew.
TEST_F(SequenceTest, PositionsGoOnWhereSlotsAreLeftEmpty) {
  Sequence sequence(&store_, 4);
  Fill(sequence, 21, true);
  Fill(sequence, 64, true);
  ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
  EXPECT_EQ(sequence.room(), 64);
  sequence.Extend(5);
  EXPECT_EQ(sequence.next_position(), 90);
  EXPECT_EQ(sequence.room(), 59);
  EXPECT_EQ(sequence.resident_tiles(), 3 * kShape.tiles());
  const std::vector<std::pair<int64_t, std::pair<int64_t, int64_t>>> places = {
      {0, {0, 0}}, {20, {0, 20}}, {21, {21, 0}}, {84, {21, 63}}, {85, {85, 0}}, {89, {85, 4}}};
  for (const auto& [position, place] : places) {
    EXPECT_EQ(sequence.PlaceOf(position).group->first_position, place.first);
    EXPECT_EQ(sequence.PlaceOf(position).slot, place.second);
  }
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t head = 0; head < 2; ++head) {
      const auto tiles = sequence.tiles(layer, head);
      ASSERT_EQ(tiles.size(), 3u);
      const std::vector<int32_t> counts = {21, 64, 5}, first = {0, 21, 85};
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(arena_.pool().counts[tiles[i]], counts[i]);
        EXPECT_EQ(arena_.pool().bases[tiles[i]], 0);
        EXPECT_EQ(arena_.pool().positions[tiles[i] * kTileSlots], first[i]);
      }
    }
  }
}

TEST_F(SequenceTest, SealingKeepsTheOrderOfTiles) {
  Sequence sequence(&store_, 4);
  Fill(sequence, 64, true);
  Fill(sequence, 30, true);
  ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
  sequence.Extend(3);
  const std::vector<int32_t> before(sequence.tiles(1, 0).begin(), sequence.tiles(1, 0).end());
  EXPECT_TRUE(sequence.SealOldest(Id(1)));
  EXPECT_TRUE(sequence.SealOldest(Id(2)));
  EXPECT_FALSE(sequence.SealOldest(Id(3))) << "what is not kept is not sealed";
  EXPECT_EQ(std::vector<int32_t>(sequence.tiles(1, 0).begin(), sequence.tiles(1, 0).end()), before);
  EXPECT_EQ(sequence.PlaceOf(94).slot, 0);
  EXPECT_EQ(sequence.next_position(), 97);
}

TEST_F(SequenceTest, AGroupThatIsNotFullIsNotSealed) {
  Sequence sequence(&store_, 2);
  ASSERT_TRUE(sequence.OpenGroup(40, true).ok());
  sequence.Extend(39);
  EXPECT_FALSE(sequence.SealOldest(Id(1)));
  sequence.Extend(1);
  EXPECT_TRUE(sequence.SealOldest(Id(1)));
}

TEST_F(SequenceTest, AnothersSealedGroupTakesThePlaceOfOnesOwn) {
  Sequence first(&store_, 2), second(&store_, 3);
  Fill(first, 64, true);
  Fill(second, 64, true);
  Fill(second, 10, true);
  const int32_t own = second.tiles(0, 0)[0], next = second.tiles(0, 0)[1];
  EXPECT_TRUE(first.SealOldest(Id(1)));
  EXPECT_TRUE(second.SealOldest(Id(1)));
  EXPECT_EQ(second.tiles(0, 0)[0], first.tiles(0, 0)[0]);
  EXPECT_NE(second.tiles(0, 0)[0], own);
  EXPECT_EQ(second.tiles(0, 0)[1], next);
  EXPECT_EQ(arena_.used_tiles(), 2 * kShape.tiles());
}

TEST_F(SequenceTest, AFoundGroupGoesBeforeOnesOwn) {
  {
    Sequence sequence(&store_, 1);
    Fill(sequence, 64, true);
    sequence.SealOldest(Id(1));
  }
  Sequence sequence(&store_, 2);
  sequence.AddPinned(std::move(store_.Find(Id(1), 0, 0, 64)->pin));
  EXPECT_EQ(sequence.next_position(), 64);
  EXPECT_EQ(sequence.room(), 0) << "sealed groups take no more";
  Fill(sequence, 10, true);
  EXPECT_EQ(sequence.PlaceOf(70).slot, 6);
  EXPECT_TRUE(sequence.SealOldest(Id(2)));
  EXPECT_EQ(sequence.tiles(0, 0).size(), 2u);
}

TEST_F(SequenceTest, AllComesBackAtTheEnd) {
  {
    Sequence sequence(&store_, 3);
    Fill(sequence, 64, true);
    Fill(sequence, 64, true);
    sequence.SealOldest(Id(1));
    ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
    store_.DropUnpinned();
    EXPECT_EQ(arena_.used_tiles(), 3 * kShape.tiles());
  }
  EXPECT_EQ(arena_.used_tiles(), kShape.tiles()) << "the sealed one stays, unpinned";
  store_.DropUnpinned();
  EXPECT_EQ(arena_.used_tiles(), 0);
}

TEST_F(SequenceTest, NoRoomIsAStatusAndChangesNothing) {
  Sequence sequence(&store_, 11);
  for (int i = 0; i < 10; ++i) Fill(sequence, 64, false);
  EXPECT_EQ(sequence.OpenGroup(64, false).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sequence.next_position(), 640);
  EXPECT_EQ(sequence.tiles(0, 0).size(), 10u);
}

TEST_F(SequenceTest, MisuseDies) {
  Sequence sequence(&store_, 3);
  ASSERT_TRUE(sequence.OpenGroup(64, false).ok());
  EXPECT_DEATH(sequence.Extend(65), "65 slots of 64");
  Sequence other(&store_, 1);
  Fill(other, 64, true);
  other.SealOldest(Id(1));
  EXPECT_DEATH(sequence.AddPinned(std::move(store_.Find(Id(1), 0, 0, 64)->pin)), "group at 0");
}

}  // namespace
}  // namespace palimpsest
