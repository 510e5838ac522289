#include "coordinator/placement.h"

#include <gtest/gtest.h>

namespace palimpsest {
namespace {

proto::GenerateRequest Prompt(const std::vector<std::vector<int32_t>>& documents, int64_t conversation_tokens,
                              const std::string& domain = "domain") {
  proto::GenerateRequest request;
  request.set_cache_domain(domain);
  for (const auto& tokens : documents) {
    proto::PromptPart& part = *request.add_parts();
    part.set_sharing(proto::PromptPart::WHOLE);
    part.mutable_tokens()->Assign(tokens.begin(), tokens.end());
  }
  proto::PromptPart& part = *request.add_parts();
  part.set_sharing(proto::PromptPart::FULL_BLOCKS);
  for (int64_t i = 0; i < conversation_tokens; ++i) part.add_tokens(static_cast<int32_t>(i));
  return request;
}

TEST(PlacementTest, ADocumentsRequestsStayWithTheWorkerThatReadIt) {
  Placement placement;
  const std::vector<int32_t> prefix(10, 1), document(500, 2), other(500, 3);
  placement.Remember(7, BeginningsOf(Prompt({prefix, document}, 20)));
  const auto again = BeginningsOf(Prompt({prefix, document}, 60));
  EXPECT_EQ(placement.Choose({5, 7, 9}, again), 7u);
  EXPECT_EQ(placement.Choose({5, 9}, again), 5u) << "it is gone";
  placement.Begin(7, 400);
  EXPECT_EQ(placement.Choose({5, 7, 9}, again), 7u) << "reading it anew costs more";
  EXPECT_EQ(placement.Choose({5, 7, 9}, BeginningsOf(Prompt({prefix, other}, 20))), 5u);
  placement.Begin(7, 400);
  EXPECT_EQ(placement.Choose({5, 7, 9}, again), 5u) << "it is much busier";
  placement.End(7, 400);
  EXPECT_EQ(placement.Choose({5, 7, 9}, again), 7u);
}

TEST(PlacementTest, AConversationsNextTurnGoesWhereTheLastOneWent) {
  Placement placement;
  placement.Remember(3, BeginningsOf(Prompt({{1, 2}}, 600)));
  EXPECT_EQ(placement.Choose({1, 3}, BeginningsOf(Prompt({{1, 2}}, 900))), 3u);
}

TEST(PlacementTest, ATenantsRoutingDoesNotDependOnAnothers) {
  Placement placement;
  const std::vector<int32_t> document(500, 2);
  placement.Remember(7, BeginningsOf(Prompt({document}, 20, "one")));
  EXPECT_EQ(placement.Choose({5, 7}, BeginningsOf(Prompt({document}, 20, "two"))), 5u);
}

TEST(PlacementTest, TheLeastLoadedGetsWhatNobodyHas) {
  Placement placement;
  EXPECT_EQ(placement.Choose({}, {}), std::nullopt);
  placement.Begin(1, 10);
  placement.Begin(2, 5);
  EXPECT_EQ(placement.Choose({1, 2}, {}), 2u);
}

TEST(PlacementTest, TheLongestUnusedAreForgotten) {
  Placement placement;
  placement.Remember(9, {{.key = 1, .tokens = 100}, {.key = 2, .tokens = 100}});
  for (uint64_t key = 10; key < 10 + Placement::kRememberedMax - 1; ++key) {
    placement.Remember(8, {{.key = key, .tokens = 1}});
  }
  EXPECT_EQ(placement.Choose({7, 9}, {{.key = 1, .tokens = 100}}), 7u);
  EXPECT_EQ(placement.Choose({7, 9}, {{.key = 2, .tokens = 100}}), 9u);
}

}  // namespace
}  // namespace palimpsest
