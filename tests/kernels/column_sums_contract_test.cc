// The contract of AddColumnSums, and of the normalisers that Attention leaves for it.
#include <cmath>
#include <limits>

#include "tests/kernels/attention_world.h"

namespace palimpsest {
namespace {

class ColumnSumsContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(ColumnSumsContractTest);

constexpr int64_t kPad = 3;

// Sums that begin at nothing.
Guarded<float> Zeros(AttentionWorld& world, int64_t heads) {
  Guarded<float> sums(heads, world.most_tiles() * kTileSlots, kPad);
  for (int64_t h = 0; h < heads; ++h) std::fill_n(&sums(h, 0), sums.columns(), 0.0f);
  return sums;
}

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
        Guarded<float> sums = Zeros(world, heads), squares = Zeros(world, heads), alone = Zeros(world, heads);
        const std::vector<int64_t> whole = {0, world.sequences()[s].rows};
        world.AddSums(*backend_, s, whole, &sums, &squares);
        const auto exact = world.ReferenceSums(s, sums.columns(), false);
        ExpectWithin(sums, exact.out, world.SumsBound(exact, s, false));
        const auto exact_squares = world.ReferenceSums(s, sums.columns(), true);
        ExpectWithin(squares, exact_squares.out, world.SumsBound(exact_squares, s, true));
        EXPECT_TRUE(sums.GuardsIntact() && squares.GuardsIntact());
        world.AddSums(*backend_, s, whole, &alone, nullptr);
        ExpectWithin(alone, exact.out, world.SumsBound(exact, s, false));
      }
    }
  }
}

TEST_P(ColumnSumsContractTest, TheWeightsOfEachRowSumToOne) {
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64}, {{130, 20, false, true}, {1, 9}}, 3100);
  for (size_t s = 0; s < world.sequences().size(); ++s) {
    const int64_t rows = world.sequences()[s].rows;
    Guarded<float> sums = Zeros(world, 6);
    world.AddSums(*backend_, s, {0, rows}, &sums, nullptr);
    for (int64_t h = 0; h < 6; ++h) {
      double sum = 0;
      for (int64_t i = 0; i < sums.columns(); ++i) sum += sums.Value(h, i);
      EXPECT_NEAR(sum, static_cast<double>(rows), 1e-4 * static_cast<double>(rows));
    }
  }
}

// What steps the rows came in, and how many threads there were, is in no bit.
TEST_P(ColumnSumsContractTest, SumsDoNotDependOnTheCutOfRowsOrTheThreads) {
  RngSequence rng{Rng(3200)};
  AttentionWorld world({.heads = 9, .kv_heads = 3, .head_size = 64}, {{300, 20, true, true}, {9, 20}}, 3201);
  for (size_t s = 0; s < world.sequences().size(); ++s) {
    const int64_t rows = world.sequences()[s].rows;
    Guarded<float> together = Zeros(world, 9), squares = Zeros(world, 9);
    world.AddSums(*backend_, s, {0, rows}, &together, &squares);
    for (int trial = 0; trial < 4; ++trial) {
      auto other = MakeTestBackend(1 + 2 * (trial % 2));
      ASSERT_TRUE(other.ok());
      Guarded<float> parts = Zeros(world, 9), square_parts = Zeros(world, 9);
      world.AddSums(**other, s, RandomCuts(rng, rows), &parts, &square_parts);
      EXPECT_TRUE(parts.SameBits(together) && square_parts.SameBits(squares)) << "trial " << trial;
    }
  }
}

TEST_P(ColumnSumsContractTest, RowsJoinWhatIsThere) {
  AttentionWorld world({.heads = 2, .kv_heads = 1, .head_size = 64}, {{20, 3}}, 3300);
  Guarded<float> once = Zeros(world, 2), twice = Zeros(world, 2);
  world.AddSums(*backend_, 0, {0, 20}, &once, nullptr);
  world.AddSums(*backend_, 0, {0, 20}, &twice, nullptr);
  world.AddSums(*backend_, 0, {0, 20}, &twice, nullptr);
  for (int64_t i = 0; i < once.columns(); ++i) {
    EXPECT_NEAR(twice.Value(0, i), 2 * once.Value(0, i), 20 * 0x1p-23 * once.Value(0, i));
  }
}

// Attention's own result is the same whether its normalisers are wanted or not.
TEST_P(ColumnSumsContractTest, NormalisersChangeNoBitOfAttention) {
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64}, {{3, 20}, {100, 20, true}}, 3400);
  const Guarded<Bf16> without = world.Attend(*backend_);
  EXPECT_TRUE(world.AttendWithNormalisers(*backend_).SameBits(without));
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
    const AttentionSequence sequence{.first_row = 0, .rows = 4, .positions = at, .tiles = &tiles};
    std::vector<Bf16> out(64);
    std::vector<float> tops(4), inverses(4), sums(64);
    squares->assign(64, 0.0f);
    const Rows<const float> q{q_.data(), 4, 16, 16};
    backend.Attention({.q = q,
                       .out = {out.data(), 4, 16, 16},
                       .heads = 1,
                       .kv_heads = 1,
                       .head_size = 16,
                       .rope = &still,
                       .pool = pool,
                       .sequences = std::span(&sequence, 1),
                       .tops = tops.data(),
                       .inverses = inverses.data()});
    backend.AddColumnSums({.q = q,
                           .tops = tops.data(),
                           .inverses = inverses.data(),
                           .heads = 1,
                           .kv_heads = 1,
                           .head_size = 16,
                           .rope = &still,
                           .pool = pool,
                           .sequence = &sequence,
                           .sums = sums.data(),
                           .squares = squares->data(),
                           .stride = 64});
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
    EXPECT_NEAR(sums[i], want[i], 1e-5);
    EXPECT_NEAR(squares[i], want_squares[i], 1e-5);
  }
  for (size_t i = 4; i < 64; ++i) EXPECT_EQ(sums[i] + squares[i], 0.0f);
}

}  // namespace
}  // namespace palimpsest
