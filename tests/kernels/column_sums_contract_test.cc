// The contract of the columns that Attention adds up (ColumnSums).
#include <cmath>
#include <limits>

#include "tests/kernels/attention_world.h"

namespace palimpsest {
namespace {

class ColumnSumsContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(ColumnSumsContractTest);

using Columns = AttentionWorld::Columns;

TEST_P(ColumnSumsContractTest, SumsAndSquaresMatchTheReferenceForEveryHeadShape) {
  uint64_t seed = 3000;
  for (const int64_t head_size : {16, 64, 80, 128}) {
    for (const int64_t group : {1, 2, 3, 8}) {
      const int64_t kv_heads = 1 + static_cast<int64_t>(seed % 3), heads = group * kv_heads;
      AttentionWorld world({.heads = heads, .kv_heads = kv_heads, .head_size = head_size},
                           {{1, 11}, {4, 3}, {70, 20, true, true}, {13, 4, false, true}}, seed++);
      for (size_t s = 0; s < world.sequences().size(); ++s) {
        SCOPED_TRACE(::testing::Message() << "head size " << head_size << ", group " << group << ", sequence "
                                          << s << ", seed " << seed - 1);
        Columns columns = world.NoColumns(), alone = world.NoColumns();
        Guarded<Bf16> out = world.FreshOut();
        const std::vector<int64_t> whole = {0, world.sequences()[s].rows};
        world.AddSums(*backend_, s, whole, true, &columns, &out);
        const auto exact = world.ReferenceSums(s, columns.sums.columns(), false);
        ExpectWithin(columns.Sums(), exact.out, world.SumsBound(exact, s, false));
        const auto squares = world.ReferenceSums(s, columns.sums.columns(), true);
        ExpectWithin(columns.Squares(), squares.out, world.SumsBound(squares, s, true));
        EXPECT_TRUE(columns.GuardsIntact());
        world.AddSums(*backend_, s, whole, false, &alone, &out);
        ExpectWithin(alone.Sums(), exact.out, world.SumsBound(exact, s, false));
        for (const double x : alone.Squares().data) ASSERT_EQ(x, 0);
      }
    }
  }
}

TEST_P(ColumnSumsContractTest, TheWeightsOfEachRowSumToOne) {
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64}, {{130, 20, false, true}, {1, 9}}, 3100);
  for (size_t s = 0; s < world.sequences().size(); ++s) {
    const double rows = static_cast<double>(world.sequences()[s].rows);
    Columns columns = world.NoColumns();
    Guarded<Bf16> out = world.FreshOut();
    world.AddSums(*backend_, s, {0, world.sequences()[s].rows}, false, &columns, &out);
    const reference::Matrix sums = columns.Sums();
    for (int64_t h = 0; h < 6; ++h) {
      double sum = 0;
      for (int64_t i = 0; i < sums.columns; ++i) sum += sums(h, i);
      EXPECT_NEAR(sum, rows, 0x1p-9 * rows);
    }
  }
}

// What calls the rows came in, and how many threads there were, is in no bit of the sums, nor of what the
// rows attend to, which is the same as without them.
TEST_P(ColumnSumsContractTest, NoBitDependsOnTheCutOfRowsOrTheThreads) {
  RngSequence rng{Rng(3200)};
  AttentionWorld world({.heads = 9, .kv_heads = 3, .head_size = 64}, {{300, 20, true, true}, {9, 20}}, 3201);
  const Guarded<Bf16> without = world.Attend(*backend_);
  Guarded<Bf16> with = world.FreshOut();
  for (size_t s = 0; s < world.sequences().size(); ++s) {
    const int64_t rows = world.sequences()[s].rows;
    Columns together = world.NoColumns();
    world.AddSums(*backend_, s, {0, rows}, true, &together, &with);
    for (int trial = 0; trial < 6; ++trial) {
      auto other = MakeTestBackend(1 + 2 * (trial % 2));
      ASSERT_TRUE(other.ok());
      Columns parts = world.NoColumns();
      Guarded<Bf16> out = with;
      std::vector<int64_t> cuts = RandomCuts(rng, rows);
      if (trial == 4) cuts = {0, std::min<int64_t>(64, rows), rows};  // where a block ends
      world.AddSums(**other, s, cuts, true, &parts, &out);
      EXPECT_TRUE(parts.SameBits(together)) << "trial " << trial;
      EXPECT_TRUE(out.SameBits(with)) << "trial " << trial;
    }
  }
  EXPECT_TRUE(with.SameBits(without));
}

