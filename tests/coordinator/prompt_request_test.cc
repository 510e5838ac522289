// What a prompt needs of a worker, by how it is read, and what a worker is told.
#include "coordinator/prompt_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"
#include "tests/coordinator/serving_fixture.h"

namespace palimpsest::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kBlockBytes = 64 * 64;  // of the fake workers: 64 bytes for a token
constexpr int64_t kDefaultTokens = 256;

PromptPlan PlanOf(int64_t document_tokens, std::string_view policy, std::string_view recall = "none") {
  PromptOptions options{.policy = *ParsePolicy(policy), .recall = *ParseRecall(recall)};
  std::vector<PromptDocument> documents;
  if (document_tokens > 0) {
    documents.push_back(
        {.name = "a", .tokens = std::vector<int32_t>(static_cast<size_t>(document_tokens), 'x')});
  }
  auto plan = ByteModel().planner->PlanQuestion(std::move(documents), "What is it?", options);
  PALIMPSEST_CHECK(plan.ok(), "{}", Message(plan.status()));
  return std::move(*plan);
}

absl::StatusOr<Admission::Need> Fit(const PromptPlan& plan, int64_t max_tokens, int64_t arena_blocks,
                                    bool may_cut = false) {
  const FakeCluster cluster([](const auto&) { return FakeWorkerLink::Script(); }, arena_blocks * kBlockBytes);
  return FitAnswer(plan, max_tokens,
                   {.window_tokens = kTestWindow, .default_tokens = kDefaultTokens, .may_cut = may_cut},
                   *cluster.registry());
}

int64_t BlocksOf(const PromptPlan& plan, int64_t max_tokens) {
  return Fit(plan, max_tokens, 1 << 20)->bytes / kBlockBytes;
}

TEST(FitAnswerTest, AFullPromptNeedsAllOfIt) {
  const PromptPlan plan = PlanOf(3000, "full");
  EXPECT_EQ(BlocksOf(plan, 64), 1 + 1 + 47 + 1 + 1);  // prefix, document, question, a partial one, the answer
  EXPECT_EQ(Fit(plan, 0, 1 << 20)->answer_tokens, kTestWindow - plan.tokens);
}

TEST(FitAnswerTest, ACompressedExactPromptNeedsItsPeakAndThenItsBudget) {
  const PromptPlan plan = PlanOf(3000, "snapkv:budget=640");
  const int64_t peak = BlocksOf(plan, 64);
  EXPECT_EQ(peak, BlocksOf(plan, 900)) << "the answer takes the room of what was dropped";
  EXPECT_EQ(peak, 1 + 1 + 47 + 1 + 12) << "the prompt, and what is picked of it";
  EXPECT_EQ(Fit(plan, 0, 1 << 20)->answer_tokens, kTestWindow - plan.tokens) << "positions go on";
  EXPECT_EQ(BlocksOf(PlanOf(3000, "snapkv:budget=4000"), 64), BlocksOf(PlanOf(3000, "full"), 64));
}

// As long as the answer may be, it takes what the text left of the budget, and no more.
TEST(FitAnswerTest, AnAnswerThatEvictsNeedsWhatIsLeftOfItsBudget) {
  const PromptPlan keeps = PlanOf(1000, "tova:budget=640"),
                   evicts = PlanOf(1000, "tova:budget=640,decode=evict");
  EXPECT_EQ(BlocksOf(evicts, 64), BlocksOf(keeps, 64));
  EXPECT_EQ(BlocksOf(evicts, 2500), BlocksOf(evicts, 64));
  EXPECT_GT(BlocksOf(keeps, 2500), BlocksOf(evicts, 2500) + 20);
  const PromptPlan fills = PlanOf(100, "tova:budget=640,decode=evict");
  EXPECT_LT(BlocksOf(fills, 64), BlocksOf(fills, 2500));
  EXPECT_LE(BlocksOf(fills, 2500), 640 / 64 + 8);
}

