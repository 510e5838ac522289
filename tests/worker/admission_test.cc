// What is let in, what waits, what is refused, and that everything taken comes back (I-12, I-13, I-15).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "proto/base/status.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

using ::testing::HasSubstr;

class AdmissionTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> Make(int64_t arena_groups, int64_t chunk_tokens = 32, int64_t host_bytes = 0) {
    TinyEngineOptions options;
    options.threads = 1;
    options.chunk_tokens = chunk_tokens;
    options.arena_groups = arena_groups;
    options.host_bytes = host_bytes;
    return MakeTinyEngine(model_, options);
  }
  absl::Status Refusal(Engine& engine, Request request) {
    const auto job = engine.Submit(std::move(request));
    EXPECT_FALSE(job.ok());
    EXPECT_FALSE(engine.Step()) << "what is refused leaves nothing to do";
    return job.status();
  }

  const std::shared_ptr<const GgufFile> model_ = TinyModel({.context = 512});
};

TEST_F(AdmissionTest, WhatNeverFitsIsRefusedWithNumbers) {
  auto engine = Make(6);
  const int64_t group_bytes = engine->store().shape().tiles() * engine->store().arena().tile_bytes();
  // 1 + 4 + 1 groups of the prompt, one for the answer, one to spare.
  const absl::Status status = Refusal(*engine, MakeRequest(Prompt(200, 10), 30));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr("231 tokens"));
  EXPECT_THAT(Message(status), HasSubstr(fmt::format("{} bytes", 8 * group_bytes)));
  EXPECT_THAT(Message(status), HasSubstr(fmt::format("{}", 6 * group_bytes)));
  EXPECT_THAT(Message(status), HasSubstr("device.arena_bytes"));
  RunOk(*engine, MakeRequest(Prompt(100, 10), 30));  // 1 + 2 + 1 + 2: just fits
  ExpectAllReturned(*engine);
}

TEST_F(AdmissionTest, ManyRequestsInASmallArenaWaitAndFinish) {
  for (const int64_t host_bytes : {0, 1 << 22}) {
    auto engine = Make(7, 32, host_bytes), large = Make(0);
    std::vector<Engine::JobId> jobs;
    std::vector<std::pair<std::vector<Segment>, int64_t>> requests;
    for (uint64_t i = 0; i < 30; ++i) {
      requests.emplace_back(
          Prompt(1 + 37 * static_cast<int64_t>(i) % 120, 1 + static_cast<int64_t>(i) % 9, i % 5),
          1 + static_cast<int64_t>(i * 13 % 64));
      jobs.push_back(engine->Submit(MakeRequest(requests[i].first, requests[i].second)).value());
    }
    while (engine->Step()) {
      ASSERT_LE(engine->store().arena().used_tiles(), engine->store().arena().capacity_tiles());
    }
    for (size_t i = 0; i < jobs.size(); ++i) {
      const auto outcome = engine->Take(jobs[i]);
      ASSERT_NE(outcome, nullptr) << i;
      EXPECT_EQ(outcome->tokens.size(), static_cast<size_t>(requests[i].second));
      EXPECT_EQ(Difference(*outcome, RunOk(*large, MakeRequest(requests[i].first, requests[i].second))), "");
      EXPECT_EQ(engine->Take(jobs[i]), nullptr) << "an outcome is taken once";
    }
    ExpectAllReturned(*engine);
  }
}

TEST_F(AdmissionTest, FirstComeFirstServed) {
  auto engine = Make(6);
  // The second does not fit beside the first; the third would, but does not overtake.
  std::vector<int> order;
  const auto submit = [&](int64_t document, int64_t answer, int name) {
    Request request = MakeRequest(Prompt(document, 5), answer);
    request.on_prefill = [&order, name](int64_t done, int64_t total) {
      if (done == total) order.push_back(name);
    };
    return engine->Submit(std::move(request)).value();
  };
  const auto jobs = {submit(10, 60, 1), submit(100, 5, 2), submit(1, 1, 3)};
  Drain(*engine, jobs);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

// One step has room for fewer rows than there are sessions: all end all the same.
TEST_F(AdmissionTest, MoreSessionsThanRowsInAStepAllEnd) {
  auto engine = Make(0, /*chunk_tokens=*/3), large = Make(0);
  std::vector<Engine::JobId> jobs;
  for (uint64_t i = 0; i < 8; ++i) jobs.push_back(engine->Submit(MakeRequest(Prompt(5, 2, i), 20)).value());
  const std::vector<Outcome> outcomes = Drain(*engine, jobs);
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(Difference(outcomes[i], RunOk(*large, MakeRequest(Prompt(5, 2, i), 20))), "");
  }
  ExpectAllReturned(*engine);
}

