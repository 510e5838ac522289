// A row's bits depend on its own inputs only: not on the rows, sequences, calls or threads beside it. Holds
// for each path and weight format separately.
#include "tests/kernels/attention_world.h"
#include "tests/kernels/product.h"

namespace palimpsest {
namespace {

class BitExactnessTest : public BackendTest {};
PALIMPSEST_OVER_ALL_ISAS(BitExactnessTest);

constexpr MatMulOutput kOutputs[] = {MatMulOutput::kStore, MatMulOutput::kAdd, MatMulOutput::kSiluGate};

TEST_P(BitExactnessTest, AProductOfRowsIsThatOfTheirParts) {
  RngSequence rng{Rng(1000)};
  struct Shape {
    int64_t rows, n, k;
  };
  for (const Shape& shape : {Shape{20, 96, 1536}, Shape{127, 160, 66}, Shape{300, 320, 64}}) {
    for (const WeightFormat format : Formats(shape.k)) {
      const Product product(rng, shape.rows, shape.n, shape.k);
      const PackedWeights weights = product.Pack(*backend_, format);
      for (const MatMulOutput output : kOutputs) {
        const ProductOutputs whole = product.Run(*backend_, weights, output);
        for (int trial = 0; trial < 12; ++trial) {
          const std::vector<int64_t> cuts = RandomCuts(rng, shape.rows);
          ASSERT_TRUE(product.Run(*backend_, weights, output, cuts).SameBits(whole))
              << shape.rows << " rows, output " << static_cast<int>(output) << ", cuts "
              << ::testing::PrintToString(cuts);
        }
      }
    }
  }
}

TEST_P(BitExactnessTest, ANormOfRowsIsThatOfTheirParts) {
  RngSequence rng{Rng(1100)};
  constexpr int64_t kRows = 130, kHidden = 576;
  const std::vector<float> weight = RandomFloats(rng, kHidden, 2.0);
  Guarded<float> x(kRows, kHidden, 1);
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t i = 0; i < kHidden; ++i) x(t, i) = RandomFloat(rng, 3.0);
  }
  const auto run = [&](const std::vector<int64_t>& cuts) {
    Guarded<Bf16> out(kRows, kHidden, 1);
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const int64_t first = cuts[i], count = cuts[i + 1] - cuts[i];
      backend_->RmsNorm({.x = x.PartConst(first, count),
                         .weight = weight.data(),
                         .epsilon = 1e-5f,
                         .out = out.Part(first, count)});
    }
    return out;
  };
  const Guarded<Bf16> whole = run({0, kRows});
  for (int trial = 0; trial < 20; ++trial) EXPECT_TRUE(run(RandomCuts(rng, kRows)).SameBits(whole));
}

// Parts of up to 4 rows go tile by tile over the threads, longer ones row by row: both meet in one result.
TEST_P(BitExactnessTest, AttentionOfASequenceIsThatOfItsPartsAloneOrBesideOthers) {
  RngSequence rng{Rng(1200)};
  for (const HeadShape& shape : {HeadShape{9, 3, 64}, HeadShape{8, 1, 128}, HeadShape{4, 2, 80}}) {
    SCOPED_TRACE(::testing::Message() << "head size " << shape.head_size);
    AttentionWorld world(shape,
                         {{1, 30},
                          {3, 20, true},
                          {4, 9},
                          {5, 9, true},
                          {70, 12},
                          {33, 25, true},
                          {.rows = 1, .tiles_max = 9, .coded_max = 30},
                          {.rows = 41, .tiles_max = 5, .coded_max = 20}},
                         rng.Next());
    const Guarded<Bf16> together = world.Attend(*backend_);
    Guarded<Bf16> alone = world.FreshOut();
    for (size_t s = 0; s < world.sequences().size(); ++s) {
      world.AttendPart(*backend_, s, {0, world.sequences()[s].rows}, &alone);
    }
    ASSERT_TRUE(alone.SameBits(together));

    for (int trial = 0; trial < 4; ++trial) {
      Guarded<Bf16> parts = world.FreshOut();
      for (size_t s = 0; s < world.sequences().size(); ++s) {
        world.AttendPart(*backend_, s, RandomCuts(rng, world.sequences()[s].rows), &parts);
      }
      ASSERT_TRUE(parts.SameBits(together));
    }
    Guarded<Bf16> single = world.FreshOut();
    for (size_t s = 0; s < world.sequences().size(); ++s) {
      std::vector<int64_t> cuts;
      for (int64_t t = 0; t <= world.sequences()[s].rows; ++t) cuts.push_back(t);
      world.AttendPart(*backend_, s, cuts, &single);
    }
    ASSERT_TRUE(single.SameBits(together));
  }
}

TEST_P(BitExactnessTest, TheNumberOfThreadsChangesNothing) {
  RngSequence rng{Rng(1300)};
  const Product few(rng, 5, 160, 192), many(rng, 61, 160, 192);
  AttentionWorld world({.heads = 6, .kv_heads = 2, .head_size = 64}, {{1, 30}, {40, 12}, {2, 9, true}}, 1301);
  std::vector<ProductOutputs> first_products;
  std::vector<Guarded<Bf16>> first_attention;
  for (const int threads : {1, 2, 3}) {
    auto made = MakeTestBackend(threads);
    ASSERT_TRUE(made.ok());
    Backend& backend = **made;
    std::vector<ProductOutputs> products;
    for (const WeightFormat format : Formats(192)) {
      for (const Product* product : {&few, &many}) {
        const PackedWeights weights = product->Pack(backend, format);
        for (const MatMulOutput output : kOutputs) products.push_back(product->Run(backend, weights, output));
      }
    }
    std::vector<Guarded<Bf16>> attention = {world.Attend(backend)};
    if (threads == 1) {
      first_products = std::move(products);
      first_attention = std::move(attention);
      continue;
    }
    EXPECT_TRUE(attention[0].SameBits(first_attention[0])) << threads << " threads";
    for (size_t i = 0; i < products.size(); ++i) {
      EXPECT_TRUE(products[i].SameBits(first_products[i])) << threads << " threads, product " << i;
    }
  }
}

// What an earlier, larger step left in the scratch memory is not read by a later one.
TEST_P(BitExactnessTest, WhatRanBeforeChangesNothing) {
  AttentionWorld small({.heads = 4, .kv_heads = 2, .head_size = 32}, {{2, 12}, {9, 12}}, 1400);
  AttentionWorld large({.heads = 16, .kv_heads = 2, .head_size = 128}, {{50, 12}, {3, 20}}, 1401);
  const Guarded<Bf16> fresh = small.Attend(*backend_);
  large.Attend(*backend_);
  const int64_t workspace = backend_->workspace_bytes();
  EXPECT_TRUE(small.Attend(*backend_).SameBits(fresh));
  EXPECT_EQ(backend_->workspace_bytes(), workspace);
}

}  // namespace
}  // namespace palimpsest
