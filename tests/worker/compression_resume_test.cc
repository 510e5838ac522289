// A compressed request that is taken up after its first k tokens, or that gave way and came back, goes on as
// if it had never stopped (I-9): in every way of reading, with each policy, also where the answer makes a pot
// overflow or a window slide, before that place and behind it.
#include <gtest/gtest.h>

#include <bit>

#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

constexpr int64_t kAnswer = 120;

class CompressionResumeTest : public ::testing::TestWithParam<CompressionCase> {
 protected:
  static Request MakeOne() {
    Request request = CompressionRequest(GetParam(), kAnswer);
    request.top = 0;
    return request;
  }
  static Request ResumedAt(const Answer& whole, int64_t k) {
    Request resumed = MakeOne();
    resumed.generated.assign(whole.outcome.tokens.begin(), whole.outcome.tokens.begin() + k);
    return resumed;
  }
  static Answer TailOf(const Answer& whole, int64_t k) {
    Answer tail = whole;
    tail.log_probabilities.erase(tail.log_probabilities.begin(), tail.log_probabilities.begin() + k);
    return tail;
  }
  std::unique_ptr<Engine> Make(int64_t chunk_tokens) {
    return MakeTinyEngine(model_, CompressionEngine(chunk_tokens));
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

TEST_P(CompressionResumeTest, AfterAnyNumberOfTokens) {
  auto warm = Make(50), cold = Make(100);
  const Answer whole = AnswerOf(*warm, MakeOne());
  ASSERT_EQ(whole.outcome.tokens.size(), static_cast<size_t>(kAnswer));
  for (const int64_t k : {0, 1, 20, 45, 90, 119, 120}) {
    cold->store().DropUnpinned();
    // What is told of the cycles ends with the last one; one more may follow the last token told.
    const bool kept = k < kAnswer;
    EXPECT_EQ(Difference(TailOf(whole, k), AnswerOf(*warm, ResumedAt(whole, k)), kept), "") << k;
    EXPECT_EQ(Difference(TailOf(whole, k), AnswerOf(*cold, ResumedAt(whole, k)), kept), "") << k << " cold";
    ExpectAllReturned(*cold);
  }
}

// With chunks that hold the end of the question and part of the answer.
TEST_P(CompressionResumeTest, WhateverTheChunks) {
  const Answer whole = AnswerOf(*Make(512), MakeOne());
  for (const int64_t chunk_tokens : {16, 33, 512}) {
    for (const int64_t k : {30, 110}) {
      EXPECT_EQ(Difference(TailOf(whole, k), AnswerOf(*Make(chunk_tokens), ResumedAt(whole, k))), "")
          << "after " << k << ", " << chunk_tokens << " at a time";
    }
  }
}

// A request that is not in the background takes its room at step `at`.
TEST_P(CompressionResumeTest, AfterGivingWay) {
  const Answer whole = AnswerOf(*Make(40), MakeOne());
  for (const int at : {1, 4, 9, 13, 16, 60, 120}) {
    const int64_t view_bytes = at % 2 == 0 ? 1 << 24 : 0;
    TinyEngineOptions options = CompressionEngine(40);
    options.arena_groups = 20;
    options.view_bytes = view_bytes;
    auto engine = MakeTinyEngine(model_, options);
    Request background = MakeOne();
    background.background = true;
    background.logprobs = true;
    Answer stopped;
    background.on_token = [&](const AnswerToken& token) {
      EXPECT_EQ(token.sequence, std::ssize(stopped.log_probabilities)) << "told once";
      stopped.log_probabilities.push_back(token.log_probability);
    };
    int64_t found = 0;
    background.on_found = [&](int64_t cached_tokens) { found = cached_tokens; };
    std::vector<Engine::JobId> jobs = {engine->Submit(std::move(background)).value()};
    for (int i = 0; i < at; ++i) engine->Step();
    jobs.push_back(engine->Submit(MakeRequest(Prompt(800, 10, 9), 200)).value());
    stopped.outcome = std::move(Drain(*engine, jobs)[0]);
    EXPECT_EQ(engine->stats().preemptions, 1) << "at " << at;
    // Cycles of a context whose view was found are not told again.
    EXPECT_EQ(Difference(whole, stopped, GetParam().mode != PrefillMode::kPot || view_bytes == 0), "")
        << "at " << at << " with views of " << view_bytes;
    EXPECT_EQ(stopped.outcome.usage.cached_tokens(), 0) << "what it computed itself was not found";
    EXPECT_EQ(found, 0);
    ExpectAllReturned(*engine);
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompressionResumeTest, ::testing::ValuesIn(CompressionCases()),
                         CompressionCaseName);

}  // namespace
}  // namespace palimpsest::testing
