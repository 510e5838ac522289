// A worker without its wire: callers on threads of their own, one engine (under TSan in CI). What is served
// equals what an engine alone gives.
#include "worker/worker_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr seconds kLong(60);  // far beyond what anything here takes

proto::GenerateRequest MessageOf(const Request& request) {
  proto::GenerateRequest message;
  for (const Segment& segment : request.segments) {
    proto::PromptPart& part = *message.add_parts();
    part.mutable_tokens()->Assign(segment.tokens.begin(), segment.tokens.end());
    part.set_sharing(segment.shared ? proto::PromptPart::WHOLE : proto::PromptPart::OWN);
  }
  *message.mutable_sampling() = request.sampling;
  message.set_ignore_end(request.ignore_end);
  return message;
}
proto::GenerateRequest AskFor(int64_t document, int64_t question, int64_t answer, uint64_t seed = 1) {
  return MessageOf(MakeRequest(Prompt(document, question, seed), answer));
}

// All that came of one request.
struct Received {
  absl::Status status;
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<double> logprobs;
  int64_t next_sequence = 0, out_of_order = 0, prefills = 0, done_tokens = 0, cached_tokens = 0;
  std::optional<proto::DoneEvent> done;

  void Take(const proto::GenerateEvent& event) {
    if (event.has_prefill()) {
      ++prefills;
      out_of_order += event.prefill().done_tokens() < done_tokens;
      done_tokens = event.prefill().done_tokens();
      cached_tokens = event.prefill().cached_tokens();
    } else if (event.has_token()) {
      out_of_order += event.token().sequence() != next_sequence++;
      tokens.push_back(event.token().token());
      text += event.token().text();
      logprobs.push_back(event.token().logprob());
    } else {
      done = event.done();
      text += done->text();
    }
  }
};

class WorkerHostTest : public ::testing::Test {
 protected:
  void Start(WorkerHost::Options options = {}, int64_t chunk_tokens = 64, int64_t arena_groups = 0) {
    auto host = WorkerHost::Start([=, this] { return Make(chunk_tokens, arena_groups); }, options);
    ASSERT_TRUE(host.ok()) << host.status();
    host_ = *std::move(host);
  }
  std::unique_ptr<Engine> Make(int64_t chunk_tokens, int64_t arena_groups) {
    TinyEngineOptions options;
    options.threads = 1;
    options.chunk_tokens = chunk_tokens;
    options.arena_groups = arena_groups;
    return MakeTinyEngine(model_, options);
  }
  Received Generate(const proto::GenerateRequest& request, const CancelToken& cancel = CancelToken::Never(),
                    int64_t tokens_max = INT64_MAX) {
    Received received;
    received.next_sequence = request.generated_size();
    received.status = host_->Generate(
        request,
        [&](const proto::GenerateEvent& event) {
          received.Take(event);
          return std::ssize(received.tokens) < tokens_max;
        },
        cancel);
    EXPECT_EQ(received.out_of_order, 0);
    return received;
  }
  Outcome Alone(const Request& request) { return RunOk(*Make(512, 0), request); }
  void ExpectNothingHeld() {
    const proto::WorkerStatus status = host_->Status();
    EXPECT_EQ(status.running(), 0);
    EXPECT_EQ(status.waiting(), 0);
    EXPECT_EQ(status.arena_pinned_bytes(), 0);
  }

  const std::shared_ptr<const GgufFile> model_ = TinyModel({.context = 512});
  std::unique_ptr<WorkerHost> host_;
};

TEST_F(WorkerHostTest, AnAnswerIsTheEngines) {
  Start();
  const Request request = MakeRequest(Prompt(200, 10), 40);
  const Outcome alone = Alone(request);
  for (const int64_t cached : {0, 221}) {
    const Received received = Generate(MessageOf(request));
    ASSERT_TRUE(received.status.ok()) << received.status;
    EXPECT_EQ(received.tokens, alone.tokens);
    EXPECT_EQ(received.text, alone.text);
    ASSERT_TRUE(received.done.has_value());
    EXPECT_EQ(received.done->finish_reason(), "length");
    EXPECT_EQ(received.done->usage().completion_tokens(), 40);
    EXPECT_EQ(received.done->usage().cached_tokens(), cached);
    EXPECT_EQ(received.cached_tokens, cached);
    EXPECT_EQ(received.done_tokens, 231);
    EXPECT_EQ(received.done->blocks(), 2 * 4) << "of the document, in two layers";
  }
  ExpectNothingHeld();
  EXPECT_EQ(host_->Status().generated_tokens(), 80);
  EXPECT_EQ(host_->Status().cached_tokens(), 221);
}

TEST_F(WorkerHostTest, AnIngestIsToldToItsEnd) {
  Start();
  for (const int64_t cached : {0, 221}) {
    const Received received = Generate(MessageOf(MakeIngest(Prompt(200, 0))));
    ASSERT_TRUE(received.status.ok()) << received.status;
    EXPECT_TRUE(received.tokens.empty());
    EXPECT_EQ(received.done_tokens, 221);
    EXPECT_EQ(received.cached_tokens, cached);
    EXPECT_EQ(received.done->usage().prompt_tokens(), 221);
  }
  ExpectNothingHeld();
}

