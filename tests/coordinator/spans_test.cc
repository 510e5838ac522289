// Where documents are cut. Tokens are bytes, so a text can be counted by eye.
#include "coordinator/spans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/base/rng.h"
#include "tests/coordinator/byte_tokenizer.h"

namespace palimpsest::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int32_t> TokensOf(std::string_view text) {
  std::vector<int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::vector<size_t> Cut(std::string_view text, int64_t most) {
  return CutSpans(TokensOf(text), most, *ByteTokenizer());
}

std::string Words(size_t bytes) {  // "abcd abcd ..."
  std::string text;
  while (text.size() < bytes) text += "abcd ";
  return text.substr(0, bytes);
}

// 980 bytes of words with `end` ending at byte 480 of them: spans of 512 search 449 to 512.
std::string WithEndAt480(std::string_view end) {
  return Words(480 - end.size()) + std::string(end) + Words(980 - 480);
}

TEST(SpansTest, WhatFitsIsOneSpan) {
  EXPECT_THAT(Cut("", 10), IsEmpty());
  EXPECT_THAT(Cut("a", 10), ElementsAre(1));
  EXPECT_THAT(Cut(Words(512), 512), ElementsAre(512));
}

TEST(SpansTest, ParagraphsLinesAndSentencesEndASpan) {
  for (const char* end : {"\n\n", "\n \r\n", "x.\n\n\n", "\n", "\r\n"}) {
    EXPECT_THAT(Cut(WithEndAt480(end), 512), ElementsAre(480, 980)) << end;
  }
  for (const char* end : {"Yes.", "Yes!", "Yes?", "(Yes.)", "\"Yes.\"", "\u3002"}) {
    const std::string text = Words(480 - std::string_view(end).size()) + end + " " + Words(499);
    EXPECT_THAT(Cut(text, 512), ElementsAre(480, 980)) << end;
  }
}

TEST(SpansTest, TheBetterEndWinsAndOfEqualsTheLast) {
  std::string text = Words(960);
  const auto put = [&](size_t end, std::string_view what) {
    text.replace(end - what.size(), what.size(), what);
  };
  put(500, "b. ");  // the sentence ends before the space
  EXPECT_THAT(Cut(text, 512), ElementsAre(499, 960));
  put(490, "\n");
  EXPECT_THAT(Cut(text, 512), ElementsAre(490, 960));
  put(460, "\n\n");
  EXPECT_THAT(Cut(text, 512), ElementsAre(460, 960));
  put(470, "\n\n");
  EXPECT_THAT(Cut(text, 512), ElementsAre(470, 960));
  put(440, "\n\n");  // not in the last eighth
  EXPECT_THAT(Cut(text, 512), ElementsAre(470, 960));
}

TEST(SpansTest, WithoutAnyEndAWordIsNotTorn) {
  const auto ends = Cut(Words(980), 512);
  ASSERT_EQ(ends.size(), 2u);
  EXPECT_EQ(Words(980)[ends[0]], ' ');
}

TEST(SpansTest, CharactersAreNotTorn) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "\u20ac";  // 3 bytes
  for (const size_t end : Cut(text, 512)) EXPECT_EQ(end % 3, 0u);
}

TEST(SpansTest, ARunOfLineEndsStaysTogether) {
  EXPECT_THAT(Cut(Words(476) + "\n\n\n\n" + Words(500), 512), ElementsAre(480, 980));
}

TEST(SpansTest, TheTailIsNoScrap) {
  for (size_t bytes = 513; bytes < 700; ++bytes) {
    const auto ends = Cut(Words(bytes), 512);
    ASSERT_EQ(ends.size(), 2u);
    EXPECT_GE(bytes - ends[0], static_cast<size_t>(kSpanTail)) << bytes;
  }
}

TEST(SpansTest, ACutDoesNotDependOnWhatComesLater) {
  const std::string one = WithEndAt480("\n\n") + Words(2000),
                    other = WithEndAt480("\n\n") + std::string(3000, '\n');
  EXPECT_EQ(Cut(one, 512)[0], Cut(other, 512)[0]);
  EXPECT_EQ(Cut(one, 512)[1], Cut(one + "more", 512)[1]);
}

TEST(SpansTest, AnyTextIsCutOnceAndWhole) {
  RngSequence rng(Rng(7));
  constexpr std::string_view kLetters = "ab .\n\xc3\xa9!";
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (uint64_t left = rng.Below(3000); left > 0; --left) text += kLetters[rng.Below(kLetters.size())];
    const int64_t most = 1 + static_cast<int64_t>(rng.Below(round % 3 == 0 ? 8 : 600));
    const auto ends = Cut(text, most);
    EXPECT_EQ(ends, Cut(text, most));
    size_t begin = 0;
    for (const size_t end : ends) {
      ASSERT_GT(end, begin);
      ASSERT_LE(end - begin, static_cast<size_t>(most));
      begin = end;
    }
    ASSERT_EQ(begin, text.size());
    if (most < 2 * kSpanTail || ends.size() < 2) continue;
    ASSERT_GE(text.size() - ends[ends.size() - 2], static_cast<size_t>(kSpanTail));
    for (size_t i = 0; i + 1 < ends.size(); ++i) {  // no span is shorter than it needs to be
      const size_t length = ends[i] - (i == 0 ? 0 : ends[i - 1]);
      EXPECT_GE(length, static_cast<size_t>(most - most / 8 - kSpanTail - 1));
    }
  }
}

}  // namespace
}  // namespace palimpsest::testing