TEST_F(AdmissionTest, CancelledInPrefillGivesAllBack) {
  auto engine = Make(8);
  CancelToken cancel;
  Request request = MakeRequest(Prompt(200, 10), 10);
  request.cancel = &cancel;
  int chunks = 0;
  request.on_prefill = [&](int64_t, int64_t) {
    if (++chunks == 3) cancel.Set();
  };
  const auto outcome = engine->Run(std::move(request));
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(chunks, 3);
  EXPECT_TRUE(outcome->tokens.empty());
  EXPECT_EQ(outcome->finish_reason, "");
  // What it sealed stays: 96 tokens were run, the prefix and one block of the document are whole.
  EXPECT_EQ(RunOk(*engine, MakeRequest(Prompt(200, 10), 10)).usage.cached_tokens(), 21 + 64);
  ExpectAllReturned(*engine);
}

TEST_F(AdmissionTest, CancelledInDecodeKeepsWhatWasSaid) {
  auto engine = Make(8), other = Make(8);
  const Outcome whole = RunOk(*other, MakeRequest(Prompt(20, 10), 30));
  CancelToken cancel;
  Request request = MakeRequest(Prompt(20, 10), 30);
  request.cancel = &cancel;
  std::string streamed;
  request.on_text = [&](std::string_view text, int32_t) {
    streamed += text;
    if (streamed.size() > 12) cancel.Set();
  };
  const auto outcome = engine->Run(std::move(request));
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->status.code(), absl::StatusCode::kCancelled);
  ASSERT_GT(outcome->tokens.size(), 0u);
  ASSERT_LT(outcome->tokens.size(), 30u);
  EXPECT_EQ(outcome->tokens,
            std::vector<int32_t>(whole.tokens.begin(), whole.tokens.begin() + std::ssize(outcome->tokens)));
  EXPECT_EQ(outcome->text, streamed);
  EXPECT_EQ(outcome->usage.completion_tokens(), std::ssize(outcome->tokens));
  ExpectAllReturned(*engine);
}

TEST_F(AdmissionTest, CancelledInTheQueueLeavesAtTheNextStep) {
  auto engine = Make(6);
  CancelToken cancel;
  const auto running = engine->Submit(MakeRequest(Prompt(100, 10), 30)).value();
  const auto blocked = engine->Submit(MakeRequest(Prompt(100, 10, 2), 30)).value();
  Request request = MakeRequest(Prompt(100, 10, 3), 30);
  request.cancel = &cancel;
  const auto queued = engine->Submit(std::move(request)).value();  // behind one that does not fit yet
  engine->Step();
  EXPECT_EQ(engine->Take(queued), nullptr);
  cancel.Set();
  engine->Step();
  const auto outcome = engine->Take(queued);
  ASSERT_NE(outcome, nullptr);
  EXPECT_EQ(outcome->status.code(), absl::StatusCode::kCancelled);
  for (const Outcome& other : Drain(*engine, {running, blocked})) {
    EXPECT_TRUE(other.status.ok());
    EXPECT_EQ(other.tokens.size(), 30u);
  }
  ExpectAllReturned(*engine);
}

TEST_F(AdmissionTest, CancelledBeforeTheFirstStepEnds) {
  auto engine = Make(6);
  CancelToken cancel;
  cancel.Set();
  Request request = MakeRequest(Prompt(10, 3), 3);
  request.cancel = &cancel;
  const auto outcome = engine->Run(std::move(request));
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine->store().arena().used_tiles(), 0);
}

TEST_F(AdmissionTest, AnEngineMayGoWithRequestsInIt) {
  auto engine = Make(6);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(engine->Submit(MakeRequest(Prompt(100, 10, i), 30)).ok());
  for (int step = 0; step < 6; ++step) engine->Step();
  engine.reset();
}

TEST_F(AdmissionTest, AnEmptyPromptIsRefused) {
  auto engine = Make(6);
  for (const auto& segments : {std::vector<Segment>{}, {Segment{}, Segment{.shared = true}}}) {
    const absl::Status status = Refusal(*engine, MakeRequest(segments, 1));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr("empty"));
  }
}

TEST_F(AdmissionTest, ATokenOutsideTheVocabularyIsRefusedWithBothNumbers) {
  auto engine = Make(6);
  for (const int32_t id : {-1, 300, INT32_MAX, INT32_MIN}) {
    const absl::Status status = Refusal(*engine, MakeRequest({{.tokens = {5, id}}}, 1));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr(fmt::format("{}", id)));
    EXPECT_THAT(Message(status), HasSubstr("300"));
  }
}

