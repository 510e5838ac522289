#include "coordinator/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "proto/base/status.h"
#include "tests/coordinator/serving_fixture.h"

namespace palimpsest::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Script = FakeWorkerLink::Script;
using Ingest = Coordinator::Ingest;
using Phase = DocumentState::Phase;

const CancelToken& kNever = CancelToken::Never();

class DocumentsTest : public ::testing::Test {
 protected:
  void Start(
      FakeWorkerLink::Scripts scripts = [](const auto&) { return Script{}; },
      Config config = Serving::TestConfig()) {
    serving_ = std::make_unique<Serving>(std::move(scripts), std::move(config));
  }
  Coordinator& coordinator() { return *serving_->coordinator; }
  DocumentState Add(const std::string& text, const std::string& tenant = "", Ingest ingest = Ingest::kIfNew) {
    const auto added = coordinator().AddDocument("a.txt", text, tenant, ingest);
    EXPECT_TRUE(added.ok()) << added.status();
    return added.value_or(DocumentState());
  }
  // Follows it to its end.
  DocumentState Done(DocumentState state, const std::string& tenant = "") {
    while (state.phase == Phase::kWaiting || state.phase == Phase::kReading) {
      const auto next =
          coordinator().WaitDocument(state.info.id, tenant, state, std::chrono::seconds(20), kNever);
      EXPECT_TRUE(next.ok()) << next.status();
      if (!next.ok()) break;
      state = *next;
    }
    return state;
  }
  std::vector<proto::GenerateRequest> Requests() { return serving_->cluster.links()[0]->requests(); }
  bool KnownWhenAsked(const DocumentState& state, const std::string& tenant = "") {
    RecordingSink sink;
    AnswerRequest request = Ask("what?");
    request.documents = {state.info.id};
    request.tenant = tenant;
    EXPECT_TRUE(coordinator().Answer(request, sink, kNever).ok());
    return Requests().back().parts(1).known();
  }

  std::unique_ptr<Serving> serving_;
};

TEST_F(DocumentsTest, TwoTenantsDoNotSeeEachOthersDocuments) {
  Start();
  const DocumentState a = Done(Add("The same text.", "a"), "a");
  const DocumentState b = Done(Add("The same text.", "b"), "b");
  EXPECT_FALSE(b.already_known);
  EXPECT_NE(a.info.id, b.info.id);
  EXPECT_THAT(*coordinator().ListDocuments("a"), SizeIs(1));
  EXPECT_THAT(*coordinator().ListDocuments(""), IsEmpty());
  const auto not_found = absl::StatusCode::kNotFound;
  EXPECT_EQ(coordinator().GetDocument(b.info.id, "a").status().code(), not_found);
  EXPECT_EQ(coordinator().DocumentText(b.info.id, "a").status().code(), not_found);
  EXPECT_EQ(coordinator().DeleteDocument(b.info.id, "a").code(), not_found);
  EXPECT_EQ(coordinator().WaitDocument(b.info.id, "a", {}, std::chrono::seconds(1), kNever).status().code(),
            not_found);
  RecordingSink sink;
  AnswerRequest request = Ask("what?");
  request.tenant = "a";
  request.documents = {b.info.id};
  EXPECT_EQ(coordinator().Answer(request, sink, kNever).code(), not_found);
  EXPECT_EQ(*coordinator().DocumentText(a.info.id, "a"), "The same text.");
  const auto requests = Requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_NE(requests[0].cache_domain(), requests[1].cache_domain());
}

TEST_F(DocumentsTest, KnownTextIsIngestedAgainOnlyWhenAsked) {
  Start();
  const DocumentState first = Done(Add("Some text."));
  const DocumentState again = Add("Some text.");
  EXPECT_TRUE(again.already_known);
  EXPECT_EQ(again.phase, Phase::kReady);
  EXPECT_THAT(Requests(), SizeIs(1));
  EXPECT_EQ(Done(Add("Some text.", "", Ingest::kAlways)).phase, Phase::kReady);
  EXPECT_THAT(Requests(), SizeIs(2));
}

