// The contract of the Backend seam, operation by operation, over every dispatch path: each result within a
// bound that is derived where it is used. Attention and its tiles: attention_contract_test.cc.
#include <gmock/gmock.h>

#include <cmath>

#include "kernels/backend.h"
#include "tests/kernels/product.h"

namespace palimpsest {
namespace {

using reference::Matrix;
using ::testing::HasSubstr;

class BackendContractTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(BackendContractTest);

TEST(MakeBackendTest, AutoTakesTheBestPathOfThisMachine) {
  auto backend = MakeBackend({.isa = "auto", .threads = {.threads = 1, .pin = false}});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ((*backend)->name(), "cpu-" + AvailableIsas().front());
}

TEST(MakeBackendTest, EveryMachineCanRunThePortablePath) { EXPECT_EQ(AvailableIsas().back(), "portable"); }

TEST(MakeBackendTest, AnUnknownPathIsAnErrorThatNamesTheChoices) {
  const auto backend = MakeBackend({.isa = "neon", .threads = {}});
  ASSERT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(backend.status()), HasSubstr("neon"));
  EXPECT_THAT(Message(backend.status()), HasSubstr("portable"));
}

TEST_P(BackendContractTest, IsNamedAfterItsPath) {
  EXPECT_EQ(backend_->name(), "cpu-" + GetParam());
  EXPECT_EQ(backend_->pool().threads(), 2);
  EXPECT_TRUE(backend_->Supports(WeightFormat::kBf16));
}

struct Shape {
  int64_t rows, n, k;
};

TEST_P(BackendContractTest, MatMulMatchesTheReference) {
  std::vector<Shape> shapes = {{1, 1, 64},      {1, 576, 1536}, {3, 63, 66},    {5, 65, 192},
                               {8, 192, 576},   {9, 100, 2},    {12, 320, 130}, {20, 1, 1536},
                               {127, 100, 576}, {200, 200, 64}, {131, 64, 1536}};
  for (int64_t rows = 1; rows <= 20; ++rows) shapes.push_back({rows, 65 + 7 * rows, 64});
  RngSequence rng{Rng(1)};
  for (const Shape& shape : shapes) {
    for (const WeightFormat format : Formats(shape.k)) {
      SCOPED_TRACE(::testing::Message() << shape.rows << " rows, n " << shape.n << ", k " << shape.k
                                        << ", format " << static_cast<int>(format));
      const Product product(rng, shape.rows, shape.n, shape.k);
      const PackedWeights weights = product.Pack(*backend_, format);
      for (const MatMulOutput output : {MatMulOutput::kStore, MatMulOutput::kAdd}) {
        product.CheckAgainstReference(product.Run(*backend_, weights, output), format, output);
      }
    }
  }
}

TEST_P(BackendContractTest, SiluGateMatchesTheReference) {
  std::vector<Shape> shapes = {{1, 32, 64}, {2, 96, 66}, {7, 3072, 64}, {127, 160, 192}, {200, 96, 64}};
  for (int64_t rows = 1; rows <= 20; ++rows) shapes.push_back({rows, 32 * (1 + rows % 5), 64});
  RngSequence rng{Rng(2)};
  for (const Shape& shape : shapes) {
    for (const WeightFormat format : Formats(shape.k)) {
      SCOPED_TRACE(::testing::Message() << shape.rows << " rows, n " << shape.n << ", k " << shape.k
                                        << ", format " << static_cast<int>(format));
      const Product product(rng, shape.rows, shape.n, shape.k);
      const PackedWeights weights = product.Pack(*backend_, format);
      product.CheckAgainstReference(product.Run(*backend_, weights, MatMulOutput::kSiluGate), format,
                                    MatMulOutput::kSiluGate);
    }
  }
}

// Integers up to 8 and one of 127 in each group of 64, times 1/2, 1 or 2: int8 scales are powers of two, and
// a sum is a multiple of 1/4 below 24 groups * 4 * (63 * 64 + 127 * 127) < 2^21. No rounding anywhere:
// exactly the reference.
TEST_P(BackendContractTest, SumsOfSmallIntegersAreExact) {
  constexpr int64_t kRows = 21, kN = 130, kK = 1536;
  RngSequence rng{Rng(3)};
  const auto fill_row = [&](auto store) {
    for (int64_t i = 0; i < kK; i += 64) {
      const double scale = std::ldexp(1.0, static_cast<int>(rng.Below(3)) - 1);
      for (int64_t j = 0; j < 64; ++j) {
        store(i + j, static_cast<float>((static_cast<double>(rng.Below(17)) - 8.0) * scale));
      }
      store(i, static_cast<float>((rng.Below(2) == 0 ? -127.0 : 127.0) * scale));
    }
  };
  Guarded<Bf16> a(kRows, kK, 2);
  std::vector<float> w(kN * kK);
  for (int64_t t = 0; t < kRows; ++t) fill_row([&](int64_t i, float x) { a(t, i) = FloatToBf16(x); });
  for (int64_t j = 0; j < kN; ++j)
    fill_row([&](int64_t i, float x) { w[static_cast<size_t>(j * kK + i)] = x; });
  const Matrix want = reference::MatMul(a.Values(), ToMatrix(w, kN));
  for (const WeightFormat format : Formats(kK)) {
    const PackedWeights weights = backend_->Pack(
        kN, kK, format, [&](int64_t row, float* out) { std::copy_n(w.data() + row * kK, kK, out); });
    for (const int64_t rows : {int64_t{1}, int64_t{8}, kRows}) {
      Guarded<float> out(kRows, kN, 1);
      backend_->MatMul(
          {.a = a.PartConst(0, rows), .weights = &weights, .out = out.Part(0, rows), .gated = {}});
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t j = 0; j < kN; ++j) ASSERT_EQ(out.Value(t, j), want(t, j)) << t << " " << j;
      }
    }
  }
}

