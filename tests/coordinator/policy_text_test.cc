#include "coordinator/policy_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(PolicyTextTest, WhatWorksTodayPasses) {
  EXPECT_TRUE(CheckPolicy("full").ok());
  EXPECT_TRUE(CheckRecall("none").ok());
}

TEST(PolicyTextTest, WhatIsRightButNotThereNamesWhatIs) {
  for (const char* policy :
       {"snapkv", "snapkv:budget=1024,window=32", "infinipot:catalyst=@q.txt,catalyst_ids=1/2",
        "streaming:sink=4,recent=1020", "lookm:budget=20%"}) {
    const absl::Status status = CheckPolicy(policy);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << policy;
    EXPECT_THAT(Message(status), HasSubstr("full works today"));
  }
  for (const char* recall : {"all", "slices:budget=768,slice=16"}) {
    EXPECT_EQ(CheckRecall(recall).code(), absl::StatusCode::kUnimplemented) << recall;
  }
}

TEST(PolicyTextTest, TypingMistakesGetTheNearestName) {
  EXPECT_THAT(Message(CheckPolicy("snapvk")), HasSubstr("did you mean snapkv?"));
  EXPECT_THAT(Message(CheckPolicy("snapkv:budgte=4")),
              AllOf(HasSubstr("'budgte'"), HasSubstr("did you mean budget?")));
  EXPECT_THAT(Message(CheckRecall("slice")), HasSubstr("did you mean slices?"));
  EXPECT_THAT(Message(CheckPolicy("zzz")), HasSubstr("there are full, snapkv"));
}

TEST(PolicyTextTest, OtherFormsAreInvalid) {
  for (const char* policy : {"", ":", "full:", "full:x=1", "snapkv:", "snapkv:budget", "snapkv:=4",
                             "snapkv:budget=", "snapkv:budget=4,", "snapkv:budget=4,,window=2"}) {
    EXPECT_EQ(CheckPolicy(policy).code(), absl::StatusCode::kInvalidArgument) << policy;
  }
}

}  // namespace
}  // namespace palimpsest
