// Where the columns of attention are kept while a prompt is read.
#include "worker/model/attention_sums.h"

#include <gtest/gtest.h>

#include <numeric>

namespace palimpsest {
namespace {

std::vector<float> Read(const AttentionSums& sums, int64_t layer, int64_t head, bool squares,
                        size_t columns) {
  std::vector<float> out(columns, -1.0f);
  sums.Read(layer, head, squares, out);
  return out;
}

TEST(AttentionSumsTest, AColumnIsItsWholeBlocksAndItsOpenOne) {
  AttentionSums sums;
  EXPECT_FALSE(sums.begun());
  sums.Begin(2, 3, /*first=*/7, /*tiles=*/1, /*squares=*/true);
  EXPECT_TRUE(sums.begun());
  EXPECT_EQ(sums.first(), 7);
  const ColumnSums at = sums.Of(1, 1);
  at.sums[2 * at.stride + 5] = 4;
  at.open[2 * at.stride + 5] = 0.5f;
  at.squares[at.stride + 63] = 3;
  at.open_squares[at.stride + 63] = 0.25f;
  EXPECT_EQ(Read(sums, 1, 2, false, 64)[5], 4.5f);
  EXPECT_EQ(Read(sums, 1, 1, true, 64)[63], 3.25f);
  EXPECT_EQ(Read(sums, 0, 2, false, 64), std::vector<float>(64));  // another layer's
}

TEST(AttentionSumsTest, MoreTilesKeepWhatIsThere) {
  AttentionSums sums;
  sums.Begin(1, 4, 0, 2, /*squares=*/true);
  std::vector<float> numbers(128);
  std::iota(numbers.begin(), numbers.end(), 1.0f);
  for (int64_t head = 0; head < 4; ++head) {
    const ColumnSums at = sums.Of(0, 2);
    std::copy(numbers.begin(), numbers.end(), at.sums + head * at.stride);
    std::copy(numbers.begin(), numbers.end(), at.open_squares + head * at.stride);
  }
  for (const int64_t tiles : {2, 3, 4, 11}) {
    EXPECT_GE(sums.Of(0, tiles).stride, tiles * kTileSlots);
    for (int64_t head = 0; head < 4; ++head) {
      std::vector<float> want = numbers;
      want.resize(static_cast<size_t>(tiles * kTileSlots));
      EXPECT_EQ(Read(sums, 0, head, false, want.size()), want);
      EXPECT_EQ(Read(sums, 0, head, true, want.size()), want);
    }
  }
}

// A token that takes another's slot brings along what was said of it, in whole blocks and in the open one.
TEST(AttentionSumsTest, AColumnMovesAndLeavesNothing) {
  AttentionSums sums;
  sums.Begin(2, 3, 0, 2, /*squares=*/true);
  for (const int64_t column : {70, 5}) {
    const ColumnSums at = sums.Of(1, 2);
    at.sums[at.stride + column] = static_cast<float>(column);
    at.open[at.stride + column] = 0.5f;
    at.squares[at.stride + column] = 3;
    at.open_squares[at.stride + column] = 0.25f;
  }
  const float nine = 9;
  sums.SetAt(1, 1, /*squares=*/true, std::vector<int32_t>{6}, &nine);
  sums.Move(1, 1, 70, 5);
  const std::vector<int32_t> columns = {5, 70, 6};
  std::vector<float> out(3);
  sums.ReadAt(1, 1, false, columns, out.data());
  EXPECT_EQ(out, (std::vector<float>{70.5f, 0, 0}));
  sums.ReadAt(1, 1, true, columns, out.data());
  EXPECT_EQ(out, (std::vector<float>{3.25f, 0, 9}));
  sums.Move(1, 1, 5, 5);
  EXPECT_EQ(Read(sums, 1, 1, false, 128), std::vector<float>(128)) << "one that goes itself";
}

TEST(AttentionSumsTest, RowsAreCountedAndForgottenWithTheRest) {
  AttentionSums sums;
  sums.Begin(1, 1, 0, 1, /*squares=*/false);
  sums.Joined(30);
  sums.Joined(40);
  EXPECT_EQ(sums.Of(0, 1).rows, 70);
  EXPECT_EQ(sums.Of(0, 1).squares, nullptr);
  sums.Of(0, 1).sums[3] = 1;
  sums.Begin(1, 1, 5, 1, false);
  EXPECT_EQ(sums.Of(0, 1).rows, 0);
  EXPECT_EQ(Read(sums, 0, 0, false, 64), std::vector<float>(64));
  sums.Clear();
  EXPECT_FALSE(sums.begun());
}

}  // namespace
}  // namespace palimpsest
