// What compression keeps, and the answer behind it, depend on the request alone: not on how its prompt was
// cut into chunks, nor on what ran beside it. Bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "proto/base/rng.h"
#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

class CompressionBitsTest : public ::testing::TestWithParam<CompressionCase> {
 protected:
  std::unique_ptr<Engine> Make(int64_t chunk_tokens, int threads = 2) {
    return MakeTinyEngine(model_, CompressionEngine(chunk_tokens, threads));
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

// Something is dropped, or the rest of this file proves nothing.
TEST_P(CompressionBitsTest, TokensAreDropped) {
  auto engine = Make(100);
  const Answer answer = AnswerOf(*engine, CompressionRequest(GetParam(), 3));
  const Outcome& outcome = answer.outcome;
  if (GetParam().policy.starts_with("full")) {
    EXPECT_TRUE(outcome.kept.empty());
    return;
  }
  ASSERT_EQ(outcome.kept.size(), 2u);
  ASSERT_EQ(outcome.kept[0].size(), 2u);
  const bool evicts = ParsePolicy(GetParam().policy)->evicts();
  const size_t cycles = GetParam().mode == PrefillMode::kPot ? 4 : evicts ? 2 : 0;
  EXPECT_GE(outcome.cycles.size(), cycles);
  for (const auto& layer : outcome.kept) {
    for (const auto& head : layer) {
      EXPECT_LT(head.size(), 200u);
      EXPECT_GE(head.size(), 40u);
      for (int32_t i = 0; i < 21; ++i) EXPECT_EQ(head[static_cast<size_t>(i)], i) << "the prefix stays";
      for (size_t i = 1; i < head.size(); ++i) EXPECT_LT(head[i - 1], head[i]);
      const bool behind = GetParam().mode == PrefillMode::kPot || GetParam().visible || evicts;
      EXPECT_LT(head.back(), 392 + (behind ? 40 : 0));
    }
  }
  ExpectAllReturned(*engine);
}

TEST_P(CompressionBitsTest, NoChunkingMakesADifference) {
  const Answer whole = AnswerOf(*Make(512), CompressionRequest(GetParam(), 40));
  for (const int64_t chunk_tokens : {16, 20, 64, 100}) {
    auto engine = Make(chunk_tokens);
    EXPECT_EQ(Difference(whole, AnswerOf(*engine, CompressionRequest(GetParam(), 40))), "")
        << chunk_tokens << " at a time";
    ExpectAllReturned(*engine);
  }
}

// A prefix of several tiles, and a question that fills the pot.
TEST(PotBitsTest, LongPrefixesAndQuestions) {
  const auto model = TinyModel({});
  for (const char* score : {"kvzip", "adakv", "pyramidkv", "snapkv"}) {
    const auto answer = [&](int64_t chunk_tokens, int64_t question) {
      auto engine = MakeTinyEngine(model, CompressionEngine(chunk_tokens));
      const std::string policy = fmt::format("infinipot:pot=400,keep=170,alpha=0.2,score={}", score);
      Answer one = AnswerOf(*engine, CompressionRequest(PrefillMode::kPot, policy,
                                                        RolePrompt({900}, question, 1, /*prefix=*/100), 60));
      ExpectAllReturned(*engine);
      EXPECT_GE(one.outcome.cycles.size(), 4u) << score;
      return one;
    };
    for (const int64_t question : {40, 150})
      EXPECT_EQ(Difference(answer(512, question), answer(48, question)), "") << score << ", " << question;
  }
}

TEST_P(CompressionBitsTest, NoNumberOfThreadsMakesADifference) {
  EXPECT_EQ(Difference(AnswerOf(*Make(100, 1), CompressionRequest(GetParam(), 20)),
                       AnswerOf(*Make(100, 3), CompressionRequest(GetParam(), 20))),
            "");
}

// A third of all pairs: each case stands beside every third of the list, from a place of its own on.
TEST_P(CompressionBitsTest, BesideOtherPoliciesItAnswersAsAlone) {
  const Answer alone = AnswerOf(*Make(64), CompressionRequest(GetParam(), 30));
  const std::vector<CompressionCase> cases = CompressionCases();
  for (size_t i = GetParam().name.size() % 3; i < cases.size(); i += 3) {
    const CompressionCase& other = cases[i];
    auto engine = Make(64);
    const Answer other_alone = AnswerOf(*Make(64), CompressionRequest(other, 25, 2));
    std::vector<Request> both;
    both.push_back(CompressionRequest(GetParam(), 30));
    both.push_back(CompressionRequest(other, 25, 2));
    const std::vector<Answer> together = AnswersTogether(*engine, std::move(both));
    EXPECT_EQ(Difference(alone, together[0]), "") << "beside " << other.name;
    EXPECT_EQ(Difference(other_alone, together[1]), "") << "beside " << GetParam().name;
    ExpectAllReturned(*engine);
  }
}

// Of one document, at once: spans and blocks are shared, claims are waited for.
TEST_P(CompressionBitsTest, BesideItselfAndAnotherQuestionItAnswersAsAlone) {
  Request other = CompressionRequest(GetParam(), 22);
  other.segments.back().tokens = RandomTokens(50, 77);
  const Answer alone = AnswerOf(*Make(64), CompressionRequest(GetParam(), 30)),
               other_alone = AnswerOf(*Make(64), other);
  for (const int64_t chunk_tokens : {24, 150}) {
    auto engine = Make(chunk_tokens);
    std::vector<Request> three;
    three.push_back(CompressionRequest(GetParam(), 30));
    three.push_back(other);
    three.push_back(CompressionRequest(GetParam(), 30));
    const std::vector<Answer> together = AnswersTogether(*engine, std::move(three));
    EXPECT_EQ(Difference(alone, together[0]), "");
    EXPECT_EQ(Difference(other_alone, together[1]), "");
    EXPECT_EQ(Difference(alone, together[2]), "");
    ExpectAllReturned(*engine);
  }
}

TEST_P(CompressionBitsTest, WhatIsCancelledAnywhereReturnsAll) {
  for (int stop = 0; stop < 60; stop += 1 + stop / 12) {
    auto engine = Make(40);
    CancelToken cancel;
    Request request = CompressionRequest(GetParam(), 30);
    request.cancel = &cancel;
    const auto job = engine->Submit(std::move(request));
    ASSERT_TRUE(job.ok());
    for (int step = 0; step < stop; ++step) engine->Step();
    cancel.Set();
    Drain(*engine, {*job});
    ExpectAllReturned(*engine);
    EXPECT_EQ(engine->stats().running, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompressionBitsTest, ::testing::ValuesIn(CompressionCases()),
                         CompressionCaseName);

// Five at once, drawn at random, in a roomy arena and in one where they wait.
TEST(CompressionTogetherTest, AnyFiveAnswerAsAlone) {
  const auto model = TinyModel({});
  const std::vector<CompressionCase> cases = CompressionCases();
  RngSequence rng{Rng(5)};
  for (int round = 0; round < 12; ++round) {
    TinyEngineOptions options = CompressionEngine(16 + static_cast<int64_t>(rng.Below(100)));
    options.arena_groups = round % 2 == 0 ? 0 : 40;
    if (round % 3 == 0) options.host_bytes = 0;
    auto engine = MakeTinyEngine(model, options);
    std::vector<Request> requests;
    std::vector<Answer> alone;
    std::string names;
    for (int i = 0; i < 5; ++i) {
      const CompressionCase& c = cases[rng.Below(cases.size())];
      const int64_t answer = 1 + static_cast<int64_t>(rng.Below(60));
      const uint64_t seed = 1 + rng.Below(2);
      names += c.name + " ";
      alone.push_back(
          AnswerOf(*MakeTinyEngine(model, CompressionEngine(512)), CompressionRequest(c, answer, seed)));
      requests.push_back(CompressionRequest(c, answer, seed));
    }
    const std::vector<Answer> together = AnswersTogether(*engine, std::move(requests));
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(Difference(alone[i], together[i]), "") << i << " of " << names;
    ExpectAllReturned(*engine);
  }
}

}  // namespace
}  // namespace palimpsest::testing
