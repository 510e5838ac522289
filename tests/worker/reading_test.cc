// What one request saw while it read a text is the next policy's and the next budget's: the text's blocks are
// loaded, and the answer is what it is alone, bit for bit.
#include <gtest/gtest.h>

#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

constexpr int64_t kText = 21 + 371;  // prefix and document

class ReadingTest : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Engine> Make(int64_t view_bytes = 1 << 24) {
    TinyEngineOptions options = CompressionEngine(90);
    options.view_bytes = view_bytes;
    return MakeTinyEngine(model_, options);
  }
  static Request Ask(const std::string& policy, uint64_t seed = 1) {
    return CompressionRequest({"", PrefillMode::kExact, policy, GetParam()}, 30, seed);
  }
  // Asked after `first` it says what it says alone; how many tokens it did not run.
  int64_t CachedAfter(Engine& engine, const Request& first, const Request& then) {
    AnswerOf(engine, first);
    const Answer alone = AnswerOf(*Make(), then), after = AnswerOf(engine, then);
    EXPECT_EQ(Difference(alone, after), "");
    ExpectAllReturned(engine);
    return after.outcome.usage.cached_tokens();
  }
  int64_t CachedAfter(const std::string& first, const std::string& then) {
    return CachedAfter(*Make(), Ask(first), Ask(then));
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};
INSTANTIATE_TEST_SUITE_P(Visible, ReadingTest, ::testing::Bool());

TEST_P(ReadingTest, AnotherBudgetLoadsTheText) {
  for (const auto& [first, then] : std::vector<std::pair<std::string, std::string>>{
           {"h2o:heavy=60,recent=70", "h2o:heavy=30,recent=70"},
           {"roco:budget=150,volatile=20", "roco:budget=120,volatile=10"},
           {"lookm:budget=150,recent=20", "lookm:budget=110,recent=40,merge=averaged"},
           {"expected:budget=150", "expected:budget=110,values=no"},
           {"sirllm:budget=150,recent=10", "sirllm:budget=130,recent=20"},
           {"kvzip:budget=150,chunk=128", "kvzip:budget=110,chunk=128"}}) {
    const int64_t cached = CachedAfter(first, then);
    EXPECT_GT(cached, kText - kTileSlots) << then;
    EXPECT_LT(cached, kText + 37) << then << ": the prompt's last token must run";
  }
}

TEST_P(ReadingTest, AnotherPolicyOfTheSameNeedsDoes) {
  EXPECT_GT(CachedAfter("h2o:heavy=60,recent=70", "lookm:budget=110,recent=20"), kText - kTileSlots);
  EXPECT_GT(CachedAfter("roco:budget=130", "h2o:heavy=60,recent=70"), kText - kTileSlots);
  EXPECT_GT(CachedAfter("h2o:heavy=60,recent=70", "h2o:heavy=60,recent=70,decode=evict"), kText - kTileSlots);
}

TEST_P(ReadingTest, WhatWasNotSeenIsRead) {
  EXPECT_LE(CachedAfter("h2o:heavy=60,recent=70", "roco:budget=130"), 21) << "squares";
  EXPECT_LE(CachedAfter("h2o:heavy=60,recent=70", "sirllm:budget=130"), 21) << "losses";
  EXPECT_LE(CachedAfter("expected:budget=130,sink=4", "expected:budget=130,sink=30"), 30) << "other queries";
}

TEST_P(ReadingTest, AnotherTextIsRead) {
  const std::string policy = "h2o:heavy=60,recent=70";
  EXPECT_LE(CachedAfter(*Make(), Ask(policy), Ask(policy, 2)), 21);
}

TEST_P(ReadingTest, WithoutMemoryForItTheTextIsRead) {
  EXPECT_LE(CachedAfter(*Make(0), Ask("h2o:heavy=60,recent=70"), Ask("h2o:heavy=30,recent=70")), 21);
}

// The reading is there, and the text's blocks are not: all rows run, and nobody counts them twice.
TEST_P(ReadingTest, WithoutTheBlocksItsRowsRun) {
  TinyEngineOptions options = CompressionEngine(90);
  options.view_bytes = 1 << 24;
  options.host_bytes = 0;
  const auto engine = MakeTinyEngine(model_, options);
  for (const char* const policy : {"h2o:heavy=30,recent=70", "expected:budget=110", "sirllm:budget=130"}) {
    AnswerOf(*engine, Ask(policy));
    Request again = Ask(policy);
    again.policy.budget = {again.policy.budget.value + 3};
    EXPECT_EQ(Difference(AnswerOf(*Make(), again), AnswerOf(*engine, again)), "") << policy;
  }
}

}  // namespace
}  // namespace palimpsest::testing
