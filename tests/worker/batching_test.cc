// Many requests at once: each gets what it would get alone, bit for bit, whoever comes, leaves or is stopped
// beside it, and however steps are cut; and all that was taken comes back (I-12, B11, F22, F24).
#include <gtest/gtest.h>

#include <bit>

#include "proto/base/rng.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

// What a client sees of one answer.
struct Seen {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<uint64_t> log_probabilities;  // bits
  bool operator==(const Seen&) const = default;
};

class BatchingTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> Make(int64_t chunk_tokens, int64_t arena_groups, int64_t host_bytes = 0,
                               double step_seconds = 0, const Clock* clock = &RealClock()) {
    TinyEngineOptions options;
    options.threads = 1;
    options.chunk_tokens = chunk_tokens;
    options.arena_groups = arena_groups;
    options.host_bytes = host_bytes;
    options.step_seconds = step_seconds;
    options.clock = clock;
    return MakeTinyEngine(model_, options);
  }
  // One of twelve kinds: lengths, sharing, sampling, priority.
  static Request RequestOf(uint64_t kind) {
    const int64_t k = static_cast<int64_t>(kind);
    std::vector<Segment> segments = Prompt(1 + 53 * k % 260, kind % 3 == 0 ? 0 : 1 + 17 * k % 80, kind % 3);
    if (kind % 4 == 1) {
      segments.back() = {.tokens = RandomTokens(90 + k, kind), .shared = true, .full_blocks = true};
    }
    Request request = MakeRequest(std::move(segments), kind % 6 == 5 ? 0 : 1 + 29 * k % 70);
    request.top = 0;
    request.logprobs = true;
    request.sampling.set_temperature(kind % 2 == 0 ? 1 : 0);
    if (kind % 5 == 0) request.sampling.set_repetition_penalty(1.2);
    request.background = kind % 6 == 5 || kind % 7 == 3;
    return request;
  }
  static void Watch(Request& request, Seen& seen) {
    request.on_token = [&seen](const AnswerToken& token) {
      ASSERT_EQ(token.sequence, std::ssize(seen.tokens));
      seen.tokens.push_back(token.token);
      seen.text += token.text;
      seen.log_probabilities.push_back(std::bit_cast<uint64_t>(token.log_probability));
    };
  }
  Seen Alone(uint64_t kind) {
    Seen seen;
    Request request = RequestOf(kind);
    Watch(request, seen);
    seen.text += RunOk(*Make(512, 0), std::move(request)).rest;
    return seen;
  }
  static int64_t Pinned(Engine& engine) {
    return engine.store().arena().capacity_tiles() - engine.store().available_tiles();
  }

  static constexpr uint64_t kKinds = 12;
  const std::shared_ptr<const GgufFile> model_ = TinyModel({.context = 512});
};

struct Running {
  uint64_t kind = 0;
  Engine::JobId id = 0;
  Seen seen;
  CancelToken cancel;
  int64_t cancel_step = -1;  // -1: never
  std::atomic<bool> paused{false};
};

