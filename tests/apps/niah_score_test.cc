// How answers are scored: the benchmarks' own rules by their examples.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/niah/score.h"

namespace palimpsest {
namespace {

TEST(StringMatchTest, AllIsAShareAndPartIsAny) {
  EXPECT_EQ(StringMatchAll("the number is 456, I think", {"123", "456"}), 0.5);
  EXPECT_EQ(StringMatchAll("ABC", {"abc"}), 1);
  EXPECT_EQ(StringMatchPart("the number is 456, I think", {"123", "456"}), 1);
  EXPECT_EQ(StringMatchPart("none", {"123", "456"}), 0);
}

TEST(FirstIntegerTest, IsTheWholeFirstNumber) {
  EXPECT_EQ(FirstInteger("The key is 12345.", "12345"), 1);
  EXPECT_EQ(FirstInteger("The key is 112345.", "12345"), 0);
  EXPECT_EQ(FirstInteger("The key is 123456.", "12345"), 0);
  EXPECT_EQ(FirstInteger("1 is 12345", "12345"), 0) << "the first";
  EXPECT_EQ(FirstInteger("12345 or 99999", "12345"), 1);
  EXPECT_EQ(FirstInteger("", "12345"), 0);
  const std::string digits(64, '7');
  EXPECT_EQ(FirstInteger(digits, digits), 1);
  EXPECT_EQ(FirstInteger(digits + "7", digits), 0);
}

TEST(WholeWordTest, MarksAroundItDoNotCount) {
  const std::string value = "2f9b1c34-0a5e-4b7d-9c21-b3a4f5e6d7c8";
  EXPECT_EQ(WholeWord(value + "}", value), 1);
  EXPECT_EQ(WholeWord("\"" + value + "\",", value), 1);
  EXPECT_EQ(WholeWord(":" + value, value), 1);
  EXPECT_EQ(WholeWord("2F9B1C34-0A5E-4B7D-9C21-B3A4F5E6D7C8.", value), 1);
  EXPECT_EQ(WholeWord("0" + value, value), 0);
  EXPECT_EQ(WholeWord(value + "0", value), 0);
  EXPECT_EQ(WholeWord(value.substr(1), value), 0);
  EXPECT_EQ(WholeWord("", value), 0);
}

TEST(OneLabelTest, OnlyTheFirstSentenceCountsAndLabelsOfTheQuestionAreIgnored) {
  const std::vector<std::string_view> labels = {"kitchen", "garden", "office"};
  EXPECT_EQ(OneLabel("kitchen. Mary was in the garden.", "kitchen", "Where is Mary?", labels), 1);
  EXPECT_EQ(OneLabel("Kitchen\nOr the garden", "kitchen", "Where is Mary?", labels), 1);
  EXPECT_EQ(OneLabel("kitchen or garden.", "kitchen", "Where is Mary?", labels), 0);
  EXPECT_EQ(
      OneLabel("In the kitchen, before the garden.", "kitchen", "Where was it before the garden?", labels),
      1);
  EXPECT_EQ(OneLabel("the office", "kitchen", "Where is Mary?", labels), 0);
  EXPECT_EQ(OneLabel(" \n kitchen", "kitchen", "Where is Mary?", labels), 1);
  EXPECT_EQ(OneLabel("", "kitchen", "Where is Mary?", labels), 0);
}

TEST(RecordsTest, ObjectsAreRightWithEachFieldOrWrong) {
  const std::vector<std::string> references = {R"({"order":1,"item":"a-b","count":2,"price":3})",
                                               R"({"order":4,"item":"c-d","count":5,"price":6})"};
  const std::string first = R"({"order": "1", "Item": "A-B", "price": 3, "count": 2})";
  const std::string second = R"({"order": 4, "item": "c-d", "count": 5, "price": 6})";
  EXPECT_EQ(RecordsF1("[" + first + ",\n" + second + "]", references), 1);
  EXPECT_DOUBLE_EQ(RecordsF1("[" + first + "]", references), 2.0 / 3);
  EXPECT_DOUBLE_EQ(RecordsF1("[" + first + ", " + first + "]", references), 0.5) << "twice is right once";
  EXPECT_EQ(RecordsF1(R"({"order": 1, "item": "a-b", "count": 2})", references), 0) << "a field is missing";
  EXPECT_EQ(RecordsF1(R"({"order": 1, "item": "a-b", "count": 9, "price": 3})", references), 0);
  EXPECT_DOUBLE_EQ(RecordsF1("Here: ```json [" + first + ", {\"order\": 4, \"it", references), 2.0 / 3)
      << "what was cut off is no object";
  EXPECT_EQ(RecordsF1("{ { {", references), 0);
  EXPECT_EQ(RecordsF1("", references), 0);
}

TEST(DifferenceTest, KnownValues) {
  // Newcombe 1998, second paper, table II, method 10: 56/70 - 48/80, 9/10 - 3/10, 10/10 - 0/10.
  const auto expect = [](double a, int64_t m, double b, int64_t n, double low, double high) {
    const Interval interval =
        DifferenceInterval(b / static_cast<double>(n), n, a / static_cast<double>(m), m);
    EXPECT_NEAR(interval.low, low, 5e-5);
    EXPECT_NEAR(interval.high, high, 5e-5);
  };
  expect(56, 70, 48, 80, 0.0524, 0.3339);
  expect(9, 10, 3, 10, 0.1705, 0.8090);
  expect(10, 10, 0, 10, 0.6075, 1.0000);
}

TEST(DifferenceTest, NoTrialSaysNothing) {
  EXPECT_EQ(DifferenceInterval(0, 0, 1, 5).low, -1);
  EXPECT_EQ(DifferenceInterval(0, 0, 1, 5).high, 1);
}

}  // namespace
}  // namespace palimpsest
