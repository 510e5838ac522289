// The contract of what compression asks of a backend: scores of keys, losses of tokens, and of the two ways a
// tile can be other than full and in its place: shifted, and with dropped slots. GatherKv:
// gather_contract_test.cc.
#include <cmath>
#include <limits>

#include "tests/kernels/attention_world.h"

namespace palimpsest {
namespace {

class CompressionContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(CompressionContractTest);

TEST_P(CompressionContractTest, ScoresMatchTheReferenceForEveryHeadShape) {
  uint64_t seed = 2000;
  for (const int64_t head_size : {16, 64, 80, 128}) {
    for (const int64_t group : {1, 2, 3, 8}) {
      const int64_t kv_heads = 1 + static_cast<int64_t>(seed % 3);
      AttentionWorld world({.heads = group * kv_heads, .kv_heads = kv_heads, .head_size = head_size},
                           {{1, 11}, {4, 3}, {32, 20, true, true}, {13, 4, false, true}}, seed++);
      for (size_t s = 0; s < world.sequences().size(); ++s) {
        for (const RowReduce reduce : {RowReduce::kSum, RowReduce::kMax}) {
          SCOPED_TRACE(::testing::Message()
                       << "head size " << head_size << ", group " << group << ", sequence " << s
                       << ", reduce " << static_cast<int>(reduce) << ", seed " << seed - 1);
          const std::vector<Guarded<float>> out = world.Score(*backend_, s, reduce);
          const std::vector<reference::ScoreResult> exact = world.ReferenceScores(s, reduce);
          for (size_t h = 0; h < out.size(); ++h) {
            ExpectWithin(out[h], exact[h].out, world.Bound(exact[h], s));
            EXPECT_TRUE(out[h].GuardsIntact());
          }
        }
      }
    }
  }
}

// Each query's weights sum to 1, so those of R rows sum to R, and what no row sees has exactly none.
TEST_P(CompressionContractTest, TheWeightsOfARowSumToOne) {
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64}, {{32, 20, false, true}, {1, 9}, {7, 9}},
                       2100);
  for (size_t s = 0; s < world.sequences().size(); ++s) {
    const double rows = static_cast<double>(world.sequences()[s].rows);
    for (const Guarded<float>& out : world.Score(*backend_, s, RowReduce::kSum)) {
      for (int64_t g = 0; g < out.rows(); ++g) {
        double sum = 0;
        for (int64_t i = 0; i < out.columns(); ++i) sum += out.Value(g, i);
        EXPECT_NEAR(sum, rows, rows * 1e-4);
      }
    }
  }
}

TEST_P(CompressionContractTest, ScoresDoNotDependOnTheNumberOfThreads) {
  AttentionWorld world({.heads = 9, .kv_heads = 3, .head_size = 64}, {{32, 20, true, true}}, 2200);
  const std::vector<Guarded<float>> want = world.Score(*backend_, 0, RowReduce::kSum);
  for (const int threads : {1, 3}) {
    auto made = MakeTestBackend(threads);
    ASSERT_TRUE(made.ok());
    const std::vector<Guarded<float>> got = world.Score(**made, 0, RowReduce::kSum);
    for (size_t h = 0; h < want.size(); ++h) EXPECT_TRUE(got[h].SameBits(want[h])) << threads << " threads";
  }
}

TEST_P(CompressionContractTest, AttentionOverDroppedSlotsMatchesTheReference) {
  for (uint64_t seed = 2300; seed < 2310; ++seed) {
    SCOPED_TRACE(seed);
    AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64},
                         {{1, 20, false, true}, {3, 9, true, true}, {40, 20, true, true}}, seed);
    const Guarded<Bf16> out = world.Attend(*backend_);
    const reference::AttentionResult exact = world.Reference();
    ExpectWithin(out, exact.out, world.Bound(exact));
  }
}

TEST_P(CompressionContractTest, AttentionOverShiftedTilesMatchesTheReference) {
  for (uint64_t seed = 2400; seed < 2410; ++seed) {
    SCOPED_TRACE(seed);
    AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64},
                         {{1, 20, false, true, true}, {3, 9, true, false, true}, {40, 20, false, true, true}},
                         seed);
    const Guarded<Bf16> out = world.Attend(*backend_);
    const reference::AttentionResult exact = world.Reference();
    ExpectWithin(out, exact.out, world.Bound(exact));
  }
}

TEST_P(CompressionContractTest, AShiftedTileIsOneThatStandsThereBitForBit) {
  for (uint64_t seed = 2500; seed < 2510; ++seed) {
    AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64},
                         {{1, 20, false, true, true}, {3, 9, true, false, true}, {40, 20, false, true, true}},
                         seed);
    const Guarded<Bf16> shifted = world.Attend(*backend_);
    world.Replace();
    EXPECT_TRUE(world.Attend(*backend_).SameBits(shifted)) << "seed " << seed;
  }
}