TEST_F(DocumentsTest, WhatNobodyHasReadIsNotKnownYet) {
  Start();
  const DocumentState stored = Add("Some text.", "", Ingest::kNever);
  EXPECT_EQ(stored.phase, Phase::kReady);
  EXPECT_THAT(Requests(), IsEmpty());
  EXPECT_FALSE(KnownWhenAsked(stored));
  EXPECT_TRUE(KnownWhenAsked(stored));
}

TEST_F(DocumentsTest, ADeleteStopsTheIngestionFirst) {
  Start([](const proto::GenerateRequest& request) {
    return Script{.never_ends = request.priority() == proto::BACKGROUND};
  });
  const DocumentState reading = Add("Some text.");
  const DocumentState waiting = Add("Another text.");
  EXPECT_EQ(coordinator().Status().ingesting, 2);
  EXPECT_TRUE(coordinator().DeleteDocument(waiting.info.id, "").ok());
  EXPECT_TRUE(coordinator().DeleteDocument(reading.info.id, "").ok());
  EXPECT_EQ(serving_->cluster.running(), 0);
  EXPECT_EQ(coordinator().Status().ingesting, 0);
  EXPECT_EQ(coordinator().GetDocument(reading.info.id, "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*coordinator().ListDocuments(""), IsEmpty());
}

TEST_F(DocumentsTest, AWaitEndsWhenTheDocumentIsDeletedCancelledOrLate) {
  Start([](const auto&) { return Script{.prefill_events = 0, .never_ends = true}; });
  const DocumentState state = Add("Some text.");
  DocumentState reading = state;
  while (reading.phase != Phase::kReading) {
    reading = *coordinator().WaitDocument(state.info.id, "", reading, std::chrono::seconds(20), kNever);
  }
  const auto late =
      coordinator().WaitDocument(state.info.id, "", reading, std::chrono::milliseconds(20), kNever);
  EXPECT_EQ(late->phase, Phase::kReading);
  CancelToken cancel;
  cancel.Set();
  EXPECT_EQ(
      coordinator().WaitDocument(state.info.id, "", reading, std::chrono::hours(1), cancel).status().code(),
      absl::StatusCode::kCancelled);
  std::thread deletes([&] { EXPECT_TRUE(coordinator().DeleteDocument(state.info.id, "").ok()); });
  absl::Status gone;
  while (gone.ok()) {
    const auto next =
        coordinator().WaitDocument(state.info.id, "", reading, std::chrono::seconds(20), kNever);
    gone = next.status();
    if (next.ok()) reading = *next;
  }
  EXPECT_EQ(gone.code(), absl::StatusCode::kNotFound);
  deletes.join();
}

TEST_F(DocumentsTest, AFailedIngestionSaysWhyAndTheTextIsThere) {
  Start([](const auto&) { return Script{.refuse = ResourceExhausted("the arena is too small")}; });
  const DocumentState failed = Done(Add("Some text."));
  EXPECT_EQ(failed.phase, Phase::kFailed);
  EXPECT_THAT(failed.error, HasSubstr("the arena is too small"));
  EXPECT_EQ(*coordinator().DocumentText(failed.info.id, ""), "Some text.");
  EXPECT_EQ((*coordinator().ListDocuments(""))[0].phase, Phase::kFailed);
}

TEST_F(DocumentsTest, IngestionSurvivesAWorkersDeath) {
  std::atomic<int> calls{0};
  Start([&](const auto&) { return Script{.prefill_events = 4, .die_after_prefills = calls++ < 3 ? 2 : -1}; });
  const DocumentState state = Done(Add("Some text."));
  EXPECT_EQ(state.phase, Phase::kReady) << state.error;
  EXPECT_EQ(calls, 4);
}

TEST_F(DocumentsTest, BadTextsAreRefusedBeforeTheyAreStored) {
  Config config = Serving::TestConfig();
  config.limits.document_bytes = 10'000;
  Start([](const auto&) { return Script{}; }, config);
  const auto refusal = [&](const std::string& text) {
    const auto added = coordinator().AddDocument("a.txt", text, "", Ingest::kIfNew);
    EXPECT_EQ(added.status().code(), absl::StatusCode::kInvalidArgument);
    return Message(added.status());
  };
  EXPECT_THAT(refusal(""), HasSubstr("'a.txt' is empty"));
  EXPECT_THAT(refusal("ab\xff"), HasSubstr("'a.txt'"));
  EXPECT_THAT(refusal(std::string(10'001, 'x')),
              ::testing::AllOf(HasSubstr("10001 bytes"), HasSubstr("10000")));
  EXPECT_THAT(*coordinator().ListDocuments(""), IsEmpty());
}

TEST_F(DocumentsTest, ALongTextIsReadSpanBySpan) {
  Start([](const auto&) { return Script{}; });
  const DocumentState state = Done(Add(std::string(50'000, 'x')));
  ASSERT_EQ(state.phase, Phase::kReady) << state.error;
  const proto::GenerateRequest sent = serving_->cluster.links()[0]->requests().at(0);
  EXPECT_EQ(sent.prefill(), proto::ANCHORED);
  EXPECT_THAT(sent.policy(), ::testing::StartsWith("snapkv:"));
  ASSERT_GT(sent.parts_size(), 20);
  EXPECT_EQ(sent.parts(0).role(), proto::PromptPart::PREFIX);
  int64_t tokens = 0, blocks = 0, last = 1;
  for (int i = 1; i < sent.parts_size(); ++i) {
    EXPECT_EQ(sent.parts(i).role(), proto::PromptPart::CONTEXT);
    EXPECT_EQ(sent.parts(i).sharing(), proto::PromptPart::WHOLE);
    tokens += sent.parts(i).tokens_size();
    last = (sent.parts(i).tokens_size() + 63) / 64;
    blocks += last;
  }
  EXPECT_EQ(tokens, 50'000);
  EXPECT_EQ(state.host_bytes, 4096);
  EXPECT_EQ(state.ssd_bytes, 2048);
  EXPECT_EQ(state.blocks, 3 * blocks / last);  // the worker told 3 for the last one
}

TEST_F(DocumentsTest, AStopLeavesTheTextAndTheNextCoordinatorHasIt) {
  Start([](const auto&) { return Script{.never_ends = true}; });
  const DocumentState state = Add("Some text.");
  coordinator().Stop();
  EXPECT_EQ(serving_->cluster.running(), 0);
  EXPECT_EQ(*coordinator().DocumentText(state.info.id, ""), "Some text.");
}

TEST_F(DocumentsTest, AStopEndsTheWaitForADocument) {
  Start([](const auto&) { return Script{.never_ends = true}; });
  const DocumentState state = Add("Some text.");
  std::atomic<bool> waits{false};
  std::thread waiter([&] {
    DocumentState seen = state;
    absl::Status ended;
    waits = true;
    while (ended.ok()) {
      const auto next = coordinator().WaitDocument(state.info.id, "", seen, std::chrono::seconds(60), kNever);
      ended = next.status();
      if (next.ok()) seen = *next;
    }
    EXPECT_EQ(ended.code(), absl::StatusCode::kUnavailable) << ended;
    EXPECT_TRUE(RetryAfter(ended).has_value());
  });
  while (!waits) std::this_thread::yield();
  const TimePoint start = std::chrono::steady_clock::now();
  coordinator().Stop();
  waiter.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

// Of two deletes of a document the later one must not take away what was added between them.
TEST_F(DocumentsTest, DeletesAndAddsOfOneDocumentMayCross) {
  Start([](const auto&) { return Script{.before_prefill = std::chrono::microseconds(200)}; });
  const std::string id = Add("Some text.").info.id;
  std::atomic<bool> deleted{false};
  std::vector<std::thread> adds, deletes;
  for (int i = 0; i < 4; ++i) {
    adds.emplace_back([&] {
      while (!deleted) (void)coordinator().AddDocument("a.txt", "Some text.", "", Ingest::kAlways);
    });
    deletes.emplace_back([&] {
      for (int round = 0; round < 500; ++round) (void)coordinator().DeleteDocument(id, "");
    });
  }
  for (std::thread& thread : deletes) thread.join();
  deleted = true;
  for (std::thread& thread : adds) thread.join();
  EXPECT_EQ(Done(Add("Some text.", "", Ingest::kAlways)).phase, Phase::kReady);
}

}  // namespace
}  // namespace palimpsest::testing
