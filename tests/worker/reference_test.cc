// The engine's logits against a float64 forward pass over the same file, for every tensor type.
//
// Bound without rounding, in squares of u, the root mean square of a bf16 rounding (2^-9/sqrt(3) = 0.0011 of
// the number at most), and in units of each vector's spread. A product of rounded weights with rounded inputs
// adds two squares. Into a branch whose input errs by r^2 come
//   attention   : 6 roundings on the way to scores with a spread of two, whose error is relative to the
//   weight
//                 they become: 4 * 6; 6 from there to the result. r^2 enters through both sides of the score
//                 and the values: 4 * 2 + 1. Together 9 r^2 + 30;
//   feed-forward: r^2 through gate and up, 6 roundings: 2 r^2 + 6.
// A branch that is the share s of the stream after it leaves (1 - s) r^2 + s (branch). In the first layer s
// is at most 0.73 and 0.67 (tied embeddings, which are small), later 0.2 and 0.37. The stream begins with 1
// (the embedding) and the logits add 2. So for one, two, three layers: 54, 188, 640 squares; 7, 14, 25 u. The
// largest of 300 errors is within four spreads: 0.032, 0.060, 0.11 of the logits' spread. A wrong factor,
// head, position or pairing errs by more than 0.2 of it.
//
// With the same roundings only float32 sums differ, by about sqrt(k) 2^-24 of a number: some 1e-6, until one
// of them tips a rounding over, which moves an input by up to 2^-8 and tips others: then the errors are as
// far apart as two independent ones. One number in 2,000 tips over. Of many prompts of four tokens half and
// more are free of it, or nearly so.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "tests/testing/reference_model.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

// In parts of the logits' spread.
double TrueBound(int64_t layers) {
  double squares = 1;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const double attention = layer == 0 ? 0.73 : 0.2, feed_forward = layer == 0 ? 0.67 : 0.37;
    squares = (1 - attention) * squares + attention * (9 * squares + 30);
    squares = (1 - feed_forward) * squares + feed_forward * (2 * squares + 6);
  }
  constexpr double kRounding = 0.0011, kSpreads = 4;
  return kSpreads * kRounding * std::sqrt(squares + 2);
}
constexpr double kSameRoundingsMedian = 1e-5;

struct Errors {
  double of_true = 0, of_rounded = 0;  // largest, in spreads of the logits
};

double LargestError(const std::vector<float>& logits, const std::vector<double>& expected) {
  double squares = 0, worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    squares += expected[i] * expected[i];
    worst = std::max(worst, std::abs(expected[i] - static_cast<double>(logits[i])));
  }
  const double spread = std::sqrt(squares / static_cast<double>(expected.size()));
  EXPECT_GT(spread, 0.3);
  return worst / spread;
}

Errors Compare(const TinyModelOptions& options, const std::string& isa, const std::vector<Segment>& prompt) {
  const std::shared_ptr<const GgufFile> model = TinyModel(options);
  const Numerics numerics{isa};
  auto engine = MakeTinyEngine(model, {.numerics = numerics, .chunk_tokens = 50, .tokenizer = false});
  const std::vector<float> logits = LogitsOf(RunOk(*engine, MakeRequest(prompt, 1)));
  std::vector<std::vector<int32_t>> segments;
  for (const Segment& segment : prompt) segments.push_back(segment.tokens);
  return {LargestError(logits, ReferenceModel(*model, Rounding::kNone).Logits(segments)),
          LargestError(logits, ReferenceModel(*model, Rounding::kBf16).Logits(segments))};
}

class ReferenceTest : public ::testing::TestWithParam<std::string> {
 protected:
  void ExpectClose(const TinyModelOptions& options, const std::vector<Segment>& prompt,
                   const std::string& what) {
    const Errors errors = Compare(options, GetParam(), prompt);
    std::cout << what << ": largest error " << errors.of_true << " of the logits' spread, "
              << errors.of_rounded << " from the same roundings\n";
    EXPECT_LE(errors.of_true, TrueBound(options.layers)) << what;
    EXPECT_LE(errors.of_rounded, TrueBound(options.layers)) << what;
  }
};

TEST_P(ReferenceTest, EveryTensorTypeIsWithinTheBound) {
  for (const TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                                TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1}) {
    ExpectClose({.type = type}, Prompt(70, 12), TensorTypeName(static_cast<uint32_t>(type)));
  }
}

// Their blocks hold 256 numbers of one row.
TEST_P(ReferenceTest, EveryTypeOfWideBlocksIsWithinTheBound) {
  for (const TensorType type : {TensorType::kQ4_K, TensorType::kQ6_K}) {
    ExpectClose({.hidden = 256, .heads = 8, .kv_heads = 4, .ffn = 256, .type = type}, Prompt(30, 12),
                TensorTypeName(static_cast<uint32_t>(type)));
  }
}

TEST_P(ReferenceTest, EveryShapeIsWithinTheBound) {
  ExpectClose({}, {{.tokens = {5}}}, "one token");
  ExpectClose({.tied_embeddings = true, .seed = 2}, Prompt(20, 12), "tied embeddings");
  ExpectClose({.layers = 3, .ffn = 96, .seed = 3}, Prompt(20, 12), "three layers");
  ExpectClose({.kv_heads = 4, .seed = 4}, Prompt(20, 12), "a KV head for each query head");
  ExpectClose({.kv_heads = 1, .seed = 5}, Prompt(20, 12), "one KV head");
  ExpectClose({.hidden = 96, .heads = 2, .kv_heads = 1, .ffn = 160, .seed = 6}, Prompt(20, 12),
              "head size 48");
  ExpectClose({.hidden = 192, .heads = 2, .kv_heads = 2, .ffn = 64, .seed = 7}, Prompt(20, 12),
              "head size 96");
}

// Eleven tiles: two splits are merged; positions up to 700 turn the slowest pairs too.
TEST_P(ReferenceTest, ALongPromptIsWithinTheBound) { ExpectClose({}, Prompt(610, 30), "661 tokens"); }

TEST_P(ReferenceTest, WithTheSameRoundingsOnlySumsDiffer) {
  std::vector<double> errors;
  for (uint64_t seed = 0; seed < 31; ++seed) {
    const std::vector<Segment> prompt = {{.tokens = RandomTokens(2, seed)},
                                         {.tokens = RandomTokens(2, 50 + seed)}};
    errors.push_back(Compare({.seed = seed}, GetParam(), prompt).of_rounded);
  }
  std::sort(errors.begin(), errors.end());
  std::cout << "largest error, in parts of the logits' spread: median " << errors[15] << ", of all "
            << errors.back() << "\n";
  EXPECT_LE(errors[15], kSameRoundingsMedian);
  EXPECT_LE(errors.back(), TrueBound(2));
}

INSTANTIATE_TEST_SUITE_P(Isas, ReferenceTest, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace palimpsest::testing
