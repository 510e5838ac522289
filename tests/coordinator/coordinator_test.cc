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
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
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
  request.question_visible = true;
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

}  // namespace
}  // namespace palimpsest::testing
