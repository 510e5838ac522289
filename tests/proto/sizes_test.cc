#include "proto/base/sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(ParseBytesTest, TakesPlainNumbersAndBinaryUnits) {
  EXPECT_EQ(*ParseBytes("0"), 0);
  EXPECT_EQ(*ParseBytes("1000"), 1000);
  EXPECT_EQ(*ParseBytes("3KiB"), 3 * 1024);
  EXPECT_EQ(*ParseBytes("256MiB"), 256 << 20);
  EXPECT_EQ(*ParseBytes("4GiB"), int64_t{4} << 30);
  EXPECT_EQ(*ParseBytes("2TiB"), int64_t{2} << 40);
}

TEST(ParseBytesTest, AnythingElseIsAnErrorThatSaysWhatIsAccepted) {
  for (const char* text :
       {"", "4GB", "4 GiB", "GiB", "-1", "-0", "+1", "1.5GiB", "4gib", "4GiBx", " 4", "0x10", "4K"}) {
    const absl::StatusOr<int64_t> bytes = ParseBytes(text);
    ASSERT_FALSE(bytes.ok()) << text;
    EXPECT_THAT(Message(bytes.status()), HasSubstr("such as 4GiB")) << text;
  }
}

TEST(ParseBytesTest, OverflowIsAnError) {
  EXPECT_EQ(*ParseBytes("9223372036854775807"), kMax);
  EXPECT_EQ(*ParseBytes("8388607TiB"), int64_t{8388607} << 40);
  for (const char* text : {"9223372036854775808", "8388608TiB", "9223372036854775807KiB"}) {
    EXPECT_THAT(Message(ParseBytes(text).status()), HasSubstr("out of range")) << text;
  }
}

TEST(ParseBytesTest, AnErrorQuotesHostileTextOnOneShortLine) {
  const std::string message = Message(ParseBytes("7\x1b[2J\n" + std::string(100'000, 'x')).status());
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_LT(message.size(), 250u);
}

TEST(ParseCountTest, UnitsAre1024Based) {
  EXPECT_EQ(*ParseCount("512"), 512);
  EXPECT_EQ(*ParseCount("4K"), 4096);
  EXPECT_EQ(*ParseCount("2M"), 2 << 20);
  for (const char* text : {"4k", "4KiB", "1.5K", "K", "", "-4K"}) EXPECT_FALSE(ParseCount(text).ok()) << text;
}

TEST(FormatBytesTest, IsExactInTheLargestUnitThatDivides) {
  EXPECT_EQ(FormatBytes(0), "0");
  EXPECT_EQ(FormatBytes(1000), "1000");
  EXPECT_EQ(FormatBytes(1536 << 20), "1536MiB");
  EXPECT_EQ(FormatBytes(int64_t{4} << 30), "4GiB");
  EXPECT_EQ(FormatCount(4096), "4K");
  EXPECT_EQ(FormatCount(4097), "4097");
}

TEST(FormatBytesTest, ParseGivesTheNumberBack) {
  RngSequence random(Rng(1));
  for (int i = 0; i < 10'000; ++i) {
    const int64_t number =
        static_cast<int64_t>(random.Next() >> 1 >> random.Below(63)) & ~int64_t{0} << random.Below(50);
    ASSERT_EQ(*ParseBytes(FormatBytes(number)), number);
    ASSERT_EQ(*ParseCount(FormatCount(number)), number);
  }
}

TEST(ApproximateBytesTest, HasThreeDigits) {
  EXPECT_EQ(ApproximateBytes(17), "17 B");
  EXPECT_EQ(ApproximateBytes(12.0 * 1024), "12.0 KiB");
  EXPECT_EQ(ApproximateBytes(1536.0 * 1024 * 1024), "1.50 GiB");
  EXPECT_EQ(ApproximateBytes(1023.9), "1.00 KiB");
  EXPECT_EQ(ApproximateBytes(999.0 * 1024), "999 KiB");
}

TEST(ParseIntegerTest, TakesAllOfTheTextOrNothing) {
  EXPECT_EQ(*ParseInteger("-12"), -12);
  for (const char* text : {"", "1.0", "1 ", "one", "9223372036854775808"})
    EXPECT_FALSE(ParseInteger(text).ok()) << text;
}

TEST(ParseRealTest, TakesFiniteNumbersOnly) {
  EXPECT_EQ(*ParseReal("0.7"), 0.7);
  EXPECT_EQ(*ParseReal("1e-3"), 1e-3);
  for (const char* text : {"", "nan", "inf", "-inf", "1e999", "0.7x", "0,7"})
    EXPECT_FALSE(ParseReal(text).ok()) << text;
}

}  // namespace
}  // namespace palimpsest
