#include "proto/base/quote.h"

#include <gtest/gtest.h>

namespace palimpsest {
namespace {

TEST(OneLineTest, KeepsPrintableText) {
  EXPECT_EQ(OneLine("notes/mémo 2026 \xE2\x82\xAC \xF0\x9F\x98\x80.md"),
            "notes/mémo 2026 \xE2\x82\xAC \xF0\x9F\x98\x80.md");
}

TEST(OneLineTest, EscapesWhatCouldBreakALineOrATerminal) {
  EXPECT_EQ(OneLine("a\nb\r\t\x1b[31m\x7f"), "a\\x0ab\\x0d\\x09\\x1b[31m\\x7f");
  EXPECT_EQ(OneLine(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(OneLine("\xC2\x9B"
                    "31m"),
            "\\xc2\\x9b31m");  // the one-character form of ESC [
}

TEST(OneLineTest, ABackslashIsDoubledSoThatEscapesAreUnambiguous) { EXPECT_EQ(OneLine("\\x0a"), "\\\\x0a"); }

TEST(OneLineTest, EscapesBytesThatAreNotUtf8) {
  EXPECT_EQ(OneLine("\xff"), "\\xff");
  EXPECT_EQ(OneLine("\xC0\x80"), "\\xc0\\x80");                    // overlong
  EXPECT_EQ(OneLine("\xE0\x80\x80"), "\\xe0\\x80\\x80");           // overlong
  EXPECT_EQ(OneLine("\xED\xA0\x80"), "\\xed\\xa0\\x80");           // surrogate
  EXPECT_EQ(OneLine("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // beyond U+10FFFF
  EXPECT_EQ(OneLine("\xE2\x82"), "\\xe2\\x82");                    // cut short
}

TEST(OneLineTest, CutsBetweenCharacters) {
  EXPECT_EQ(OneLine("abcdef", 6), "abcdef");
  EXPECT_EQ(OneLine("abcdef", 5), "abcde...");
  EXPECT_EQ(OneLine("ab\xE2\x82\xAC", 4), "ab...");
}

TEST(IsPlainTextTest, RefusesControlCharactersAndBytesThatAreNotUtf8) {
  EXPECT_TRUE(IsPlainText(""));
  EXPECT_TRUE(IsPlainText("C:\\notes \xE2\x82\xAC"));
  EXPECT_FALSE(IsPlainText("a\nb"));
  EXPECT_FALSE(IsPlainText("a\xff"));
}

TEST(QuotedTest, StandsBetweenQuotes) { EXPECT_EQ(Quoted("4GB"), "'4GB'"); }

}  // namespace
}  // namespace palimpsest