TEST_F(BatchingTest, EachGetsWhatItWouldGetAlone) {
  std::vector<Seen> alone;
  for (uint64_t kind = 0; kind < kKinds; ++kind) alone.push_back(Alone(kind));
  int64_t stopped = 0, cancelled = 0, cached = 0;
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    RngSequence rng{Rng(seed)};
    const int64_t chunk = std::vector<int64_t>{1, 5, 33, 70, 128, 512}[rng.Below(6)];
    const int64_t groups = rng.Below(2) == 0 ? 10 : 25;
    auto engine = Make(chunk, groups, rng.Below(2) == 0 ? 0 : 1 << 20, rng.Below(2) == 0 ? 0 : 1e-3);
    std::vector<std::unique_ptr<Running>> all;
    int64_t step = 0;
    bool more = true;
    for (uint64_t submitted = 0; submitted < 16 || more; ++step) {
      if (submitted < 16 && rng.Below(4) == 0) {
        auto one = std::make_unique<Running>();
        one->kind = rng.Below(kKinds);
        if (rng.Below(5) == 0) one->cancel_step = step + static_cast<int64_t>(rng.Below(40));
        Request request = RequestOf(one->kind);
        Watch(request, one->seen);
        request.cancel = &one->cancel;
        request.paused = &one->paused;
        const auto id = engine->Submit(std::move(request));
        ASSERT_TRUE(id.ok()) << id.status();
        one->id = *id;
        all.push_back(std::move(one));
        ++submitted;
      }
      for (auto& one : all) {
        if (one->cancel_step == step) one->cancel.Set();
        one->paused = submitted < 16 && rng.Below(10) == 0;
      }
      more = engine->Step();
      ASSERT_LE(engine->store().arena().used_tiles(), engine->store().arena().capacity_tiles());
      ASSERT_LT(step, 100000) << "no end";
      if (!more) {  // who was paused goes on
        for (auto& one : all) one->paused = false;
        more = engine->Step();
      }
    }
    for (auto& one : all) {
      const auto outcome = engine->Take(one->id);
      ASSERT_NE(outcome, nullptr) << "seed " << seed << " kind " << one->kind;
      if (outcome->status.ok()) {
        one->seen.text += outcome->rest;
        EXPECT_EQ(one->seen, alone[one->kind]) << "seed " << seed << " kind " << one->kind;
        EXPECT_EQ(outcome->tokens, alone[one->kind].tokens);
      } else {
        EXPECT_TRUE(one->cancel.IsSet());
        EXPECT_TRUE(
            std::equal(one->seen.tokens.begin(), one->seen.tokens.end(), alone[one->kind].tokens.begin()));
        ++cancelled;
      }
    }
    stopped += engine->stats().preemptions;
    cached += engine->stats().cached_tokens;
    EXPECT_EQ(engine->stats().running + engine->stats().waiting, 0);
    EXPECT_EQ(Pinned(*engine), 0);
    ExpectAllReturned(*engine);
  }
  EXPECT_GT(stopped, 0) << "background requests gave way";
  EXPECT_GT(cancelled, 10);
  EXPECT_GT(cached, 1000);
}

// Three want the same document: one computes it, the others wait and find it.
TEST_F(BatchingTest, WhatIsBeingComputedIsWaitedFor) {
  for (const int64_t chunk : {20, 64, 100, 512}) {
    auto engine = Make(chunk, 0);
    std::vector<Engine::JobId> jobs;
    for (int i = 0; i < 3; ++i) jobs.push_back(engine->Submit(MakeRequest(Prompt(300, 9), 5)).value());
    const std::vector<Outcome> outcomes = Drain(*engine, jobs);
    EXPECT_EQ(engine->stats().prefilled_tokens, 321 + 3 * 9) << "chunks of " << chunk;
    EXPECT_EQ(outcomes[0].usage.cached_tokens(), 0);
    EXPECT_EQ(outcomes[1].usage.cached_tokens(), 321);
    EXPECT_EQ(outcomes[2].usage.cached_tokens(), 321);
    ExpectAllReturned(*engine);
  }
}

TEST_F(BatchingTest, IfItsComputerIsCancelledAnotherGoesOn) {
  for (int64_t cancel_step = 1; cancel_step < 12; ++cancel_step) {
    auto engine = Make(40, 0);
    CancelToken cancel;
    Request first = MakeRequest(Prompt(300, 9), 5);
    first.cancel = &cancel;
    const auto gone = engine->Submit(first).value();
    const std::vector<Engine::JobId> jobs = {engine->Submit(MakeRequest(Prompt(300, 9), 5)).value(),
                                             engine->Submit(MakeRequest(Prompt(300, 9, 2), 5)).value()};
    for (int64_t step = 0; step < cancel_step; ++step) engine->Step();
    cancel.Set();
    const std::vector<Outcome> outcomes = Drain(*engine, jobs);
    EXPECT_EQ(Difference(outcomes[0], RunOk(*Make(512, 0), MakeRequest(Prompt(300, 9), 5))), "");
    EXPECT_EQ(engine->Take(gone)->status.code(), absl::StatusCode::kCancelled);
    ExpectAllReturned(*engine);
  }
}

