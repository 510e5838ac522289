// What policies are told: keys and values out of tiles, moments of queries, norms of outputs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "storage/tile_arena.h"
#include "tests/kernels/backend_fixture.h"
#include "worker/compression/output_norms.h"
#include "worker/compression/slots.h"
#include "worker/model/query_moments.h"

namespace palimpsest {
namespace {

class PolicyInputsTest : public BackendTest {};

// Tokens in tiles of uneven counts and bases, as packing leaves them.
TEST_P(PolicyInputsTest, KeysAndValuesAreThoseThatWerePacked) {
  for (const int64_t size : {16, 64, 80, 128}) {
    const RopeTable rope(size, size, 10000, {}, 50);
    TileArena arena(8 * TileArena::TileBytes(size), size);
    std::vector<int32_t> tiles(3);
    ASSERT_TRUE(arena.Allocate(tiles).ok());
    const int64_t count = 64 + 64 + 9;
    RngSequence rng{Rng(7)};
    std::vector<Bf16> rest;
    for (int64_t i = 0; i < count * 2 * size; ++i) rest.push_back(FloatToBf16(RandomFloat(rng, 2)));
    std::vector<KvSource> sources;
    std::vector<int32_t> positions;
    for (int64_t i = 0; i < count; ++i) {
      sources.push_back({.key = rest.data() + i * 2 * size, .value = rest.data() + (i * 2 + 1) * size});
      positions.push_back(static_cast<int32_t>(3 * i + 5));
    }
    for (const int32_t tile : tiles) arena.pool().bases[tile] = -2;
    const GatherHead head{.sources = sources, .positions = positions, .tiles = tiles};
    backend_->GatherKv({.head_size = size, .rope = &rope, .pool = arena.pool(), .heads = {&head, 1}});
    for (const int64_t skip : {int64_t{0}, int64_t{1}, int64_t{70}}) {
      const HeadSlots slots{
          .pool = arena.pool(), .tiles = tiles, .skip = skip, .count = count - skip, .head_size = size};
      std::vector<float> keys(static_cast<size_t>(slots.count * size)), back(keys.size()),
          values(keys.size());
      ReadKeys(slots, keys.data());
      ReadKeysAtRest(slots, rope, back.data());
      ReadValues(slots, values.data());
      for (int64_t i = 0; i < slots.count; ++i) {
        const KvSource& source = sources[static_cast<size_t>(skip + i)];
        for (int64_t d = 0; d < size; d += 2) {
          const double angle = static_cast<double>(positions[static_cast<size_t>(skip + i)] + 2) *
                               std::pow(10000.0, -static_cast<double>(d) / static_cast<double>(size));
          const double x = static_cast<double>(Bf16ToFloat(source.key[d]));
          const double y = static_cast<double>(Bf16ToFloat(source.key[d + 1]));
          const float* const key = keys.data() + i * size + d;
          // One rounding to bf16 of numbers of up to 2 sqrt(2).
          ASSERT_NEAR(key[0], x * std::cos(angle) - y * std::sin(angle), 0x1p-7);
          ASSERT_NEAR(key[1], x * std::sin(angle) + y * std::cos(angle), 0x1p-7);
          ASSERT_NEAR(back[static_cast<size_t>(i * size + d)], x, 0x1.8p-7);
          ASSERT_NEAR(back[static_cast<size_t>(i * size + d + 1)], y, 0x1.8p-7);
          ASSERT_EQ(values[static_cast<size_t>(i * size + d)], Bf16ToFloat(source.value[d]));
          ASSERT_EQ(values[static_cast<size_t>(i * size + d + 1)], Bf16ToFloat(source.value[d + 1]));
        }
      }
    }
  }
}

TEST_P(PolicyInputsTest, OutputNormsAreThoseOfEachQueryHeadsColumns) {
  constexpr int64_t kHeads = 6, kGroup = 3;
  for (const int64_t size : {16, 64}) {
    const int64_t inputs = kHeads * size, hidden = 100;
    RngSequence rng{Rng(9)};
    std::vector<float> matrix = RandomFloats(rng, hidden * inputs, 1);
    for (float& x : matrix) x = Bf16ToFloat(FloatToBf16(x));
    for (const WeightFormat format : Formats(inputs)) {
      const PackedWeights packed = backend_->Pack(hidden, inputs, format, [&](int64_t row, float* out) {
        std::copy_n(matrix.data() + row * inputs, inputs, out);
      });
      for (const int64_t tokens : {1, 3, 300}) {
        std::vector<float> values = RandomFloats(rng, tokens * size, 1);
        for (float& x : values) x = Bf16ToFloat(FloatToBf16(x));
        OutputNorms norms(backend_.get(), size, kGroup);
        std::vector<float> of(static_cast<size_t>(tokens)), last(1);
        for (int64_t kv_head = 0; kv_head < kHeads / kGroup; ++kv_head) {
          norms.Of(packed, kv_head, values.data(), of);
          for (int64_t t = 0; t < tokens; ++t) {
            double exact = 0;
            for (int64_t g = 0; g < kGroup; ++g) {
              for (int64_t row = 0; row < hidden; ++row) {
                double sum = 0;
                for (int64_t d = 0; d < size; ++d) {
                  sum += static_cast<double>(
                             matrix[static_cast<size_t>(row * inputs + (kv_head * kGroup + g) * size + d)]) *
                         static_cast<double>(values[static_cast<size_t>(t * size + d)]);
                }
                exact += std::abs(sum) / kGroup;
              }
            }
            // int8 rounds each factor to 1/254 of its group's largest; errors of a hundred rows even out.
            const double bound = format == WeightFormat::kInt8 ? 0.01 : 1e-5;
            ASSERT_NEAR(of[static_cast<size_t>(t)], exact, bound * exact) << size << " token " << t;
          }
          norms.Of(packed, kv_head, values.data() + (tokens - 1) * size, last);
          EXPECT_EQ(last[0], of.back()) << "a row's bits do not depend on those beside it";
        }
      }
    }
  }
}

PALIMPSEST_OVER_ALL_ISAS(PolicyInputsTest);

TEST(MeanTurnTest, IsTheMeanOfTheRotations) {
  const RopeTable rope(16, 16, 10000, {}, 10);  // most rows are computed
  std::vector<float> turn(16);
  MeanTurn(rope, 7, 40, turn);
  for (int64_t d = 0; d < 16; d += 2) {
    double cosine = 0, sine = 0;
    for (int64_t position = 7; position < 47; ++position) {
      const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(d) / 16);
      cosine += std::cos(angle) / 40;
      sine += std::sin(angle) / 40;
    }
    EXPECT_NEAR(turn[static_cast<size_t>(d)], cosine, 1e-6);
    EXPECT_NEAR(turn[static_cast<size_t>(d) + 1], sine, 1e-6);
  }
}

class QueryMomentsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kLayers = 2, kHeads = 3, kSize = 16, kTokens = 137, kFirst = 9;
  // Queries with a mean far from zero: a sum of squares in float32 would lose the spread.
  QueryMomentsTest() {
    RngSequence rng{Rng(5)};
    for (int64_t i = 0; i < kLayers * kTokens * kHeads * kSize; ++i)
      queries_.push_back(100 + RandomFloat(rng, 0.5));
  }
  QueryMoments Sum(int64_t chunk, int threads) {
    ThreadPool pool({.threads = threads, .pin = false, .spin_us = 20});
    QueryMoments moments;
    moments.Begin(kLayers, kHeads, kSize, kFirst);
    for (int64_t first = 0; first < kTokens; first += chunk) {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        const float* const q = queries_.data() + (layer * kTokens + first) * kHeads * kSize;
        moments.Take(pool, layer, first,
                     {q, std::min(chunk, kTokens - first), kHeads * kSize, kHeads * kSize});
      }
    }
    return moments;
  }
  std::vector<float> queries_;  // (layers, tokens, heads * size)
};

