#include "proto/base/suggest.h"

#include <gtest/gtest.h>

#include <vector>

namespace palimpsest {
namespace {

TEST(EditDistanceTest, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("abc", ""), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("budget", "bugdet"), 1);
  EXPECT_EQ(EditDistance("ca", "abc"), 3);  // 2 if a swapped pair could be edited further
}

TEST(EditDistanceTest, CaseAndHyphenCostNothing) { EXPECT_EQ(EditDistance("Arena-Bytes", "arena_bytes"), 0); }

TEST(NearestTest, FindsTheNearestAndTheFirstOfSeveral) {
  const std::vector<std::string> names = {"window", "budget", "kernel", "gadget"};
  EXPECT_EQ(Nearest("bugdet", names), "budget");
  EXPECT_EQ(Nearest("kernal", names), "kernel");
  EXPECT_EQ(Nearest("gudget", names), "budget");
}

TEST(NearestTest, SaysNothingRatherThanSomethingFarFetched) {
  const std::vector<std::string> names = {"window", "pot", "k"};
  EXPECT_EQ(Nearest("temperature", names), "");
  EXPECT_EQ(Nearest("x", names), "");
  EXPECT_EQ(Nearest("", names), "");
  EXPECT_EQ(Nearest("wood", {}), "");
}

TEST(NearestTest, AHugeNameHasNoNeighbours) {
  const std::vector<std::string> names = {std::string(1'000'000, 'a'), "a"};
  EXPECT_EQ(Nearest(std::string(1'000'000, 'a'), names), "");
}

TEST(DidYouMeanTest, EndsAnErrorOrAddsNothing) {
  const std::vector<std::string> names = {"budget"};
  EXPECT_EQ(DidYouMean("buget", names), "; did you mean budget?");
  EXPECT_EQ(DidYouMean("colour", names), "");
}

}  // namespace
}  // namespace palimpsest