TEST_F(WorkerHostTest, AResumedAnswerGoesOnWithItsNumbers) {
  Start();
  const Request request = MakeRequest(Prompt(100, 10), 30);
  const Outcome alone = Alone(request);
  proto::GenerateRequest resumed = MessageOf(request);
  for (int i = 0; i < 12; ++i) resumed.add_generated(alone.tokens[static_cast<size_t>(i)]);
  const Received received = Generate(resumed);
  ASSERT_TRUE(received.status.ok()) << received.status;
  EXPECT_EQ(received.tokens, std::vector<int32_t>(alone.tokens.begin() + 12, alone.tokens.end()));
  EXPECT_TRUE(alone.text.ends_with(received.text));
  EXPECT_EQ(received.done->usage().completion_tokens(), 30);
}

// 16 callers, four times each; some leave at random points, some are cancelled from outside.
TEST_F(WorkerHostTest, ManyCallersAreServedAsIfAloneAndAllIsGivenBack) {
  Start({}, 40, 30);
  constexpr uint64_t kCallers = 16, kRequests = 4;
  std::vector<Outcome> alone;
  for (uint64_t i = 0; i < 4; ++i) {
    alone.push_back(Alone(MakeRequest(Prompt(40 + 30 * static_cast<int64_t>(i), 5, i), 20)));
  }
  std::atomic<int> wrong{0}, finished{0};
  std::vector<std::thread> callers;
  for (uint64_t c = 0; c < kCallers; ++c) {
    callers.emplace_back([&, c] {
      RngSequence rng{Rng(c)};
      for (uint64_t r = 0; r < kRequests; ++r) {
        const uint64_t which = (c + r) % 4;
        const auto request = AskFor(40 + 30 * static_cast<int64_t>(which), 5, 20, which);
        CancelToken cancel;
        std::thread later;
        int64_t tokens_max = INT64_MAX;
        if (c % 4 == 1) tokens_max = static_cast<int64_t>(rng.Below(20)) + 1;
        if (c % 4 == 2) {
          const milliseconds delay(rng.Below(20));
          later = std::thread([&cancel, delay] {
            std::this_thread::sleep_for(delay);
            cancel.Set();
          });
        }
        const Received received = Generate(request, cancel, tokens_max);
        if (later.joinable()) later.join();
        const std::vector<int32_t>& whole = alone[which].tokens;
        finished += received.status.ok();
        wrong += received.status.ok()
                     ? received.tokens != whole
                     : received.status.code() != absl::StatusCode::kCancelled ||
                           !std::equal(received.tokens.begin(), received.tokens.end(), whole.begin());
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(finished, static_cast<int>(kCallers / 2 * kRequests)) << "those that stay get all";
  ExpectNothingHeld();
}

TEST_F(WorkerHostTest, ASlowListenerHoldsUpOnlyItself) {
  Start({.requests_max = 8, .events_max = 4});
  std::mutex mu;
  std::condition_variable changed;
  bool go_on = false;
  Received slow;
  std::thread listener([&] {
    slow.status = host_->Generate(
        AskFor(30, 5, 200),
        [&](const proto::GenerateEvent& event) {
          slow.Take(event);
          std::unique_lock<std::mutex> lock(mu);
          return changed.wait_for(lock, kLong, [&] { return go_on; });
        },
        CancelToken::Never());
  });
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Generate(AskFor(30, 5, 50, 2)).status.ok());
  // It ran on until its queue was full, and no further.
  const int64_t generated = host_->Status().generated_tokens();
  EXPECT_LE(generated, 5 * 50 + 4);
  {
    const std::lock_guard<std::mutex> lock(mu);
    go_on = true;
    changed.notify_all();
  }
  listener.join();
  EXPECT_TRUE(slow.status.ok()) << slow.status;
  EXPECT_EQ(slow.tokens, Alone(MakeRequest(Prompt(30, 5), 200)).tokens);
  ExpectNothingHeld();
}

TEST_F(WorkerHostTest, AListenerThatLeavesEndsItsRequest) {
  Start();
  const Received received = Generate(AskFor(30, 5, 400), CancelToken::Never(), 3);
  EXPECT_EQ(received.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(received.tokens.size(), 3u);
  ExpectNothingHeld();
  CancelToken cancel;
  cancel.Set();
  EXPECT_EQ(Generate(AskFor(30, 5, 400), cancel).status.code(), absl::StatusCode::kCancelled);
}

TEST_F(WorkerHostTest, AnIdleEngineSleeps) {
  Start();
  ASSERT_TRUE(Generate(AskFor(30, 5, 5)).status.ok());
  const int64_t steps = host_->Status().steps();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(host_->Status().steps(), steps);
  ASSERT_TRUE(Generate(AskFor(30, 5, 5)).status.ok()) << "and wakes (I-13)";
}

TEST_F(WorkerHostTest, DrainLetsWhatRunsEndAndTakesNothingNew) {
  Start();
  std::atomic<bool> started{false};
  Received received;
  std::thread caller([&] {
    received.status = host_->Generate(
        AskFor(30, 5, 300),
        [&](const proto::GenerateEvent& event) {
          received.Take(event);
          started = true;
          return true;
        },
        CancelToken::Never());
  });
  while (!started) std::this_thread::yield();
  EXPECT_TRUE(host_->Drain(kLong));
  caller.join();
  EXPECT_TRUE(received.status.ok()) << received.status;
  EXPECT_EQ(Generate(AskFor(30, 5, 3)).status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(WorkerHostTest, StopHandsBackWhatRuns) {
  Start({.requests_max = 8, .events_max = 4});
  std::vector<Received> received(3);
  std::atomic<int> started{0};
  std::atomic<bool> stopped{false};
  std::vector<std::thread> callers;
  for (Received& one : received) {
    callers.emplace_back([&] {
      one.status = host_->Generate(
          AskFor(30, 5, 200),
          [&](const proto::GenerateEvent& event) {
            one.Take(event);
            if (std::ssize(one.tokens) == 1) ++started;
            while (!one.tokens.empty() && !stopped) std::this_thread::yield();
            return true;
          },
          CancelToken::Never());
    });
  }
  while (started < 3) std::this_thread::yield();
  EXPECT_FALSE(host_->Drain(milliseconds(1)));
  host_->Stop();
  host_->Stop();
  stopped = true;
  for (std::thread& caller : callers) caller.join();
  const std::vector<int32_t> whole = Alone(MakeRequest(Prompt(30, 5), 200)).tokens;
  for (const Received& one : received) {
    EXPECT_EQ(one.status.code(), absl::StatusCode::kUnavailable) << one.status;
    EXPECT_TRUE(std::equal(one.tokens.begin(), one.tokens.end(), whole.begin())) << "what came is valid";
  }
  ExpectNothingHeld();
  EXPECT_EQ(Generate(AskFor(30, 5, 3)).status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(WorkerHostTest, TooManyRequestsAreUnavailable) {
  Start({.requests_max = 1});
  std::optional<absl::Status> second;
  const absl::Status first = host_->Generate(
      AskFor(30, 5, 5),
      [&](const proto::GenerateEvent&) {
        if (!second.has_value()) second = Generate(AskFor(30, 5, 5)).status;
        return true;
      },
      CancelToken::Never());
  EXPECT_TRUE(first.ok()) << first;
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(*second), HasSubstr("1 requests"));
}

TEST_F(WorkerHostTest, WrongRequestsAreRefusedWithNumbers) {
  Start({}, 64, 6);
  const auto expect = [&](const proto::GenerateRequest& request, absl::StatusCode code,
                          const std::string& part) {
    const absl::Status status = Generate(request).status;
    EXPECT_EQ(status.code(), code);
    EXPECT_THAT(Message(status), HasSubstr(part));
  };
  const proto::GenerateRequest good = AskFor(30, 5, 5);
  proto::GenerateRequest bad = good;
  bad.set_cache_domain("short");
  expect(bad, absl::StatusCode::kInvalidArgument, "5 bytes, expected 32");
  bad = good;
  bad.set_top_logprobs(21);
  expect(bad, absl::StatusCode::kInvalidArgument, "21, expected 0 to 20");
  bad = good;
  bad.mutable_parts(0)->set_sharing(static_cast<proto::PromptPart::Sharing>(9));
  expect(bad, absl::StatusCode::kInvalidArgument, "sharing 9");
  bad = good;
  bad.set_priority(static_cast<proto::Priority>(7));
  expect(bad, absl::StatusCode::kInvalidArgument, "priority 7");
  bad = good;
  for (int i = 0; i < 6; ++i) bad.add_generated(3);
  expect(bad, absl::StatusCode::kInvalidArgument,
         "6 tokens were generated already, the answer has at most 5");
  bad = good;
  bad.add_generated(300);
  expect(bad, absl::StatusCode::kInvalidArgument, "token id 300");
  expect(AskFor(600, 5, 5), absl::StatusCode::kInvalidArgument, "window of 512");
  expect(AskFor(400, 5, 5), absl::StatusCode::kResourceExhausted, "device.arena_bytes");
  ExpectNothingHeld();
}

TEST_F(WorkerHostTest, WhatItTellsOfItself) {
  Start({}, 64, 10);
  const WorkerFacts& facts = host_->facts();
  EXPECT_EQ(facts.model_hash, model_->ContentHash().value());
  EXPECT_THAT(facts.key_schema, HasSubstr("numerics_class=cpu"));
  EXPECT_EQ(facts.window_tokens, 512);
  EXPECT_EQ(facts.arena_bytes, host_->Status().arena_bytes());
  EXPECT_GE(facts.bytes_per_token * 64 * 10, facts.arena_bytes);
  EXPECT_LT((facts.bytes_per_token - 1) * 64 * 10, facts.arena_bytes);
}

TEST_F(WorkerHostTest, AnEngineThatCannotBeMadeIsTheStartsError) {
  const auto host =
      WorkerHost::Start([]() -> absl::StatusOr<std::unique_ptr<Engine>> { return NotFound("no model"); }, {});
  EXPECT_EQ(host.status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace palimpsest::testing