TEST_F(QueryMomentsTest, MeanAndCovarianceAreTheirDefinition) {
  const QueryMoments moments = Sum(50, 1);
  EXPECT_EQ(moments.count(), kTokens - kFirst);
  const auto q = [&](int64_t layer, int64_t token, int64_t head, int64_t d) {
    return static_cast<double>(
        queries_[static_cast<size_t>(((layer * kTokens + token) * kHeads + head) * kSize + d)]);
  };
  const double n = kTokens - kFirst;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (int64_t head = 0; head < kHeads; ++head) {
      std::vector<float> mean(kSize), covariance(kSize * kSize);
      moments.Mean(layer, head, mean);
      moments.Covariance(layer, head, covariance);
      std::vector<double> exact(kSize, 0.0);
      for (int64_t d = 0; d < kSize; ++d) {
        for (int64_t t = kFirst; t < kTokens; ++t) exact[static_cast<size_t>(d)] += q(layer, t, head, d) / n;
        ASSERT_NEAR(mean[static_cast<size_t>(d)], exact[static_cast<size_t>(d)], 1e-5);
      }
      for (int64_t i = 0; i < kSize; ++i) {
        for (int64_t j = 0; j < kSize; ++j) {
          double sum = 0;
          for (int64_t t = kFirst; t < kTokens; ++t) {
            sum += (q(layer, t, head, i) - exact[static_cast<size_t>(i)]) *
                   (q(layer, t, head, j) - exact[static_cast<size_t>(j)]);
          }
          ASSERT_NEAR(covariance[static_cast<size_t>(i * kSize + j)], sum / n, 1e-7);
        }
      }
    }
  }
}

TEST_F(QueryMomentsTest, NeitherTheCutNorTheThreadsMakeADifference) {
  const QueryMoments whole = Sum(kTokens, 1);
  for (const int64_t chunk : {1, 7, 8, 64, 100}) {
    const QueryMoments cut = Sum(chunk, 3);
    for (int64_t head = 0; head < kHeads; ++head) {
      std::vector<float> a(kSize * kSize), b(kSize * kSize);
      whole.Covariance(1, head, a);
      cut.Covariance(1, head, b);
      EXPECT_EQ(a, b) << chunk;
    }
  }
}

TEST_F(QueryMomentsTest, NoTokensAreNoSpread) {
  ThreadPool pool({.threads = 1, .pin = false, .spin_us = 20});
  QueryMoments moments;
  moments.Begin(1, kHeads, kSize, 1000);
  moments.Take(pool, 0, 0, {queries_.data(), kTokens, kHeads * kSize, kHeads * kSize});
  std::vector<float> covariance(kSize * kSize, 1);
  moments.Covariance(0, 2, covariance);
  EXPECT_EQ(moments.count(), 0);
  EXPECT_EQ(covariance, std::vector<float>(kSize * kSize, 0));
}

}  // namespace
}  // namespace palimpsest
