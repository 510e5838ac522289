#include "worker/answer_text.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "text/byte_alphabet.h"

namespace palimpsest {
namespace {

// A tokenizer whose tokens are these bytes.
std::shared_ptr<const Tokenizer> TokensOf(const std::vector<std::string>& texts) {
  TokenizerData data{.pre = "smollm"};
  for (const std::string& text : texts) data.tokens.push_back(AlphabetOfBytes(text));
  auto tokenizer = Tokenizer::Create(data);
  PALIMPSEST_CHECK(tokenizer.ok(), "{}", Message(tokenizer.status()));
  return *tokenizer;
}
std::shared_ptr<const Tokenizer> Bytes() {
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  return TokensOf(texts);
}

// What each token of `text`, a byte, makes certain; the last entry is what the end brings.
std::vector<std::string> Parts(const std::string& text, std::vector<std::string> stops) {
  AnswerText answer(Bytes(), std::move(stops));
  std::vector<std::string> parts;
  for (const char byte : text) parts.push_back(answer.Push(static_cast<uint8_t>(byte)));
  parts.push_back(answer.Finish());
  return parts;
}
std::string Join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}
using Strings = std::vector<std::string>;

TEST(AnswerTextTest, WithoutStopStringsTextComesAtOnce) {
  EXPECT_EQ(Parts("abc", {}), (Strings{"a", "b", "c", ""}));
}

TEST(AnswerTextTest, WhatMayBeginAStopStringIsHeldBack) {
  EXPECT_EQ(Parts("a\nUser", {"\n\nUser:"}), (Strings{"a", "", "\nU", "s", "e", "r", ""}));
  EXPECT_EQ(Parts("a\n\nUse", {"\n\nUser:"}), (Strings{"a", "", "", "", "", "", "\n\nUse"}));
  EXPECT_EQ(Parts("aab", {"aac"}), (Strings{"", "", "aab", ""}));
  EXPECT_EQ(Parts("aaab", {"aab"}), (Strings{"", "", "a", "", ""})) << "the held end may begin anew";
}

TEST(AnswerTextTest, NothingComesAfterAStopString) {
  AnswerText answer(Bytes(), {"stop"});
  std::string text;
  for (const char byte : std::string("go stop go")) text += answer.Push(static_cast<uint8_t>(byte));
  EXPECT_TRUE(answer.stopped());
  EXPECT_EQ(text + answer.Finish(), "go ");
}

TEST(AnswerTextTest, AStopStringMayLieAcrossTokensOrInsideOne) {
  const auto tokenizer = TokensOf({"one st", "op two", "xstopy", "st", "o", "p"});
  const auto run = [&](const std::vector<int32_t>& tokens) {
    AnswerText answer(tokenizer, {"stop"});
    std::string text;
    for (const int32_t token : tokens) text += answer.Push(token);
    return text + answer.Finish() + (answer.stopped() ? "|" : "");
  };
  EXPECT_EQ(run({0, 1}), "one |");
  EXPECT_EQ(run({2}), "x|");
  EXPECT_EQ(run({3, 4, 5, 0}), "|");
  EXPECT_EQ(run({0, 0}), "one stone st");
}

TEST(AnswerTextTest, OfSeveralStopStringsTheOneCompleteFirstEndsTheText) {
  EXPECT_EQ(Join(Parts("xabcd", {"abcd", "bc"})), "xa");
  EXPECT_EQ(Join(Parts("xabcd", {"bcd", "abcd"})), "x") << "of two that end together the longer";
  const auto tokenizer = TokensOf({"xabcd"});
  AnswerText whole(tokenizer, {"abcd", "bc"});
  EXPECT_EQ(whole.Push(0), "xa") << "however the text is cut into tokens";
}

TEST(AnswerTextTest, CharactersComeWhole) {
  const std::string text = "h\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x99\x82.";
  for (const Strings& stops : {Strings{}, Strings{"\xe6\x9c\xac!"}, Strings{"\xf0\x9f\x99\x83", "."}}) {
    for (const std::string& part : Parts(text, stops)) EXPECT_TRUE(CheckUtf8(part).ok());
  }
  EXPECT_EQ(Join(Parts(text, {})), text);
  EXPECT_EQ(Join(Parts(text, {"\xe6\x9c\xac"})), "h\xc3\xa9 \xe6\x97\xa5");
  EXPECT_EQ(Join(Parts(text, {"\xf0\x9f\x99\x82"})), text.substr(0, 11));
}

TEST(AnswerTextTest, AnUnfinishedCharacterAtTheEndIsReplaced) {
  EXPECT_EQ(Join(Parts("a\xe6\x97", {})), "a\xef\xbf\xbd");
  EXPECT_EQ(Join(Parts("a\xff"
                       "b",
                       {})),
            "a\xef\xbf\xbd"
            "b");
}

// The text up to the stop string that is complete first; the whole text without one.
std::string Naive(const std::string& text, const Strings& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t begin = std::string::npos;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) begin = std::min(begin, end - stop.size());
    }
    if (begin != std::string::npos) return text.substr(0, begin);
  }
  return text;
}

TEST(AnswerTextTest, AnyTextCutAnyWayGivesWhatASearchInTheWholeGives) {
  Strings texts;  // all strings of one to three of these, one of them of two bytes
  const Strings letters = {"a", "b", "\xc3\xa9"};
  for (const std::string& x : letters) {
    texts.push_back(x);
    for (const std::string& y : letters) {
      texts.push_back(x + y);
      for (const std::string& z : letters) texts.push_back(x + y + z);
    }
  }
  texts.push_back("\xc3");  // halves of a character are tokens too
  texts.push_back("\xa9");
  const auto tokenizer = TokensOf(texts);
  RngSequence rng{Rng(1)};
  const auto random_text = [&](uint64_t letters_max) {
    std::string text;
    for (uint64_t n = 1 + rng.Below(letters_max); n > 0; --n) text += letters[rng.Below(3)];
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    Strings stops;
    size_t longest = 0;
    for (uint64_t n = rng.Below(4); n > 0; --n) {
      stops.push_back(random_text(6));
      longest = std::max(longest, stops.back().size());
    }
    AnswerText answer(tokenizer, stops);
    std::string whole, got;
    for (uint64_t n = rng.Below(12); n > 0; --n) {
      int32_t token = static_cast<int32_t>(rng.Below(texts.size() - 2));
      const bool halves = rng.Below(5) == 0;
      if (halves) token = static_cast<int32_t>(texts.size()) - 2;
      for (int half = 0; half <= (halves ? 1 : 0); ++half) {
        const std::string part = answer.Push(token + half);
        ASSERT_TRUE(CheckUtf8(part).ok());
        got += part;
        whole += texts[static_cast<size_t>(token) + static_cast<size_t>(half)];
        if (!answer.stopped()) {  // no more is held than may be a beginning, and half a character
          ASSERT_LE(whole.size() - got.size(), longest + 1);
        }
      }
    }
    got += answer.Finish();
    const std::string expected = Naive(whole, stops);
    ASSERT_EQ(got, expected) << "text " << whole << " stops " << fmt::format("{}", fmt::join(stops, " | "));
    ASSERT_EQ(answer.stopped(), expected != whole);
    stopped += answer.stopped();
  }
  EXPECT_GT(stopped, 5000);
}

}  // namespace
}  // namespace palimpsest