// Rows in any cut meet shifted and dropped tiles alike.
TEST_P(CompressionContractTest, ShiftsAndDroppedSlotsDoNotDependOnTheCutOfRows) {
  RngSequence rng{Rng(2600)};
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64},
                       {{40, 20, false, true, true}, {9, 20, true, true, true}}, 2601);
  const Guarded<Bf16> together = world.Attend(*backend_);
  for (int trial = 0; trial < 6; ++trial) {
    Guarded<Bf16> parts = world.FreshOut();
    for (size_t s = 0; s < world.sequences().size(); ++s) {
      world.AttendPart(*backend_, s, RandomCuts(rng, world.sequences()[s].rows), &parts);
    }
    EXPECT_TRUE(parts.SameBits(together));
  }
}

// One tile of head size 16 whose queries and keys do not turn. A number of more than 8 bits is spread over
// three elements, each of which the query meets with the same factor.
class OneTile {
 public:
  explicit OneTile(const std::vector<double>& keys) : data_(static_cast<size_t>(TileElements(16))) {
    count_ = static_cast<int32_t>(keys.size());
    for (int32_t s = 0; s < count_; ++s) {
      positions_[static_cast<size_t>(s)] = s;
      double rest = keys[static_cast<size_t>(s)];
      for (int64_t i = 0; i < 3; ++i) {
        Key(s, i) = FloatToBf16(static_cast<float>(rest));
        rest -= static_cast<double>(Bf16ToFloat(Key(s, i)));
      }
    }
  }
  Bf16& Key(int64_t slot, int64_t i) { return data_[static_cast<size_t>(reference::KeyIndex(slot, i))]; }
  // Rows stand at `at` and have q times sqrt(D) in each of the three elements.
  std::vector<float> Score(Backend& backend, const std::vector<int64_t>& at, const std::vector<float>& q,
                           RowReduce reduce = RowReduce::kSum) {
    const RopeTable still(16, 0, 1e4, {}, 1);
    std::vector<float> rows(q.size() * 16), out(64, -1.0f);
    for (size_t t = 0; t < q.size(); ++t)
      std::fill_n(rows.begin() + static_cast<int64_t>(t) * 16, 3, 4 * q[t]);
    const int32_t tile = 0;
    const ScoreHead head{.q = {rows.data(), static_cast<int64_t>(q.size()), 16, 16},
                         .tiles = std::span(&tile, 1),
                         .out = out.data()};
    backend.ScoreKeys({.positions = at,
                       .group = 1,
                       .head_size = 16,
                       .reduce = reduce,
                       .rope = &still,
                       .pool = {.data = data_.data(),
                                .tile_elements = TileElements(16),
                                .counts = &count_,
                                .starts = &start_,
                                .bases = &base_,
                                .positions = positions_.data()},
                       .heads = std::span(&head, 1)});
    return out;
  }

 private:
  std::vector<Bf16> data_;
  std::vector<int32_t> positions_ = std::vector<int32_t>(64);
  int32_t count_ = 0, start_ = 0, base_ = 0;
};

// The window of two rows of the golden example: e^(qk) = [1,2,1,4,1,masked]/9 and [1,4,1,16,1,9]/32. Without
// the causal mask the first vote would be 0.114583, over the prefix alone 0.170455.
TEST_P(CompressionContractTest, VotesOfTheGoldenExample) {
  OneTile tile({0, std::log(2.0), 0, std::log(4.0), 0, std::log(3.0)});
  const std::vector<float> sums = tile.Score(*backend_, {4, 5}, {1, 2});
  const double want[] = {41.0 / 288, 25.0 / 72, 41.0 / 288, 17.0 / 18, 41.0 / 288, 9.0 / 32};
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(sums[i], want[i], 1e-6) << "slot " << i;
  for (size_t i = 6; i < 64; ++i) EXPECT_EQ(sums[i], 0.0f) << "slot " << i;
  const std::vector<float> largest = tile.Score(*backend_, {4, 5}, {1, 2}, RowReduce::kMax);
  const double want_largest[] = {1.0 / 9, 2.0 / 9, 1.0 / 9, 1.0 / 2, 1.0 / 9, 9.0 / 32};
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(largest[i], want_largest[i], 1e-6) << "slot " << i;
}

