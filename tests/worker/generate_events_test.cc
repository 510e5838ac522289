// What a worker is asked, as the engine takes it.
#include "worker/generate_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

proto::PromptPart& AddPart(proto::GenerateRequest& request, proto::PromptPart::Role role) {
  proto::PromptPart& part = *request.add_parts();
  part.add_tokens(1);
  part.set_role(role);
  return part;
}

TEST(RequestOfTest, RolesPrefillPolicyAndCatalystArrive) {
  proto::GenerateRequest from;
  AddPart(from, proto::PromptPart::PREFIX);
  AddPart(from, proto::PromptPart::CONTEXT);
  AddPart(from, proto::PromptPart::QUESTION);
  from.set_prefill(proto::POT);
  from.set_policy("infinipot:pot=2K,alpha=0.25");
  from.set_question_visible(true);
  from.add_catalyst(7);
  from.add_catalyst(8);
  const auto request = RequestOf(from);
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->segments.size(), 3u);
  EXPECT_EQ(request->segments[0].role, Segment::Role::kPrefix);
  EXPECT_EQ(request->segments[1].role, Segment::Role::kContext);
  EXPECT_EQ(request->segments[2].role, Segment::Role::kQuestion);
  EXPECT_EQ(request->prefill, PrefillMode::kPot);
  EXPECT_EQ(request->policy.pot.value, 2048);
  EXPECT_EQ(request->policy.alpha, 0.25);
  EXPECT_TRUE(request->question_visible);
  EXPECT_THAT(request->catalyst, ElementsAre(7, 8));
}

TEST(RequestOfTest, OfAnOlderSenderIsExactAndFull) {
  proto::GenerateRequest from;
  from.add_parts()->add_tokens(1);
  const auto request = RequestOf(from);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prefill, PrefillMode::kExact);
  EXPECT_EQ(request->policy.kind, PolicySpec::Kind::kFull);
  EXPECT_EQ(request->segments[0].role, Segment::Role::kContext);
}

TEST(RequestOfTest, WhatIsNotKnownIsRefusedByName) {
  const auto refusal = [](const auto& spoil) {
    proto::GenerateRequest from;
    spoil(from);
    const absl::Status status = RequestOf(from).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return Message(status);
  };
  EXPECT_THAT(refusal([](auto& from) { AddPart(from, static_cast<proto::PromptPart::Role>(9)); }),
              HasSubstr("role 9"));
  EXPECT_THAT(refusal([](auto& from) { from.set_prefill(static_cast<proto::Prefill>(9)); }),
              HasSubstr("prefill 9"));
  EXPECT_THAT(refusal([](auto& from) { from.set_policy("snapkv:kernel=4"); }), HasSubstr("kernel"));
  EXPECT_THAT(refusal([](auto& from) { from.set_policy("auto"); }), HasSubstr("policy auto"));
}

}  // namespace
}  // namespace palimpsest