// Sums of a row are those of the row, whoever attends beside it and whether their columns are wanted.
TEST_P(ColumnSumsContractTest, RowsJoinWhatIsThere) {
  AttentionWorld world({.heads = 2, .kv_heads = 1, .head_size = 64}, {{20, 3}}, 3300);
  Columns once = world.NoColumns(), twice = world.NoColumns();
  Guarded<Bf16> out = world.FreshOut();
  world.AddSums(*backend_, 0, {0, 20}, false, &once, &out);
  world.AddSums(*backend_, 0, {0, 20}, false, &twice, &out);
  world.AddSums(*backend_, 0, {0, 20}, false, &twice, &out);
  const reference::Matrix one = once.Sums(), two = twice.Sums();
  for (size_t i = 0; i < one.data.size(); ++i)
    EXPECT_NEAR(two.data[i], 2 * one.data[i], 0x1p-18 * one.data[i]);
}

// Four tokens whose rows of attention are [1], [.5 .5], [.2 .3 .5], [.1 .2 .3 .4]: a key answers to three
// elements of the query, over which the logarithm of its weight is spread, so that bf16 holds it.
class FourTokens {
 public:
  FourTokens() : data_(static_cast<size_t>(TileElements(16))) {
    const double weights[4][4] = {{1}, {.5, .5}, {.2, .3, .5}, {.1, .2, .3, .4}};
    for (int64_t t = 0; t < 4; ++t) {
      positions_[static_cast<size_t>(t)] = static_cast<int32_t>(t);
      for (int64_t i = 0; i < 3; ++i) data_[static_cast<size_t>(reference::KeyIndex(t, 3 * t + i))] = 0x3f80;
      for (int64_t key = 0; key < 4; ++key) {
        double rest = key <= t ? 4 * std::log(weights[t][key]) : 40;  // what comes later would take it all
        for (int64_t i = 0; i < 3; ++i) {
          const float part = Bf16ToFloat(FloatToBf16(static_cast<float>(rest)));
          q_[static_cast<size_t>(t * 16 + 3 * key + i)] = part;
          rest -= static_cast<double>(part);
        }
      }
    }
  }

  // Of all four rows in one call: they stay in the open block.
  std::vector<float> Sums(Backend& backend, std::vector<float>* squares) {
    const RopeTable still(16, 0, 1e4, {}, 1);
    const int64_t at[] = {0, 1, 2, 3};
    const int32_t tile = 0;
    const std::span<const int32_t> tiles(&tile, 1);
    const TilePool pool{.data = data_.data(),
                        .tile_elements = TileElements(16),
                        .counts = &count_,
                        .starts = &start_,
                        .bases = &base_,
                        .positions = positions_.data()};
    std::vector<Bf16> out(64);
    std::vector<float> sums(64), none(64);
    squares->assign(64, 0.0f);
    const ColumnSums columns{.sums = none.data(),
                             .open = sums.data(),
                             .squares = none.data(),
                             .open_squares = squares->data(),
                             .stride = 64,
                             .rows = 0};
    const AttentionSequence sequence{
        .first_row = 0, .rows = 4, .positions = at, .tiles = &tiles, .sums = &columns};
    backend.Attention({.q = {q_.data(), 4, 16, 16},
                       .out = {out.data(), 4, 16, 16},
                       .heads = 1,
                       .kv_heads = 1,
                       .head_size = 16,
                       .rope = &still,
                       .pool = pool,
                       .sequences = std::span(&sequence, 1)});
    return sums;
  }

 private:
  std::vector<Bf16> data_;
  std::vector<int32_t> positions_ = std::vector<int32_t>(64);
  std::vector<float> q_ = std::vector<float>(64);
  int32_t count_ = 4, start_ = 0, base_ = 0;
};

// Without the causal mask the first sum would be under .3.
TEST_P(ColumnSumsContractTest, SumsOfTheGoldenExample) {
  std::vector<float> squares;
  const std::vector<float> sums = FourTokens().Sums(*backend_, &squares);
  const double want[] = {1.8, 1.0, 0.8, 0.4}, want_squares[] = {1.30, 0.38, 0.34, 0.16};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(sums[i], want[i], 0x1p-8 * want[i]);  // a weight may round to bf16
    EXPECT_NEAR(squares[i], want_squares[i], 0x1p-7 * want_squares[i]);
  }
  for (size_t i = 4; i < 64; ++i) EXPECT_EQ(sums[i] + squares[i], 0.0f);
}

}  // namespace
}  // namespace palimpsest