// In any slot, beside scores that would overflow if their maximum were lost.
TEST_P(CompressionContractTest, AKeyThatIsNotANumberIsUnseenAndHarmsNoOther) {
  const std::vector<double> keys(64, 200);
  for (int64_t slot = 0; slot < 64; ++slot) {
    OneTile tile(keys);
    tile.Key(slot, 5) = 0x7fc0;
    tile.Key((slot + 1) % 64, 0) = 0xff80;  // minus infinity: no weight either
    const std::vector<float> sums = tile.Score(*backend_, {63}, {1});
    for (int64_t i = 0; i < 64; ++i) {
      const bool seen = i != slot && i != (slot + 1) % 64;
      EXPECT_NEAR(sums[static_cast<size_t>(i)], seen ? 1.0 / 62 : 0.0, 1e-6)
          << "slot " << i << " of " << slot;
    }
  }
}

TEST_P(CompressionContractTest, ScoresAreFiniteWhateverTheKeysAndQueries) {
  const float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::nanf("");
  OneTile tile({0, 1, 2, 3, 4, 5});
  tile.Key(2, 0) = 0x7f80;
  tile.Key(3, 1) = 0x7f7f;
  for (const float q : {1.0f, -1.0f, 3e38f, kInfinity, -kInfinity, kNan}) {
    for (const float weight : tile.Score(*backend_, {5, 5}, {q, 1.0f})) {
      EXPECT_TRUE(weight >= 0 && weight < 2.01f) << weight << " of query " << q;
    }
  }
}

TEST_P(CompressionContractTest, RowsThatSeeNothingGiveNoWeight) {
  OneTile tile({0, 1, 2});
  for (const float weight : tile.Score(*backend_, {-1}, {1})) EXPECT_EQ(weight, 0.0f);
  for (const float weight : tile.Score(*backend_, {}, {})) EXPECT_EQ(weight, 0.0f);
  const RopeTable rope(16, 16, 1e4, {}, 1);
  backend_->ScoreKeys({.positions = {}, .group = 1, .head_size = 16, .rope = &rope, .pool = {}, .heads = {}});
  backend_->TokenLosses({.logits = {}, .targets = {}, .out = {}});
}

// Logits [0, ln 2, ln 5] give p = 1/8, 2/8, 5/8.
TEST_P(CompressionContractTest, LossesOfTheGoldenExample) {
  for (const int64_t vocabulary : {3, 64, 65, 200}) {
    Guarded<float> logits(2, vocabulary, 3);
    for (int64_t t = 0; t < 2; ++t) {
      for (int64_t i = 0; i < vocabulary; ++i) logits(t, i) = -std::numeric_limits<float>::infinity();
      logits(t, 0) = 0;
      logits(t, 1) = std::log(2.0f);
      logits(t, 2) = std::log(5.0f);
    }
    const std::vector<int32_t> targets = {1, 2};
    std::vector<float> out(2);
    backend_->TokenLosses({.logits = logits.AllConst(), .targets = targets, .out = out});
    EXPECT_NEAR(out[0], 1.386294, 1e-6);
    EXPECT_NEAR(out[1], 0.470004, 1e-6);
  }
}

// A term errs by 2^-24 of the distance to the largest (that is at most 2 * scale, and weighs less the further
// it is: x e^-x < 1), by 2^-22 in exp2; n/64 + 10 additions of positive numbers; the log takes relative
// errors as they are; the result rounds.
TEST_P(CompressionContractTest, LossesMatchTheReference) {
  RngSequence rng{Rng(2700)};
  for (const int64_t vocabulary : {1, 7, 16, 63, 64, 130, 1000, 49152}) {
    for (const double scale : {1e-3, 5.0, 60.0, 1e4}) {
      const int64_t rows = vocabulary > 2000 ? 3 : 20;
      Guarded<float> logits(rows, vocabulary, 5);
      std::vector<int32_t> targets;
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t i = 0; i < vocabulary; ++i) logits(t, i) = RandomFloat(rng, scale);
        targets.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocabulary))));
      }
      std::vector<float> out(static_cast<size_t>(rows));
      backend_->TokenLosses({.logits = logits.AllConst(), .targets = targets, .out = out});
      for (int64_t t = 0; t < rows; ++t) {
        const size_t at = static_cast<size_t>(t);
        const double want =
            reference::TokenLoss({logits.AllConst().row(t), static_cast<size_t>(vocabulary)}, targets[at]);
        const double steps = static_cast<double>(vocabulary) / 64 + 20;
        EXPECT_NEAR(out[at], want, steps * 0x1p-24 + 0x1p-22 + 0x1p-24 * std::abs(want))
            << vocabulary << " logits of scale " << scale;
      }
    }
  }
}

}  // namespace
}  // namespace palimpsest
