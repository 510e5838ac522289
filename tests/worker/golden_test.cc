// The engine against figures of a numpy forward pass over the same weights (tests/golden/README.md).
//
// Bounds on the log-probabilities of the five best, greedy tokens always equal:
//   bf16 0.1: rounding weights and activations to bf16 in numpy errs by 0.033.
//   int8 0.35: rounding both to int8 in groups of 64 in numpy errs by 0.30 (short) and 0.23 (g1), activations
//   alone by
//              0.33 and 0.08. So int8 does not keep the bound of 0.1 and is not the default.
#include "tests/testing/golden.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/backend.h"
#include "worker/engine.h"

namespace palimpsest {
namespace {

using testing::GoldenLogits;

struct Class {
  std::string isa;
  WeightFormat format;
};

class GoldenTest : public ::testing::TestWithParam<Class> {
 protected:
  static std::unique_ptr<Engine> MakeEngine(const Class& c) {
    EngineOptions options;
    options.backend.isa = c.isa;
    options.backend.threads.pin = false;
    options.weights = c.format;
    auto file = GgufFile::Open(*testing::TestModel());
    if (!file.ok()) return nullptr;
    auto engine = Engine::Create(*file, /*tokenizer=*/nullptr, options);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    return engine.ok() ? std::move(*engine) : nullptr;
  }

  void SetUp() override {
    if (!testing::TestModel()) GTEST_SKIP() << testing::kNoModel;
  }

  void ExpectGolden(const std::string& name) {
    const GoldenLogits golden = testing::ReadGoldenLogits(name);
    std::unique_ptr<Engine> engine = MakeEngine(GetParam());
    ASSERT_NE(engine, nullptr);
    Request request;
    request.segments = {{.tokens = golden.ids}};
    request.sampling.set_max_tokens(static_cast<int64_t>(golden.greedy.size()));
    request.sampling.set_repetition_penalty(1);
    request.sampling.set_top_p(1);
    request.ignore_end = true;
    request.top = 10;
    const absl::StatusOr<Outcome> outcome = engine->Run(std::move(request));
    ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
    double worst = 0;
    for (size_t i = 0; i < 5; ++i) {
      const auto found = std::find_if(outcome->top.begin(), outcome->top.end(),
                                      [&](const TopToken& t) { return t.id == golden.top[i].id; });
      ASSERT_NE(found, outcome->top.end()) << "token " << golden.top[i].id << " is not among the ten best";
      worst = std::max(worst, std::abs(found->log_probability - golden.top[i].log_probability));
    }
    std::printf("%s %s: worst log-probability error of the five best %.4f\n",
                engine->numerics_class().c_str(), name.c_str(), worst);
    RecordProperty("worst_log_probability_error", std::to_string(worst));
    EXPECT_LE(worst, GetParam().format == WeightFormat::kInt8 ? 0.35 : 0.1);
    EXPECT_EQ(outcome->tokens, golden.greedy);
  }
};

TEST_P(GoldenTest, ShortPromptMatches) { ExpectGolden("logits_short"); }
TEST_P(GoldenTest, PromptOf840TokensMatches) { ExpectGolden("logits_g1"); }

std::vector<Class> Classes() {
  std::vector<Class> classes;
  for (const std::string& isa : AvailableIsas()) {
    classes.push_back({isa, WeightFormat::kBf16});
    if (isa == "avx512") classes.push_back({isa, WeightFormat::kInt8});
  }
  return classes;
}

INSTANTIATE_TEST_SUITE_P(Isas, GoldenTest, ::testing::ValuesIn(Classes()), [](const auto& test) {
  return test.param.isa + (test.param.format == WeightFormat::kInt8 ? "_int8" : "_bf16");
});

}  // namespace
}  // namespace palimpsest
