#include "coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "proto/base/status.h"
#include "tests/coordinator/serving_fixture.h"

namespace palimpsest::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Script = FakeWorkerLink::Script;

const CancelToken& kNever = CancelToken::Never();

// Waits for something that must come, bounded.
template <typename Condition>
bool Soon(const Condition& condition) {
  for (int i = 0; i < 10'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

TEST(CoordinatorTest, AnAnswerHasItsTokensItsReceiptAndItsReason) {
  Serving serving;
  RecordingSink sink;
  AnswerRequest request = Ask("What is it?", 12);
  request.options.question_visible = true;
  ASSERT_TRUE(serving.coordinator->Answer(request, sink, kNever).ok());
  EXPECT_THAT(sink.wrong, IsEmpty());
  const proto::GenerateRequest sent = serving.cluster.links()[0]->requests().at(0);
  EXPECT_EQ(sink.texts[0], FakeAnswer(sent));
  EXPECT_EQ(sink.tokens[0], 12);
  EXPECT_EQ(sink.done[0].receipt().question(), "visible");
  EXPECT_EQ(sink.done[0].receipt().policy(), "full");
  EXPECT_THAT(sink.done[0].receipt().prefill_reason(), HasSubstr("fit the model's window of 4096"));
  EXPECT_THAT(sink.done[0].receipt().degraded(), IsEmpty());
  EXPECT_EQ(sent.cache_domain().size(), 32u);
  EXPECT_EQ(sent.priority(), proto::INTERACTIVE);
}

TEST(CoordinatorTest, ADocumentIsIngestedInTheBackgroundAndThenKnown) {
  Serving serving;
  const auto added =
      serving.coordinator->AddDocument("a.txt", "A text of some length.", "", Coordinator::Ingest::kIfNew);
  ASSERT_TRUE(added.ok()) << added.status();
  DocumentState state = *added;
  while (state.phase != DocumentState::Phase::kReady) {
    const auto next =
        serving.coordinator->WaitDocument(state.info.id, "", state, std::chrono::seconds(20), kNever);
    ASSERT_TRUE(next.ok()) << next.status();
    ASSERT_NE(next->phase, DocumentState::Phase::kFailed) << next->error;
    state = *next;
  }
  EXPECT_GT(state.seconds, 0);
  EXPECT_EQ(state.blocks, 3);
  EXPECT_EQ(state.done_tokens, state.total_tokens);
  const proto::GenerateRequest ingest = serving.cluster.links()[0]->requests().at(0);
  EXPECT_EQ(ingest.priority(), proto::BACKGROUND);
  EXPECT_EQ(ingest.sampling().max_tokens(), 0);

  RecordingSink sink;
  AnswerRequest request = Ask("What is it?");
  request.documents = {state.info.id.substr(0, 10)};
  ASSERT_TRUE(serving.coordinator->Answer(request, sink, kNever).ok());
  EXPECT_THAT(sink.documents, ElementsAre(state.info.id));
  const proto::GenerateRequest asked = serving.cluster.links()[0]->requests().at(1);
  ASSERT_EQ(asked.parts_size(), 3);
  EXPECT_TRUE(asked.parts(1).known());
  EXPECT_EQ(asked.parts(1).sharing(), proto::PromptPart::WHOLE);
  EXPECT_EQ(asked.parts(2).sharing(), proto::PromptPart::FULL_BLOCKS);
  EXPECT_EQ(asked.cache_domain(), ingest.cache_domain());
}

TEST(CoordinatorTest, ChoicesRunSideBySideWithTheirOwnSeeds) {
  Serving serving;
  RecordingSink sink;
  AnswerRequest request = Ask("What is it?", 20, /*seed=*/5);
  request.choices = 4;
  ASSERT_TRUE(serving.coordinator->Answer(request, sink, kNever).ok());
  EXPECT_THAT(sink.wrong, IsEmpty());
  ASSERT_EQ(sink.done.size(), 4u);
  for (proto::GenerateRequest sent : serving.cluster.links()[0]->requests()) {
    EXPECT_EQ(sink.texts[static_cast<int64_t>(sent.sampling().seed()) - 5], FakeAnswer(sent));
  }
  EXPECT_NE(sink.texts[0], sink.texts[1]);
}

TEST(CoordinatorTest, AStreamGoesOnWhenItsWorkerDies) {
  Serving serving([](const proto::GenerateRequest& request) {
    return Script{.die_after_tokens = request.generated_size() < 9 ? 3 : -1};
  });
  RecordingSink sink;
  AnswerRequest request = Ask("What is it?", 12);
  request.choices = 2;
  const absl::Status status = serving.coordinator->Answer(request, sink, kNever);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(sink.wrong, IsEmpty());
  for (proto::GenerateRequest sent : serving.cluster.links()[0]->requests()) {
    EXPECT_EQ(sink.texts[static_cast<int64_t>(sent.sampling().seed()) - 1], FakeAnswer(sent));
  }
  EXPECT_THAT(sink.done[0].receipt().degraded(), ::testing::Not(IsEmpty()));
}

TEST(CoordinatorTest, WhatCannotBeIsRefusedWithBothNumbers) {
  Serving serving;
  const auto refusal = [&](const AnswerRequest& request, absl::StatusCode code) {
    RecordingSink sink;
    const absl::Status status = serving.coordinator->Answer(request, sink, kNever);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(sink.starts, 0);
    EXPECT_EQ(RetryAfter(status), std::nullopt);
    return Message(status);
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  AnswerRequest exact = Ask(std::string(5000, 'x'));
  exact.options.prefill = PrefillChoice::kExact;
  EXPECT_THAT(refusal(exact, invalid), AllOf(HasSubstr("prompt"), HasSubstr("50"), HasSubstr("4096")));
  const absl::Status window = [&] {
    RecordingSink sink;
    return serving.coordinator->Answer(Ask("x", 4096), sink, kNever);
  }();
  EXPECT_THAT(Message(window), AllOf(HasSubstr("the answer may have 4096"), HasSubstr("window is 4096")));
  EXPECT_TRUE(IsOverWindow(window));
  AnswerRequest many = Ask("x");
  many.choices = 9;
  EXPECT_THAT(refusal(many, invalid), AllOf(HasSubstr("9 choices"), HasSubstr("1 to 8")));
  AnswerRequest unknown = Ask("x");
  unknown.documents = {"doc-0123456789abcdef"};
  EXPECT_THAT(refusal(unknown, absl::StatusCode::kNotFound), HasSubstr("doc-0123456789abcdef"));

  Serving small([](const auto&) { return Script{}; }, Serving::TestConfig(), /*arena_bytes=*/64 * 64 * 20);
  RecordingSink sink;
  const absl::Status memory = small.coordinator->Answer(Ask(std::string(2000, 'x'), 300), sink, kNever);
  EXPECT_EQ(memory.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(IsOverWindow(memory));
  EXPECT_THAT(Message(memory), AllOf(HasSubstr("81920"), HasSubstr("device.arena_bytes")));
}

TEST(CoordinatorTest, AnAnswerOfNoAskedLengthIsCutToTheRoomThatIsLeft) {
  Serving serving;
  RecordingSink rest;
  ASSERT_TRUE(serving.coordinator->Answer(Ask(std::string(4000, 'x'), 0), rest, kNever).ok());
  EXPECT_EQ(rest.prompt_tokens + rest.tokens[0], kTestWindow);
  RecordingSink usual, refused;
  AnswerRequest request = Ask(std::string(4000, 'x'), 256);
  EXPECT_TRUE(IsOverWindow(serving.coordinator->Answer(request, refused, kNever))) << "it is a wish";
  request.may_cut = true;
  ASSERT_TRUE(serving.coordinator->Answer(request, usual, kNever).ok());
  EXPECT_EQ(usual.prompt_tokens + usual.tokens[0], kTestWindow);
}

TEST(CoordinatorTest, ManyAtOnceAreAllServedInTurn) {
  Config config = Serving::TestConfig();
  config.limits.running = 4;
  Serving serving([](const auto&) { return Script{.between_tokens = std::chrono::microseconds(100)}; },
                  config);
  std::vector<std::thread> clients;
  std::atomic<int64_t> right{0};
  for (int i = 0; i < 32; ++i) {
    clients.emplace_back([&, i] {
      RecordingSink sink;
      AnswerRequest request = Ask("question " + std::to_string(i), 20);
      request.tenant = i % 2 == 0 ? "even" : "odd";
      const bool ok = serving.coordinator->Answer(request, sink, kNever).ok();
      right += ok && sink.wrong.empty() && sink.tokens[0] == 20;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 32);
  EXPECT_LE(serving.cluster.links()[0]->running_most(), 4);
  EXPECT_EQ(serving.coordinator->Status().running, 0);
  EXPECT_EQ(serving.coordinator->Status().waiting, 0);
}

TEST(CoordinatorTest, OverloadIsRefusedQuicklyWithWhenToComeAgain) {
  Config config = Serving::TestConfig();
  config.limits.running = 1;
  config.limits.waiting = 2;
  Serving serving([](const auto&) { return Script{.never_ends = true}; }, config);
  CancelToken leave;
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back([&] {
      RecordingSink sink;
      EXPECT_EQ(serving.coordinator->Answer(Ask("long"), sink, leave).code(), absl::StatusCode::kCancelled);
    });
  }
  EXPECT_TRUE(Soon([&] {
    const CoordinatorStatus status = serving.coordinator->Status();
    return status.running == 1 && status.waiting == 2;
  }));
  RecordingSink sink;
  const TimePoint start = std::chrono::steady_clock::now();
  const absl::Status refused = serving.coordinator->Answer(Ask("one more"), sink, kNever);
  EXPECT_LT(Seconds(std::chrono::steady_clock::now() - start), 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(refused), AllOf(HasSubstr("2 requests with"), HasSubstr("limits.waiting is 2")));
  EXPECT_TRUE(RetryAfter(refused).has_value());
  leave.Set();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(serving.cluster.running(), 0);
}

TEST(CoordinatorTest, ARequestNobodyCanServeEndsInTime) {
  Config config = Serving::TestConfig();
  config.limits.waiting_seconds = 1;
  Serving serving([](const auto&) { return Script{}; }, config);
  serving.cluster.RemoveAll();
  EXPECT_EQ(serving.coordinator->Ready().code(), absl::StatusCode::kUnavailable);
  RecordingSink sink;
  const absl::Status late = serving.coordinator->Answer(Ask("x"), sink, kNever);
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryAfter(late).has_value());

  // The only worker dies under it and does not come back.
  Serving dying([](const auto&) { return Script{.die_after_tokens = 2}; }, config);
  dying.cluster.restart = false;
  RecordingSink half;
  const absl::Status lost = dying.coordinator->Answer(Ask("x"), half, kNever);
  EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(half.tokens[0], 2);
  EXPECT_THAT(half.wrong, IsEmpty());
}

TEST(CoordinatorTest, CancelWorksInEachState) {
  Config config = Serving::TestConfig();
  config.limits.running = 1;
  Serving serving(
      [](const auto&) { return Script{.before_prefill = std::chrono::milliseconds(5), .never_ends = true}; },
      config);
  RecordingSink at_start;
  at_start.stop_at_start = true;
  EXPECT_EQ(serving.coordinator->Answer(Ask("x"), at_start, kNever).code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(serving.cluster.links()[0]->requests(), IsEmpty());
  RecordingSink while_streaming;
  while_streaming.stop_after_tokens = 3;
  EXPECT_EQ(serving.coordinator->Answer(Ask("x"), while_streaming, kNever).code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(while_streaming.tokens[0], 3);

  CancelToken leave_running, leave_queue;
  std::thread running([&] {
    RecordingSink sink;
    EXPECT_EQ(serving.coordinator->Answer(Ask("x"), sink, leave_running).code(),
              absl::StatusCode::kCancelled);
  });
  EXPECT_TRUE(Soon([&] { return serving.coordinator->Status().running == 1; }));
  std::thread queued([&] {
    RecordingSink sink;
    EXPECT_EQ(serving.coordinator->Answer(Ask("x"), sink, leave_queue).code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(sink.starts, 0);
  });
  EXPECT_TRUE(Soon([&] { return serving.coordinator->Status().waiting == 1; }));
  leave_queue.Set();
  queued.join();
  EXPECT_EQ(serving.coordinator->Status().running, 1);
  leave_running.Set();
  running.join();
  EXPECT_EQ(serving.cluster.running(), 0);
  EXPECT_EQ(serving.coordinator->Status().running, 0);
}

TEST(CoordinatorTest, DrainRefusesTheNewLetsTheOldEndAndStopCancelsTheRest) {
  std::atomic<bool> end{false};
  Serving serving([&](const auto&) {
    return Script{.between_tokens = std::chrono::milliseconds(1), .never_ends = !end};
  });
  EXPECT_TRUE(serving.coordinator->Ready().ok());
  absl::Status ended;
  std::thread client([&] {
    RecordingSink sink;
    ended = serving.coordinator->Answer(Ask("x"), sink, kNever);
  });
  EXPECT_TRUE(Soon([&] { return serving.cluster.running() == 1; }));
  EXPECT_FALSE(serving.coordinator->Drain(std::chrono::milliseconds(20)));
  RecordingSink sink;
  const absl::Status refused = serving.coordinator->Answer(Ask("x"), sink, kNever);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryAfter(refused).has_value());
  EXPECT_EQ(serving.coordinator->AddDocument("a", "text", "", Coordinator::Ingest::kIfNew).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_FALSE(serving.coordinator->Ready().ok());
  EXPECT_TRUE(serving.coordinator->Status().draining);
  serving.coordinator->Stop();
  client.join();
  EXPECT_EQ(ended.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(serving.coordinator->Drain(std::chrono::milliseconds(20)));
}

// A front catches what a library throws in its sink, and serves on: nothing of that answer may be left here.
TEST(CoordinatorTest, ASinkThatThrowsLeavesNothingBehind) {
  Serving serving([](const auto&) { return Script{}; });
  class ThrowingSink final : public AnswerSink {
   public:
    explicit ThrowingSink(bool at_start) : at_start_(at_start) {}
    bool OnStart(int64_t, const std::vector<std::string>&) override {
      if (at_start_) throw std::runtime_error("no more threads");
      return true;
    }
    bool OnPrefill(int64_t, int64_t) override { return true; }
    bool OnToken(int64_t choice, const proto::TokenEvent&) override {
      if (choice == 0) throw std::runtime_error("no more memory");
      return true;
    }
    bool OnDone(int64_t, const proto::DoneEvent&) override { return true; }

   private:
    const bool at_start_;
  };
  for (const bool at_start : {true, false}) {
    ThrowingSink sink(at_start);
    AnswerRequest request = Ask("x");
    request.choices = 4;
    EXPECT_THROW((void)serving.coordinator->Answer(request, sink, kNever), std::runtime_error);
    EXPECT_EQ(serving.coordinator->Status().running, 0);
  }
  EXPECT_TRUE(serving.coordinator->Drain(std::chrono::milliseconds(20)));
  serving.coordinator->Stop();
}

TEST(CoordinatorTest, TheMetricsOutliveTheCoordinatorAndCountWhatHappened) {
  const std::unique_ptr<Metrics> metrics = Metrics::Create();
  {
    Serving serving([](const proto::GenerateRequest& request) {
      return Script{.die_after_tokens = request.generated_size() == 0 ? 2 : -1};
    });
    auto coordinator =
        Coordinator::Create({.config = Serving::TestConfig(),
                             .model = ByteModel(),
                             .open_catalog = [&] { return Catalog::Open(serving.folder.path()); },
                             .registry = serving.cluster.registry(),
                             .metrics = metrics.get()});
    ASSERT_TRUE(coordinator.ok());
    RecordingSink sink;
    ASSERT_TRUE((*coordinator)->Answer(Ask("x", 5), sink, kNever).ok());
    EXPECT_THAT(metrics->Text(), HasSubstr("palimpsest_workers 1"));
  }
  const std::string text = metrics->Text();
  EXPECT_THAT(text, HasSubstr("palimpsest_failovers_total 1"));
  EXPECT_THAT(text, HasSubstr("palimpsest_generation_tokens_total 5"));
  EXPECT_THAT(text, HasSubstr("palimpsest_request_success_total{finished_reason=\"length\"} 1"));
}

}  // namespace
}  // namespace palimpsest::testing
