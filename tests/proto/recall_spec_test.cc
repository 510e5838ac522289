#include "proto/base/recall_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

TEST(RecallSpecTest, EachFormIsReadAndPrintedBack) {
  EXPECT_EQ(ParseRecall("none")->kind, RecallSpec::Kind::kNone);
  EXPECT_EQ(ParseRecall("all")->kind, RecallSpec::Kind::kAll);
  const RecallSpec slices =
      *ParseRecall("slices:budget=1K,slice=32,refresh=4,words=96,whole=4K,index=minmax");
  EXPECT_EQ(slices.kind, RecallSpec::Kind::kSlices);
  EXPECT_EQ(slices.budget, 1024);
  EXPECT_EQ(slices.slice, 32);
  EXPECT_EQ(slices.refresh, 4);
  EXPECT_EQ(slices.index, RecallSpec::Index::kMinMax);
  EXPECT_EQ(slices.whole, 4096);
  EXPECT_EQ(RecallText(slices), "slices:budget=1024,slice=32,refresh=4,words=96,whole=4096,index=minmax");
  EXPECT_EQ(ParseRecall("slices")->whole, 8192);
  for (const char* text : {"none", "all", "slices", "slices:slice=8", "slices:index=exact,budget=64",
                           "slices:words=0", "slices:whole=0"}) {
    const auto recall = ParseRecall(text);
    ASSERT_TRUE(recall.ok()) << text;
    EXPECT_EQ(*ParseRecall(RecallText(*recall)), *recall) << text;
  }
}

TEST(RecallSpecTest, ABudgetIsBoundedByWhatWasDropped) {
  EXPECT_EQ(ParseRecall("none")->BudgetOf(5000), 0);
  EXPECT_EQ(ParseRecall("all")->BudgetOf(5000), 5000);
  EXPECT_EQ(ParseRecall("slices")->BudgetOf(5000), 1024);
  EXPECT_EQ(ParseRecall("slices")->BudgetOf(100), 100);
}

TEST(RecallSpecTest, SharedWordsTakeHalfOfTheBudgetAtMost) {
  EXPECT_EQ(ParseRecall("slices")->WordTokens(), 256);
  EXPECT_EQ(ParseRecall("slices:budget=64")->WordTokens(), 32);
  EXPECT_EQ(ParseRecall("slices:words=0")->WordTokens(), 0);
}

TEST(RecallSpecTest, WhatCannotBeNamesTheNumberAndTheRange) {
  const auto error = [](const char* text) { return Message(ParseRecall(text).status()); };
  EXPECT_THAT(error("slice"), HasSubstr("unknown recall 'slice'; did you mean slices?"));
  EXPECT_THAT(error("slices:budgte=4"), HasSubstr("did you mean budget?"));
  EXPECT_THAT(error("slices:budget=0"), HasSubstr("budget='0' is not a number of tokens from 1 to"));
  EXPECT_THAT(error("slices:budget=-1"), HasSubstr("budget='-1'"));
  EXPECT_THAT(error("slices:budget=8"), HasSubstr("budget=8 is less than one slice=16: budget of 16 to"));
  EXPECT_THAT(error("slices:slice=24"), HasSubstr("slice='24' is not 8, 16, 32 or 64"));
  EXPECT_THAT(error("slices:refresh=0"), HasSubstr("refresh='0'"));
  EXPECT_THAT(error("slices:words=-1"), HasSubstr("words='-1' is not a number of tokens from 0 to"));
  EXPECT_THAT(error("slices:whole=-1"), HasSubstr("whole='-1' is not a number of tokens from 0 to"));
  EXPECT_THAT(error("slices:index=q3"), HasSubstr("index='q3' is not q2, exact, minmax or boxmean"));
  EXPECT_THAT(error("all:budget=4"), HasSubstr("budget"));
  for (const char* text : {"", "slices:", "slices:budget", "slices:budget=1,budget=2", "SLICES"}) {
    EXPECT_EQ(ParseRecall(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace palimpsest