TEST_F(AdmissionTest, APromptBeyondTheWindowIsRefusedWithBothNumbers) {
  auto engine = Make(0);
  absl::Status status = Refusal(*engine, MakeRequest(Prompt(500, 10), 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("531 tokens"));
  EXPECT_THAT(Message(status), HasSubstr("window of 512"));
  status = Refusal(*engine, MakeRequest({{.tokens = RandomTokens(512, 1)}}, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "no room for an answer";
  RunOk(*engine, MakeIngest({{.tokens = RandomTokens(512, 1), .shared = true}}));
}

TEST_F(AdmissionTest, AnAnswerEndsWithTheWindow) {
  auto engine = Make(0);
  const Outcome outcome = RunOk(*engine, MakeRequest({{.tokens = RandomTokens(500, 1)}}, 1000));
  EXPECT_EQ(outcome.tokens.size(), 12u);
  EXPECT_EQ(outcome.finish_reason, "length");
}

TEST_F(AdmissionTest, ASharedSegmentAfterOneThatIsNotIsRefused) {
  auto engine = Make(0);
  const std::vector<int32_t> tokens = RandomTokens(40, 1);
  const absl::Status status =
      Refusal(*engine, MakeRequest({{.tokens = tokens}, {.tokens = tokens, .shared = true}}, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  RunOk(*engine, MakeRequest({Segment{}, {.tokens = tokens, .shared = true}}, 1));
}

TEST_F(AdmissionTest, SamplingOutOfRangeIsRefused) {
  auto engine = Make(0);
  Request request = MakeRequest(Prompt(10, 3), 1);
  request.sampling.set_temperature(-1);
  EXPECT_THAT(Message(Refusal(*engine, request)), HasSubstr("temperature is -1"));
}

TEST_F(AdmissionTest, AnArenaBelowOneBlockIsRefusedAtTheStart) {
  EngineOptions options;
  options.backend.threads = {.threads = 1, .pin = false};
  options.arena_bytes = 1000;
  const auto engine = Engine::Create(model_, nullptr, options);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(engine.status()), HasSubstr("1000"));
}

TEST_F(AdmissionTest, AnEndTokenEndsTheAnswerAndIsNoPartOfIt) {
  auto engine = Make(0);
  Request request = MakeRequest(Prompt(10, 3), 480);
  request.sampling.set_temperature(3);  // each token about as likely: two of 300 are ends
  bool ended = false;
  for (uint64_t seed = 1; seed < 20 && !ended; ++seed) {
    request.sampling.set_seed(seed);
    request.ignore_end = true;
    const std::vector<int32_t> endless = RunOk(*engine, request).tokens;
    ASSERT_EQ(endless.size(), 478u) << "the window's rest";
    const auto end =
        std::find_if(endless.begin(), endless.end(), [](int32_t id) { return id == 0 || id == 2; });
    ended = end != endless.end();
    if (!ended) continue;
    request.ignore_end = false;
    const Outcome outcome = RunOk(*engine, request);
    EXPECT_EQ(outcome.finish_reason, "stop");
    EXPECT_EQ(outcome.tokens, std::vector<int32_t>(endless.begin(), end + 1));
    EXPECT_EQ(outcome.usage.completion_tokens(), end - endless.begin());
    EXPECT_EQ(outcome.text.find("<|im_end|>"), std::string::npos);
    EXPECT_EQ(outcome.text.find("<|endoftext|>"), std::string::npos);
  }
  EXPECT_TRUE(ended);
}

TEST_F(AdmissionTest, AStopStringEndsTheAnswerBeforeIt) {
  auto engine = Make(0);
  Request request = MakeRequest(Prompt(10, 3), 100);
  const std::string text = RunOk(*engine, request).text;
  ASSERT_GT(text.size(), 60u);
  size_t cut = 40;  // at the start of a character
  while ((static_cast<uint8_t>(text[cut]) & 0xc0) == 0x80) ++cut;
  size_t end = cut + 5;
  while ((static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) ++end;
  const std::string stop = text.substr(cut, end - cut);
  request.sampling.add_stop(stop);
  std::string streamed;
  request.on_text = [&](std::string_view part, int32_t) { streamed += part; };
  const Outcome outcome = RunOk(*engine, request);
  EXPECT_EQ(outcome.text, text.substr(0, text.find(stop)));
  EXPECT_EQ(streamed, outcome.text);
  EXPECT_EQ(outcome.finish_reason, "stop");
  EXPECT_LT(outcome.tokens.size(), 100u);
}

}  // namespace
}  // namespace palimpsest::testing