// Through weights that pick the gate from the first input and the value from the second: every finite bf16
// number as a gate, so also where exp overflows or vanishes.
TEST_P(BackendContractTest, SiluIsAccurateForEveryFiniteGate) {
  constexpr int64_t kRows = 65536;
  Guarded<Bf16> a(kRows, 2, 2);
  RngSequence rng{Rng(4)};
  for (int64_t t = 0; t < kRows; ++t) {
    const bool finite = (t & 0x7f80) != 0x7f80, normal = (t & 0x7f80) != 0;
    a(t, 0) = finite && normal ? static_cast<Bf16>(t) : Bf16{0};
    a(t, 1) = FloatToBf16(RandomFloat(rng, 2.0));
  }
  const PackedWeights weights = backend_->Pack(32, 2, WeightFormat::kBf16, [](int64_t row, float* out) {
    out[0] = row < 16 ? 1.0f : 0.0f;
    out[1] = row < 16 ? 0.0f : 1.0f;
  });
  Guarded<Bf16> gated(kRows, 16, 1);
  backend_->MatMul({.a = a.AllConst(),
                    .weights = &weights,
                    .output = MatMulOutput::kSiluGate,
                    .out = {},
                    .gated = gated.All()});
  for (int64_t t = 0; t < kRows; ++t) {
    const double g = a.Value(t, 0), u = a.Value(t, 1), want = reference::RoundToBf16(reference::Silu(g) * u);
    if (std::isinf(want)) {
      ASSERT_GE(std::abs(gated.Value(t, 0)), 0x1.fep127) << "gate " << g << ", value " << u;
      continue;
    }
    ASSERT_LE(std::abs(gated.Value(t, 0) - reference::Silu(g) * u), GatedBound(g, u, 0, 0))
        << "gate " << g << ", value " << u;
    for (int64_t j = 1; j < 16; ++j) ASSERT_EQ(gated(t, j), gated(t, 0));
  }
  EXPECT_TRUE(gated.GuardsIntact());
}

// The sum of squares, all positive, in 16 lanes of n/16 and then one reduction: each step 2^-24 of the sum,
// halved by the root; mean, epsilon, root, division and two products: 6 * 2^-24; then 8 bits: 2^-8.
TEST_P(BackendContractTest, RmsNormMatchesTheReference) {
  RngSequence rng{Rng(5)};
  for (const int64_t hidden : {16, 48, 64, 576, 1536, 4096}) {
    for (const int64_t rows : {1, 2, 31, 33, 127, 200}) {
      for (const double scale : {1e-3, 1.0, 1e4}) {
        SCOPED_TRACE(::testing::Message() << rows << " rows of " << hidden << ", scale " << scale);
        if (rows > 33 && hidden > 576) continue;
        const std::vector<float> weight = RandomFloats(rng, hidden, 2.0);
        Guarded<float> x(rows, hidden, 3);
        for (int64_t t = 0; t < rows; ++t) {
          for (int64_t i = 0; i < hidden; ++i) x(t, i) = RandomFloat(rng, scale);
        }
        Guarded<Bf16> out(rows, hidden, 5);
        constexpr float kEpsilon = 1e-5f;
        backend_->RmsNorm(
            {.x = x.AllConst(), .weight = weight.data(), .epsilon = kEpsilon, .out = out.All()});

        const Matrix want = reference::RmsNorm(x.Values(), weight, static_cast<double>(kEpsilon));
        const double steps = static_cast<double>(hidden) / 16 + 16;
        Matrix bound = reference::Abs(want);
        for (double& b : bound.data) b = 1.01 * b * (0x1p-8 + (steps / 2 + 6) * 0x1p-24) + 0x1p-126;
        ExpectWithin(out, want, bound);
        EXPECT_TRUE(out.GuardsIntact());
      }
    }
  }
}