// A question needs what an ingest is computing: the ingest goes as fast as the question would.
TEST_F(BatchingTest, AQuestionUrgesTheIngestItWaitsFor) {
  auto engine = Make(64, 0);
  const auto ingest = [&](uint64_t seed) {
    Request request = MakeIngest(Prompt(400, 0, seed, 0));
    request.background = true;
    return engine->Submit(request).value();
  };
  const auto wanted = ingest(1);
  engine->Step();
  const auto other = ingest(2);
  const auto question = engine->Submit(MakeRequest(Prompt(400, 9, 1, 0), 1)).value();
  int64_t steps = 0;
  std::unique_ptr<Outcome> outcome;
  for (; outcome == nullptr && steps < 100; ++steps) {
    engine->Step();
    outcome = engine->Take(question);
  }
  EXPECT_LE(steps, 10) << "336 tokens are left, 56 a step";
  Drain(*engine, {wanted, other});
}

TEST_F(BatchingTest, ABackgroundRequestGivesWayAndEndsLater) {
  for (const int64_t host_bytes : {0, 1 << 22}) {
    auto engine = Make(32, 10, host_bytes);
    Request ingest = MakeRequest(Prompt(300, 0, 5), 60);
    ingest.background = true;
    Seen seen;
    Watch(ingest, seen);
    const Outcome alone = RunOk(*Make(512, 0), MakeRequest(Prompt(300, 0, 5), 60));
    const auto background = engine->Submit(std::move(ingest)).value();
    for (int step = 0; step < 35; ++step) engine->Step();  // it decodes
    EXPECT_GT(seen.tokens.size(), 10u);
    const auto question = engine->Submit(MakeRequest(Prompt(100, 9, 1), 20)).value();
    engine->Step();
    EXPECT_EQ(engine->stats().preemptions, 1);
    EXPECT_EQ(engine->stats().waiting, 1);
    const std::vector<Outcome> outcomes = Drain(*engine, {background, question});
    EXPECT_EQ(Difference(outcomes[0], alone), "");
    EXPECT_EQ(seen.tokens, alone.tokens) << "nothing is told twice";
    EXPECT_EQ(outcomes[0].usage.cached_tokens(), 0) << "what it found again it had computed itself";
    ExpectAllReturned(*engine);
  }
}

// Questions that never stop coming: the ingest becomes as urgent as they are, and gives way no more.
TEST_F(BatchingTest, ABackgroundRequestEndsThoughOthersKeepComing) {
  ManualClock clock;
  auto engine = Make(64, 8, 0, 0, &clock);
  Request ingest = MakeIngest(Prompt(300, 0, 5));
  ingest.background = true;
  const auto background = engine->Submit(std::move(ingest)).value();
  std::unique_ptr<Outcome> outcome;
  int64_t steps = 0, questions = 0;
  std::vector<Engine::JobId> jobs;
  for (; outcome == nullptr && steps < 2000; ++steps) {
    if (steps % 5 == 0) jobs.push_back(engine->Submit(MakeRequest(Prompt(100, 9, 7), 30)).value());
    engine->Step();
    clock.Advance(std::chrono::milliseconds(100));
    outcome = engine->Take(background);
    while (questions < std::ssize(jobs) && engine->Take(jobs[static_cast<size_t>(questions)]) != nullptr) {
      ++questions;
    }
  }
  ASSERT_NE(outcome, nullptr);
  EXPECT_TRUE(outcome->status.ok());
  EXPECT_GT(questions, 5) << "they went on meanwhile";
  while (engine->Step()) {
  }
}