TEST(FitAnswerTest, AnAnchoredPromptNeedsASpanAndWhatStays) {
  const PromptPlan plan = PlanOf(100'000, "snapkv:budget=1024");
  ASSERT_EQ(plan.mode.prefill, proto::ANCHORED);
  EXPECT_LE(BlocksOf(plan, 64), 50);
  EXPECT_EQ(BlocksOf(plan, 64), BlocksOf(PlanOf(1'000'000, "snapkv:budget=1024"), 64));
  const int64_t question = plan.sizes.question;
  EXPECT_EQ(Fit(plan, 0, 1 << 20)->answer_tokens, kTestWindow - 1024 - question);
  EXPECT_THAT(Message(Fit(plan, 4000, 1 << 20).status()),
              AllOf(HasSubstr(fmt::format("{} tokens", plan.tokens)),
                    HasSubstr(fmt::format("of which {} stay", 1024 + question)), HasSubstr("4096")));
}

TEST(FitAnswerTest, WhatComesBackHasItsRoomToo) {
  EXPECT_EQ(BlocksOf(PlanOf(3000, "snapkv:budget=640", "auto"), 64), 1 + 1 + 47 + 1 + 12 + 16);
  const PromptPlan plan = PlanOf(100'000, "snapkv:budget=1024", "auto");
  EXPECT_EQ(Fit(plan, 0, 1 << 20)->answer_tokens, kTestWindow - 1024 - 512 - plan.sizes.question);
}

TEST(FitAnswerTest, APotNeedsThePotAndAnswersOfAnyLength) {
  const PromptPlan plan = PlanOf(100'000, "infinipot:pot=2048");
  EXPECT_EQ(BlocksOf(plan, 64), 32 + 3);
  EXPECT_EQ(BlocksOf(plan, 100'000), 32 + 3);
  EXPECT_EQ(Fit(plan, 100'000, 1 << 20)->answer_tokens, 100'000);
  EXPECT_EQ(Fit(plan, 0, 1 << 20)->answer_tokens, kDefaultTokens);
}

TEST(FitAnswerTest, WhatNoWorkerHoldsIsRefusedWithBothNumbers) {
  for (const char* policy : {"snapkv:budget=1024", "infinipot:pot=2048"}) {
    const absl::Status status = Fit(PlanOf(100'000, policy), 64, 30).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << policy;
    EXPECT_THAT(Message(status), AllOf(HasSubstr(std::to_string(30 * kBlockBytes)),
                                       HasSubstr("device.arena_bytes"), HasSubstr("prefill")));
  }
  const PromptPlan plan = PlanOf(3000, "full");
  EXPECT_EQ(Fit(plan, 0, 60)->answer_tokens, (60 - 50) * 64) << "cut to what is left";
}

// However short it is: whoever asks for 100 tokens wants no 90.
TEST(FitAnswerTest, OnlyADefaultIsCut) {
  const PromptPlan plan = PlanOf(3000, "full");
  const int64_t room = kTestWindow - plan.tokens;
  EXPECT_EQ(Fit(plan, room, 1 << 20)->answer_tokens, room);
  EXPECT_EQ(Fit(plan, room + 1, 1 << 20, /*may_cut=*/true)->answer_tokens, room);
  EXPECT_TRUE(IsOverWindow(Fit(plan, room + 1, 1 << 20).status()));
  const PromptPlan long_one = PlanOf(kTestWindow - 200, "full");
  ASSERT_EQ(long_one.mode.prefill, proto::EXACT);
  EXPECT_LT(kTestWindow - long_one.tokens, kDefaultTokens);
  EXPECT_TRUE(IsOverWindow(Fit(long_one, kDefaultTokens, 1 << 20).status()));
  EXPECT_EQ(Fit(plan, 11 * 64, 60, /*may_cut=*/true)->answer_tokens, (60 - 50) * 64);
  EXPECT_EQ(Fit(plan, 11 * 64, 60).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(GenerateRequestTest, TellsRolesModePolicyAndCatalyst) {
  AnswerRequest request;
  PromptPlan plan = PlanOf(10'000, "infinipot:pot=2048,catalyst_ids=1/2/3");
  plan.question_visible = true;
  const proto::GenerateRequest pot = GenerateRequestOf(plan, request, 5, "");
  ASSERT_EQ(pot.parts_size(), 3);
  EXPECT_EQ(pot.parts(0).role(), proto::PromptPart::PREFIX);
  EXPECT_EQ(pot.parts(1).role(), proto::PromptPart::CONTEXT);
  EXPECT_EQ(pot.parts(2).role(), proto::PromptPart::QUESTION);
  EXPECT_EQ(pot.prefill(), proto::POT);
  EXPECT_EQ(pot.policy(), PolicyText(plan.mode.policy));
  EXPECT_TRUE(pot.question_visible());
  EXPECT_THAT(pot.catalyst(), ElementsAre(1, 2, 3));
  EXPECT_EQ(pot.sampling().max_tokens(), 5);

  const proto::GenerateRequest chat = GenerateRequestOf(PlanOf(0, "snapkv:budget=1024"), request, 5, "");
  EXPECT_EQ(chat.parts(1).role(), proto::PromptPart::CONTEXT) << "nothing else is there to choose from";

  const proto::GenerateRequest spans = IngestRequest(PlanOf(10'000, "auto"), "");
  EXPECT_EQ(spans.prefill(), proto::ANCHORED);
  ASSERT_GT(spans.parts_size(), 4);
  EXPECT_EQ(spans.parts(2).role(), proto::PromptPart::CONTEXT);
}

// 3 bytes for a token id of a large vocabulary.
TEST(GenerateRequestTest, OfEightMillionTokensFitsAMessage) {
  PromptPlan plan;
  plan.segments = {{PromptSegment::Kind::kDocument, std::vector<int32_t>(8 << 20, 128'000)}};
  const proto::GenerateRequest request = IngestRequest(std::move(plan), "");
  EXPECT_GT(request.ByteSizeLong(), size_t{24} << 20);
  EXPECT_LT(request.ByteSizeLong(), size_t{32} << 20);
}

}  // namespace
}  // namespace palimpsest::testing
