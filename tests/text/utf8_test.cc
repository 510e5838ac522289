#include "text/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/base/status.h"
#include "text/byte_alphabet.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

// The definition: a character's bytes by its code point, which strict UTF-8 has for these and no others.
std::string Utf8Of(uint32_t c) {
  const auto byte = [](uint32_t b) { return static_cast<char>(b); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xc0 | c >> 6), byte(0x80 | (c & 0x3f))};
  if (c < 0x10000) return {byte(0xe0 | c >> 12), byte(0x80 | (c >> 6 & 0x3f)), byte(0x80 | (c & 0x3f))};
  return {byte(0xf0 | c >> 18), byte(0x80 | (c >> 12 & 0x3f)), byte(0x80 | (c >> 6 & 0x3f)),
          byte(0x80 | (c & 0x3f))};
}

TEST(Utf8Test, EveryCodePointIsOneCharacterAndSurrogatesAreNot) {
  for (uint32_t c = 0; c < 0x200000; ++c) {
    const std::string text = Utf8Of(c);
    const bool valid = c < 0xd800 || (c > 0xdfff && c <= 0x10ffff);
    ASSERT_EQ(CheckUtf8(text).ok(), valid) << c;
    if (!valid) continue;
    const Utf8Step step = NextUtf8(text + "\xff");
    ASSERT_EQ(step.kind, Utf8Step::Kind::kCharacter) << c;
    ASSERT_EQ(step.bytes, static_cast<int>(text.size())) << c;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Step part = NextUtf8(text.substr(0, cut));
      ASSERT_EQ(part.kind, Utf8Step::Kind::kIncomplete) << c;
      ASSERT_EQ(part.bytes, static_cast<int>(cut)) << c;
    }
  }
}

TEST(Utf8Test, OverlongFormsAndStrayBytesAreInvalid) {
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe", "\xff", "\xed\xa0\x80", "\xe4\xbd", "a\xe4\xbd z"}) {
    EXPECT_FALSE(CheckUtf8(text).ok()) << text;
  }
}

TEST(Utf8Test, InvalidBytesEndWhereTheNextCharacterMayBegin) {
  const Utf8Step step = NextUtf8("\xe4\xbdz");  // three bytes begun, two of them seen
  EXPECT_EQ(step.kind, Utf8Step::Kind::kInvalid);
  EXPECT_EQ(step.bytes, 2);
  EXPECT_EQ(NextUtf8("\xed\xa0\x80").bytes, 1);
}

TEST(Utf8Test, TheErrorNamesTheOffset) {
  const absl::Status status = CheckUtf8("twelve bytes\xc3\xa9 and then \xff");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("at byte 24"));
  EXPECT_THAT(Message(CheckUtf8("whole words \xe4\xbd")), HasSubstr("begins at byte 12"));
}

TEST(ByteAlphabetTest, EveryByteComesBack) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
  EXPECT_EQ(BytesOfAlphabet(AlphabetOfBytes(bytes)), bytes);
  EXPECT_EQ(AlphabetOfBytes(" a\n"),
            "\xc4\xa0"
            "a\xc4\x8a");
}

TEST(ByteAlphabetTest, OtherCharactersAreNotOfIt) {
  for (const char* token : {" ", "\n", "\xc5\x84" /* U+0144, one behind the last */, "\xe4\xbd\xa0", "\xc2",
                            "\xff", "\xc1\xa1"}) {
    EXPECT_EQ(BytesOfAlphabet(token), std::nullopt) << token;
  }
}

}  // namespace
}  // namespace palimpsest