// A small request passes one that waits for much room, but not for ever.
TEST_F(BatchingTest, SmallRequestsPassALargeOneForAWhile) {
  ManualClock clock;
  auto engine = Make(64, 13, 0, 0, &clock);
  const auto submit = [&](int64_t document, int64_t answer) {
    return engine->Submit(MakeRequest(Prompt(document, 5, 3), answer)).value();
  };
  const auto running = submit(10, 200);  // 8 of 13 groups
  engine->Step();
  const auto large = submit(400, 60);
  const auto small = submit(1, 1);
  for (int step = 0; step < 3; ++step) engine->Step();
  EXPECT_NE(engine->Take(small), nullptr) << "it passed";
  clock.Advance(std::chrono::seconds(6));
  const auto late = submit(1, 1);
  for (int step = 0; step < 20; ++step) engine->Step();
  EXPECT_EQ(engine->Take(late), nullptr) << "now the large one is next";
  EXPECT_EQ(engine->Take(running), nullptr);
  Drain(*engine, {running, large, late});
  ExpectAllReturned(*engine);
}

// A short question beside a long one has its first token long before it.
TEST_F(BatchingTest, AShortQuestionDoesNotWaitForALongPrompt) {
  auto engine = Make(64, 0);
  const auto long_one = engine->Submit(MakeRequest({{.tokens = RandomTokens(500, 1)}}, 2)).value();
  engine->Step();
  const auto short_one = engine->Submit(MakeRequest({{.tokens = RandomTokens(20, 2)}}, 1)).value();
  engine->Step();
  EXPECT_NE(engine->Take(short_one), nullptr) << "in the next step";
  Drain(*engine, {long_one});
}

TEST_F(BatchingTest, DomainsDoNotFindEachOthersBlocks) {
  auto engine = Make(512, 0);
  Request request = MakeRequest(Prompt(200, 9), 3);
  const Outcome first = RunOk(*engine, request);
  CacheDomain domain{};
  domain[31] = 1;
  request.cache_domain = domain;
  const Outcome other = RunOk(*engine, request), again = RunOk(*engine, request);
  EXPECT_EQ(other.usage.cached_tokens(), 0);
  EXPECT_EQ(again.usage.cached_tokens(), 221);
  EXPECT_EQ(Difference(first, other), "");
}

// A conversation that goes on: the next turn finds all full blocks, and only those.
TEST_F(BatchingTest, AConversationsFullBlocksAreFoundByItsNextTurn) {
  auto engine = Make(512, 0);
  const auto turn = [&](int64_t tokens) {
    std::vector<Segment> segments = Prompt(100, 0);
    segments.push_back({.tokens = RandomTokens(tokens, 8), .shared = true, .full_blocks = true});
    return MakeRequest(segments, 4);
  };
  EXPECT_EQ(RunOk(*engine, turn(100)).blocks, 2) << "a full one, in two layers";
  const Outcome second = RunOk(*engine, turn(170));
  EXPECT_EQ(second.usage.cached_tokens(), 121 + 64);
  EXPECT_EQ(Difference(second, RunOk(*Make(50, 0), turn(170))), "");
  // Not shared at all it has the same layout, so the same bits.
  Request own = turn(170);
  own.segments.back().shared = own.segments.back().full_blocks = false;
  EXPECT_EQ(Difference(second, RunOk(*Make(50, 0), own)), "");
  EXPECT_FALSE(engine
                   ->Submit(MakeRequest({{.tokens = RandomTokens(64, 1), .shared = true, .full_blocks = true},
                                         {.tokens = RandomTokens(64, 2), .shared = true}},
                                        1))
                   .ok())
      << "nothing shared may follow";
}

}  // namespace
}  // namespace palimpsest::testing