TEST_P(BackendContractTest, EmbedReadsTheRowsOfThePackedMatrix) {
  RngSequence rng{Rng(6)};
  for (const int64_t hidden : {64, 66, 576}) {
    constexpr int64_t kVocabulary = 131;
    const std::vector<float> w = RandomFloats(rng, kVocabulary * hidden, 1.0);
    const PackedWeights weights =
        backend_->Pack(kVocabulary, hidden, WeightFormat::kBf16,
                       [&](int64_t row, float* out) { std::copy_n(w.data() + row * hidden, hidden, out); });
    std::vector<int32_t> ids = {0, 1, 63, 64, 127, 128, 130, 130, 0};
    for (int i = 0; i < 40; ++i) ids.push_back(static_cast<int32_t>(rng.Below(kVocabulary)));
    Guarded<float> x(static_cast<int64_t>(ids.size()), hidden, 3);
    backend_->Embed({.ids = ids, .weights = &weights, .x = x.All()});
    EXPECT_EQ(x.Values().data, reference::Embed(ids, reference::RoundToBf16(ToMatrix(w, kVocabulary))).data);
    EXPECT_TRUE(x.GuardsIntact());
  }
}

// Shapes the kernels cannot run end the program with the number, instead of writing past a buffer.
TEST_P(BackendContractTest, UnsupportedShapesAreRefused) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const RopeTable rope(272, 272, 1e4, {}, 1);
  PackedWeights int8;
  int8.format = WeightFormat::kInt8;
  const std::vector<int32_t> ids = {0};
  EXPECT_DEATH(backend_->Embed({.ids = ids, .weights = &int8, .x = {}}), "bf16");
  EXPECT_DEATH(backend_->RmsNorm({.x = {nullptr, 1, 40, 40}, .weight = nullptr, .epsilon = 0, .out = {}}),
               "40");
  EXPECT_DEATH(backend_->StoreKv({.k = {},
                                  .v = {},
                                  .kv_heads = 1,
                                  .head_size = 272,
                                  .rope = &rope,
                                  .pool = {},
                                  .rows = {},
                                  .tiles = {}}),
               "272");
  EXPECT_DEATH(backend_->LoadBlock({.rest = nullptr,
                                    .rows = 0,
                                    .kv_heads = 1,
                                    .head_size = 272,
                                    .first_position = 0,
                                    .rope = &rope,
                                    .pool = {},
                                    .tiles = nullptr}),
               "272");
  EXPECT_DEATH(backend_->Attention({.q = {},
                                    .out = {},
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .head_size = 24,
                                    .rope = &rope,
                                    .pool = {},
                                    .sequences = {}}),
               "24");
  EXPECT_DEATH(backend_->Attention({.q = {},
                                    .out = {},
                                    .heads = 5,
                                    .kv_heads = 3,
                                    .head_size = 16,
                                    .rope = &rope,
                                    .pool = {},
                                    .sequences = {}}),
               "5 heads");
}

TEST_P(BackendContractTest, NoRowsIsNoWork) {
  RngSequence rng{Rng(7)};
  const Product product(rng, 1, 64, 64);
  const PackedWeights weights = product.Pack(*backend_, WeightFormat::kBf16);
  EXPECT_TRUE(product.Run(*backend_, weights, MatMulOutput::kStore, {0, 0}).SameBits(product.FreshOutputs()));
  backend_->Embed({.ids = {}, .weights = &weights, .x = {}});
  backend_->RmsNorm({.x = {}, .weight = nullptr, .epsilon = 1e-5f, .out = {}});
}

}  // namespace
}  // namespace palimpsest
