// An answer that is taken up after its first k tokens goes on as if it had never stopped (I-9): the same
// tokens, text and log-probabilities, for every k.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "proto/base/status.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

using ::testing::HasSubstr;

struct Told {
  std::vector<int32_t> tokens;
  std::vector<std::string> texts;
  std::vector<uint64_t> log_probabilities;  // bits
  std::vector<std::vector<std::pair<int32_t, uint64_t>>> top;
  int64_t first = -1;
  std::string rest, finish_reason;
  bool operator==(const Told&) const = default;
};

class ResumeTest : public ::testing::TestWithParam<Numerics> {
 protected:
  std::pair<Told, Outcome> Ask(Engine& engine, Request request) {
    Told told;
    request.logprobs = true;
    request.top_logprobs = 3;
    request.top = 0;
    request.on_token = [&told](const AnswerToken& token) {
      if (told.first < 0) told.first = token.sequence;
      EXPECT_EQ(token.sequence, told.first + std::ssize(told.tokens)) << "no number twice, none left out";
      told.tokens.push_back(token.token);
      told.texts.emplace_back(token.text);
      told.log_probabilities.push_back(std::bit_cast<uint64_t>(token.log_probability));
      auto& best = told.top.emplace_back();
      for (const TopToken& t : token.top) best.emplace_back(t.id, std::bit_cast<uint64_t>(t.log_probability));
    };
    Outcome outcome = RunOk(engine, std::move(request));
    told.rest = outcome.rest;
    told.finish_reason = outcome.finish_reason;
    return {told, std::move(outcome)};
  }
  // Resumes after every k, in an engine that knows nothing and in one that has served it before.
  void ExpectResumes(const Request& request) {
    auto warm = Make(), cold = Make();
    const auto [whole, outcome] = Ask(*warm, request);
    const size_t count = whole.tokens.size();
    ASSERT_GT(count, 0u);
    for (size_t k = 0; k <= count; k += 1 + k / 6) {
      Request resumed = request;
      resumed.generated.assign(whole.tokens.begin(), whole.tokens.begin() + static_cast<int64_t>(k));
      Told expected = whole;
      expected.first = k == count ? -1 : static_cast<int64_t>(k);
      const auto cut = [k](auto& list) { list.erase(list.begin(), list.begin() + static_cast<int64_t>(k)); };
      cut(expected.tokens);
      cut(expected.texts);
      cut(expected.log_probabilities);
      cut(expected.top);
      cold->store().DropUnpinned();
      for (Engine* served : {warm.get(), cold.get()}) {
        const auto [told, again] = Ask(*served, resumed);
        EXPECT_EQ(told, expected) << "after " << k << " of " << count;
        EXPECT_EQ(again.text, outcome.text);
        EXPECT_EQ(again.tokens, outcome.tokens);
        EXPECT_EQ(again.usage.completion_tokens(), outcome.usage.completion_tokens());
        EXPECT_EQ(again.usage.prompt_tokens(), outcome.usage.prompt_tokens());
      }
      ExpectAllReturned(*cold);
    }
  }

  std::unique_ptr<Engine> Make() {
    return MakeTinyEngine(model_, {.numerics = GetParam(), .threads = 1, .chunk_tokens = 50});
  }

  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

// Multi-byte text comes of itself: the vocabulary is bytes, most of them parts of characters.
TEST_P(ResumeTest, SeededWithADocument) { ExpectResumes(MakeRequest(Prompt(150, 30), 110)); }

TEST_P(ResumeTest, Greedy) {
  Request request = MakeRequest(Prompt(70, 61), 90);
  request.sampling.set_temperature(0);
  ExpectResumes(request);
}

TEST_P(ResumeTest, WithARepetitionPenaltyAndTopP) {
  Request request = MakeRequest(Prompt(20, 5), 80);
  request.sampling.set_repetition_penalty(1.3);
  request.sampling.set_top_p(0.9);
  request.sampling.set_top_k(80);
  ExpectResumes(request);
}

// The prompt's last block is shared: full, or partial and sealed, so that the answer begins a tile of its
// own.
TEST_P(ResumeTest, AfterASharedPart) {
  ExpectResumes(MakeRequest(Prompt(64, 0), 70));
  ExpectResumes(MakeRequest(Prompt(70, 0), 70));
}

TEST_P(ResumeTest, AfterAConversation) {
  std::vector<Segment> segments = Prompt(70, 0);
  segments.push_back({.tokens = RandomTokens(150, 9), .shared = true, .full_blocks = true});
  ExpectResumes(MakeRequest(segments, 80));
}

TEST_P(ResumeTest, ToAStopString) {
  auto engine = Make();
  Request request = MakeRequest(Prompt(30, 10), 60);
  const std::string text = RunOk(*engine, request).text;
  ASSERT_GT(text.size(), 60u);
  const auto character = [&text](size_t at) {  // the start of one, from there on
    while ((static_cast<uint8_t>(text[at]) & 0xc0) == 0x80) ++at;
    return at;
  };
  const size_t cut = character(50), held = character(20);
  request.sampling.add_stop(text.substr(cut, character(cut + 6) - cut));
  request.sampling.add_stop(text.substr(held, character(held + 1) - held) + "never");  // holds text back
  ExpectResumes(request);
}

TEST_P(ResumeTest, ToAnEndToken) {
  auto engine = Make();
  Request request = MakeRequest(Prompt(30, 10), 300);
  request.sampling.set_temperature(3);
  request.ignore_end = false;
  for (uint64_t seed = 1; seed < 40; ++seed) {
    request.sampling.set_seed(seed);
    const Outcome outcome = RunOk(*engine, request);
    if (outcome.finish_reason == "stop" && outcome.tokens.size() > 3) return ExpectResumes(request);
  }
  FAIL() << "no seed ends by itself";
}

TEST_P(ResumeTest, WhatIsCompleteEndsAtOnceAndTakesNoRoom) {
  auto engine = Make();
  Request request = MakeRequest(Prompt(30, 10), 3);
  request.generated = {40, 41, 42};
  const auto job = engine->Submit(request);
  ASSERT_TRUE(job.ok());
  const auto outcome = engine->Take(*job);
  ASSERT_NE(outcome, nullptr) << "without a step";
  EXPECT_EQ(outcome->finish_reason, "length");
  EXPECT_EQ(outcome->usage.prompt_tokens(), 61);
  EXPECT_EQ(outcome->usage.completion_tokens(), 3);
  EXPECT_EQ(engine->store().arena().used_tiles(), 0);
}

TEST_P(ResumeTest, WhatGoesOnAfterItsEndIsRefused) {
  auto engine = Make();
  Request request = MakeRequest(Prompt(30, 10), 10);
  request.ignore_end = false;
  request.generated = {40, 2, 42};  // 2 ends an answer
  const absl::Status status = engine->Submit(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status),
              HasSubstr("3 tokens were generated already, but the answer ended with number 2"));
}

INSTANTIATE_TEST_SUITE_P(Classes, ResumeTest, ::testing::ValuesIn(AvailableNumerics()), NumericsName);

}  // namespace
}  // namespace palimpsest::testing
