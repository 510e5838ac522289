// The engine against figures of a numpy forward pass over the same weights (tests/golden/README.md).
//
// Bounds on the log-probabilities of the five best, greedy tokens always equal:
//   bf16 0.1: rounding weights and activations to bf16 in numpy errs by 0.033.
//   int8 0.35: rounding both to int8 in groups of 64 in numpy errs by 0.30 (short) and 0.23 (g1), activations
//   alone by
//              0.33 and 0.08. So int8 does not keep the bound of 0.1 and is not the default.
#include "tests/testing/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>

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
 public:
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

 protected:
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

// --- compression: what is kept, and the answer from it
//
// Bounds as tests/golden/README.md has them: of a head's kept tokens at least 0.94 are the golden ones, 0.985
// on the mean of all heads; the numpy pass with bf16 roundings is at 0.973 and 0.993 (snapkv).

struct Overlap {
  double mean = 0, worst = 1;
};

Overlap OverlapOf(const Outcome::Kept& kept, const Outcome::Kept& golden) {
  Overlap overlap;
  int64_t heads = 0;
  EXPECT_EQ(kept.size(), golden.size());
  for (size_t layer = 0; layer < std::min(kept.size(), golden.size()); ++layer) {
    EXPECT_EQ(kept[layer].size(), golden[layer].size());
    for (size_t head = 0; head < golden[layer].size(); ++head) {
      const std::vector<int32_t>&a = kept[layer][head], &b = golden[layer][head];
      EXPECT_EQ(a.size(), b.size());
      std::vector<int32_t> both;
      std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
      const double share = static_cast<double>(both.size()) / static_cast<double>(b.size());
      overlap.worst = std::min(overlap.worst, share);
      overlap.mean += share;
      ++heads;
    }
  }
  overlap.mean /= static_cast<double>(std::max<int64_t>(1, heads));
  return overlap;
}

Outcome RunKept(Engine& engine, const testing::GoldenKept& golden, const std::string& policy) {
  Request request;
  request.segments = {{.tokens = golden.ids}};
  request.sampling.set_max_tokens(static_cast<int64_t>(golden.greedy.size()));
  request.sampling.set_repetition_penalty(1);
  request.sampling.set_top_p(1);
  request.ignore_end = true;
  request.policy = ParsePolicy(policy).value();
  request.prefill = golden.catalyst.empty() ? PrefillMode::kExact : PrefillMode::kPot;
  request.catalyst = golden.catalyst;
  request.trace = true;
  absl::StatusOr<Outcome> outcome = engine.Run(std::move(request));
  EXPECT_TRUE(outcome.ok()) << outcome.status().ToString();
  return outcome.ok() ? *std::move(outcome) : Outcome{};
}

constexpr char kSnapKv[] = "snapkv:budget=256,window=32,kernel=7,pool=max";
constexpr char kInfiniPot[] = "infinipot:pot=768,keep=384,alpha=0.5";

class GoldenKeptTest : public GoldenTest {
 protected:
  void ExpectKept(const std::string& name, const std::string& policy) {
    const testing::GoldenKept golden = testing::ReadGoldenKept(name);
    std::unique_ptr<Engine> engine = MakeEngine(GetParam());
    ASSERT_NE(engine, nullptr);
    const Outcome outcome = RunKept(*engine, golden, policy);
    const std::vector<Outcome::Kept> cycles =
        golden.catalyst.empty() ? std::vector<Outcome::Kept>{outcome.kept} : outcome.cycles;
    ASSERT_EQ(cycles.size(), golden.kept.size());
    for (size_t i = 0; i < cycles.size(); ++i) {
      const Overlap overlap = OverlapOf(cycles[i], golden.kept[i]);
      std::printf("%s %s, cycle %zu: overlap %.4f, worst head %.4f\n", engine->numerics_class().c_str(),
                  name.c_str(), i, overlap.mean, overlap.worst);
      EXPECT_GE(overlap.mean, 0.985) << "cycle " << i;
      EXPECT_GE(overlap.worst, 0.94) << "cycle " << i;
    }
    EXPECT_EQ(outcome.tokens, golden.greedy);
  }
};

TEST_P(GoldenKeptTest, SnapKvKeepsTheGoldenTokens) { ExpectKept("snapkv_g1", kSnapKv); }
TEST_P(GoldenKeptTest, InfiniPotKeepsTheGoldenTokensInEveryCycle) { ExpectKept("infinipot_g2", kInfiniPot); }

// The bounds tell dialects apart: each of these is another algorithm.
TEST(GoldenDialectTest, AnotherDialectMissesTheBounds) {
  if (!testing::TestModel()) GTEST_SKIP() << testing::kNoModel;
  std::unique_ptr<Engine> engine = GoldenTest::MakeEngine({"auto", WeightFormat::kBf16});
  ASSERT_NE(engine, nullptr);
  const testing::GoldenKept golden = testing::ReadGoldenKept("snapkv_g1");
  for (const char* wrong : {"pool=avg", "pool=none", "reduce=max", "kernel=5", "window=16"}) {
    const std::string text = std::string("snapkv:budget=256,") + wrong;
    const Overlap overlap = OverlapOf(RunKept(*engine, golden, text).kept, golden.kept[0]);
    std::printf("%s: overlap %.4f, worst head %.4f\n", wrong, overlap.mean, overlap.worst);
    EXPECT_LT(overlap.mean, 0.985) << wrong;
  }
  testing::GoldenKept pot = testing::ReadGoldenKept("infinipot_g2");
  for (const char* wrong : {"alpha=0", "alpha=0.6", "reduce=max", "score=random"}) {
    const std::string text = std::string("infinipot:pot=768,keep=384,") + wrong;
    const Outcome outcome = RunKept(*engine, pot, text);
    ASSERT_GE(outcome.cycles.size(), 1u);
    const Overlap overlap = OverlapOf(outcome.cycles[0], pot.kept[0]);
    std::printf("%s: overlap of the first cycle %.4f, worst head %.4f\n", wrong, overlap.mean, overlap.worst);
    EXPECT_LT(overlap.mean, 0.985) << wrong;
  }
}

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

std::vector<Class> Bf16Classes() {
  std::vector<Class> classes = Classes();
  std::erase_if(classes, [](const Class& c) { return c.format != WeightFormat::kBf16; });
  return classes;
}
INSTANTIATE_TEST_SUITE_P(Isas, GoldenKeptTest, ::testing::ValuesIn(Bf16Classes()),
                         [](const auto& test) { return test.param.isa; });

INSTANTIATE_TEST_SUITE_P(Isas, GoldenTest, ::testing::ValuesIn(Classes()), [](const auto& test) {
  return test.param.isa + (test.param.format == WeightFormat::kInt8 ? "_int8" : "_bf16");
});

}  // namespace
}  // namespace palimpsest
