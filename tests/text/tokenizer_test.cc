#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "proto/base/status.h"
#include "text/byte_alphabet.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kControl = 3, kUserDefined = 4, kByte = 6;

// All bytes (id = byte), then "ab", "abc", " ab" and the tokens given.
TokenizerData SmallData(std::vector<std::pair<std::string, int32_t>> special = {}) {
  TokenizerData data;
  data.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte)
    data.tokens.push_back(AlphabetOfBytes(std::string(1, static_cast<char>(byte))));
  for (const char* text : {"ab", "abc", " ab"})
    data.tokens.push_back(AlphabetOfBytes(text));  // 256, 257, 258
  data.merges = {"a b", "ab c", AlphabetOfBytes(" ") + " ab"};
  data.types.assign(data.tokens.size(), 1);
  for (auto& [text, type] : special) {
    data.tokens.push_back(text);
    data.types.push_back(type);
  }
  return data;
}

std::shared_ptr<const Tokenizer> MakeOrFail(TokenizerData data) {
  auto tokenizer = Tokenizer::Create(std::move(data));
  PALIMPSEST_CHECK(tokenizer.ok(), "{}", Message(tokenizer.status()));
  return *tokenizer;
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text,
                            Tokenizer::Special special = Tokenizer::Special::kParse) {
  auto ids = tokenizer.Encode(text, special);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<int32_t>{};
}

std::string ErrorOf(TokenizerData data) {
  const auto tokenizer = Tokenizer::Create(std::move(data));
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  return Message(tokenizer.status());
}

std::string RandomText(std::mt19937* rng, int characters) {
  std::string text;
  for (int i = 0; i < characters; ++i) {
    static constexpr uint32_t kLimits[] = {0x80, 0x80, 0x800, 0x3000, 0xd800, 0x110000};
    uint32_t c = (*rng)() % kLimits[(*rng)() % std::size(kLimits)];
    if (c >= 0xd800 && c < 0xe000) c = ' ';
    const auto tail = [c](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3f)); };
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += {static_cast<char>(0xc0 | c >> 6), tail(0)};
    } else if (c < 0x10000) {
      text += {static_cast<char>(0xe0 | c >> 12), tail(6), tail(0)};
    } else {
      text += {static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0)};
    }
  }
  return text;
}

TEST(TokenizerTest, MergesWithinWordsOnly) {
  const auto tokenizer = MakeOrFail(SmallData());
  EXPECT_THAT(Encode(*tokenizer, "abc ab"), ElementsAre(257, 258));
  EXPECT_THAT(Encode(*tokenizer, "a b"), ElementsAre('a', ' ', 'b'));
  EXPECT_THAT(Encode(*tokenizer, "a1b"), ElementsAre('a', '1', 'b'));
}

TEST(TokenizerTest, EveryValidTextComesBack) {
  std::mt19937 rng(11);
  for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    TokenizerData data = SmallData({{"<|end|>", kControl}});
    data.pre = pre;
    const auto tokenizer = MakeOrFail(std::move(data));
    for (int i = 0; i < 400; ++i) {
      const std::string text =
          RandomText(&rng, static_cast<int>(rng() % 60)) + (i % 3 == 0 ? "<|end|> ab" : "");
      EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text), true), text);
      EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text, Tokenizer::Special::kAsText), false), text);
    }
  }
}

TEST(TokenizerTest, TheLongestSpecialTokenWins) {
  const auto tokenizer = MakeOrFail(
      SmallData({{"<e>", kControl}, {"<e>ab", kUserDefined}, {"<e>a", kControl}, {"e>", kControl}}));
  EXPECT_THAT(Encode(*tokenizer, "<e>abc"), ElementsAre(260, 'c'));
  EXPECT_THAT(Encode(*tokenizer, "ab<e>acab"), ElementsAre(256, 261, 'c', 256));
  EXPECT_THAT(Encode(*tokenizer, "<e><e>"), ElementsAre(259, 259));
  EXPECT_THAT(Encode(*tokenizer, "e><"), ElementsAre(262, '<'));
}

TEST(TokenizerTest, AsTextNoControlTokenComesOut) {
  for (const char* pre : {"gpt-2", "llama-bpe"}) {  // by a merge, or as a whole word
    TokenizerData data = SmallData({{"abd", kControl}, {"<e>", kControl}});
    data.merges.push_back("ab d");
    data.pre = pre;
    const auto tokenizer = MakeOrFail(std::move(data));
    EXPECT_THAT(Encode(*tokenizer, "abd<e>", Tokenizer::Special::kAsText),
                ElementsAre(256, 'd', '<', 'e', '>'));
    EXPECT_THAT(Encode(*tokenizer, "abd<e>", Tokenizer::Special::kParse), ElementsAre(259, 260));
  }
}

TEST(TokenizerTest, WholeWordsComeBeforeMergesInLlamaOnly) {
  TokenizerData data = SmallData({{"abab", 1}});  // no merge makes it
  EXPECT_THAT(Encode(*MakeOrFail(data), "abab"), ElementsAre(256, 256));
  data.pre = "llama-bpe";
  EXPECT_THAT(Encode(*MakeOrFail(data), "abab"), ElementsAre(259));
}

TEST(TokenizerTest, SpecialTokensAreWrittenOnlyWhenAsked) {
  const auto tokenizer = MakeOrFail(SmallData({{"<e>", kControl}, {"<think>", kUserDefined}}));
  const std::vector<int32_t> ids = {259, 256, 260, -1, 1 << 20};
  EXPECT_EQ(tokenizer->Decode(ids, true), "<e>ab<think>");
  EXPECT_EQ(tokenizer->Decode(ids, false), "ab<think>");
  EXPECT_TRUE(tokenizer->IsSpecial(259));
  EXPECT_FALSE(tokenizer->IsSpecial(260));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_EQ(tokenizer->TokenText(259), "<e>");
  EXPECT_EQ(tokenizer->TokenText(258), " ab");
  EXPECT_EQ(tokenizer->TokenText(-5), "");
}

TEST(TokenizerTest, EosAndEndTokensEndAnAnswer) {
  TokenizerData data = SmallData({{"<e>", kControl}, {"<f>", kControl}});
  data.bos = 0, data.eos = 259, data.end_tokens = {260}, data.add_bos = true;
  const auto tokenizer = MakeOrFail(std::move(data));
  EXPECT_TRUE(tokenizer->IsEnd(259) && tokenizer->IsEnd(260));
  EXPECT_FALSE(tokenizer->IsEnd(0) || tokenizer->IsEnd(-1));
  EXPECT_EQ(tokenizer->bos(), 0);
  EXPECT_EQ(tokenizer->eos(), 259);
  EXPECT_TRUE(tokenizer->add_bos());
  EXPECT_EQ(tokenizer->vocabulary_size(), 261);
}

TEST(TokenizerTest, BytesWithoutATokenAreLeftOutAndKeepTheirNeighboursApart) {
  TokenizerData data = SmallData();
  data.tokens[1] = "unused";
  const auto tokenizer = MakeOrFail(std::move(data));
  EXPECT_THAT(Encode(*tokenizer, "ab\x01"), ElementsAre(256));
  EXPECT_THAT(Encode(*tokenizer, "\x01\x01\x01"), ElementsAre());
}

TEST(TokenizerTest, ByteTokensStandInForMissingBytes) {
  TokenizerData data = SmallData({{"<0x01>", kByte}});
  data.tokens[1] = "unused";
  const auto tokenizer = MakeOrFail(std::move(data));
  EXPECT_THAT(Encode(*tokenizer, "\x01"), ElementsAre(259));
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{259}, false), "\x01");
}

// A blank is written "Ġ" in the alphabet of bytes; a token of the unknown or user-defined type is written as
// it is.
TEST(TokenizerTest, WhatWouldComeBackAsOtherBytesIsNoTokenOfText) {
  for (const int32_t type : {2, kControl, kUserDefined}) {
    TokenizerData data = SmallData();
    data.types[' '] = type;
    data.types[258] = type;  // " ab"
    const auto tokenizer = MakeOrFail(std::move(data));
    EXPECT_THAT(Encode(*tokenizer, " ab", Tokenizer::Special::kAsText), ElementsAre(256)) << type;
  }
}

TEST(TokenizerTest, InvalidUtf8IsAnErrorWithItsOffset) {
  const auto ids = MakeOrFail(SmallData())->Encode("abc\xff", Tokenizer::Special::kParse);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(ids.status()), HasSubstr("at byte 3"));
}

TEST(TokenizerTest, AnUnknownSplitIsUnimplementedAndNamesTheKnown) {
  TokenizerData data = SmallData();
  data.pre = "deepseek";
  const auto tokenizer = Tokenizer::Create(std::move(data));
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(tokenizer.status()), HasSubstr("smollm, gpt-2, llama-bpe, qwen2"));
}

TEST(TokenizerTest, DamagedVocabulariesAreErrors) {
  EXPECT_THAT(ErrorOf(SmallData({{"<e>", kControl}, {"<e>", kControl}})),
              HasSubstr("tokens 259 and 260 are both "));
  EXPECT_THAT(ErrorOf(SmallData({{std::string(1025, 'x'), 1}})), HasSubstr("token 259 has 1025 bytes"));
  EXPECT_THAT(ErrorOf(SmallData({{"\xa9", kControl}})), HasSubstr("token 259"));
  EXPECT_THAT(ErrorOf(SmallData({{"x y", 9}})), HasSubstr("type 9"));
  TokenizerData data = SmallData();
  data.types.pop_back();
  EXPECT_THAT(ErrorOf(data), HasSubstr("258 token types for 259 tokens"));
  data = SmallData();
  data.eos = 259;
  EXPECT_THAT(ErrorOf(data), HasSubstr("eos token has id 259"));
  data = SmallData();
  data.end_tokens = {-1};
  EXPECT_THAT(ErrorOf(data), HasSubstr("end token has id -1"));
  data = SmallData();
  data.tokens.clear();
  EXPECT_THAT(ErrorOf(data), HasSubstr("vocabulary of 0 tokens"));
  data = SmallData();
  data.tokens.resize((1 << 20) + 1);
  EXPECT_THAT(ErrorOf(data), HasSubstr("vocabulary of 1048577 tokens"));
}

TEST(TokenizerTest, DamagedMergesAreErrors) {
  for (const char* merge : {"ab", "", " ", "a ", " a", "a b c"}) {
    TokenizerData data = SmallData();
    data.merges.push_back(merge);
    EXPECT_THAT(ErrorOf(std::move(data)), HasSubstr("merge 3 is not two tokens")) << merge;
  }
  TokenizerData data = SmallData();
  data.merges.push_back("xx a");
  EXPECT_THAT(ErrorOf(data), HasSubstr("left part of merge 3"));
  data.merges.back() = "a xx";
  EXPECT_THAT(ErrorOf(data), HasSubstr("right part of merge 3"));
  data.merges.back() = "b a";
  EXPECT_THAT(ErrorOf(data), HasSubstr("result of merge 3"));
}

TEST(TokenizerTest, TheHashCoversEveryField) {
  const TokenizerData data = SmallData({{"<e>", kControl}});
  std::vector<TokenizerData> others(8, data);
  others[0].pre = "qwen2";
  others[1].tokens[5] = "other";
  others[2].types[5] = kByte;
  others[3].merges.pop_back();
  others[4].bos = 1;
  others[5].eos = 1;
  others[6].end_tokens = {1};
  others[7].add_bos = true;
  std::vector<std::string> hashes = {MakeOrFail(data)->hash()};
  EXPECT_EQ(hashes[0].size(), 64u);
  EXPECT_EQ(MakeOrFail(data)->hash(), hashes[0]);
  for (TokenizerData& other : others) {
    hashes.push_back(MakeOrFail(std::move(other))->hash());
    for (size_t i = 0; i + 1 < hashes.size(); ++i) EXPECT_NE(hashes.back(), hashes[i]);
  }
}

TEST(TokenizerTest, LongRunsOfOneKindAreNeitherRefusedNorSlow) {
  for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    TokenizerData data = SmallData();
    data.pre = pre;
    const auto tokenizer = MakeOrFail(std::move(data));
    const std::string one_mib(1 << 20, ' ');
    for (const std::string& text :
         {std::string(1 << 20, 'a'), one_mib + "x", one_mib + "\n" + one_mib, std::string(1 << 20, '\n'),
          std::string(1 << 20, '7'), std::string(1 << 20, '!'), std::string(1 << 20, '\''),
          one_mib + "\n\n x"}) {
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text), true), text);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
      EXPECT_LT(seconds.count(), 20) << pre << ", text that begins with " << static_cast<int>(text[0]);
    }
  }
}

TEST(TokenizerTest, AWordBeyondTheLimitIsAnError) {
  const auto ids =
      MakeOrFail(SmallData())->Encode(std::string((16 << 20) + 1, 'a'), Tokenizer::Special::kParse);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(ids.status()), HasSubstr("word of 16777217 bytes"));
}

TEST(TokenizerTest, MoreWordsThanTheCacheHoldsAreStillRight) {
  const auto tokenizer = MakeOrFail(SmallData());
  std::string text;
  for (int i = 0; i < 150'000; ++i) text += fmt::format(" {}", i * 7919 % 100'003);
  EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text), true), text);
}

TEST(TokenizerTest, OneTokenizerServesManyThreads) {
  const auto tokenizer = MakeOrFail(SmallData({{"<e>", kControl}}));
  const std::string text = "ab abc <e> it's 12345 abab\n\n  x";
  const std::vector<int32_t> expected = Encode(*tokenizer, text);
  std::vector<std::thread> threads;
  std::vector<int> equal(4);
  for (int& count : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) count += *tokenizer->Encode(text, Tokenizer::Special::kParse) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(equal, ElementsAre(200, 200, 200, 200));
}

// ---- Detokenizer
// ----------------------------------------------------------------------------------------------------

TEST(DetokenizerTest, AnyCutOfValidTextGivesTheTextInWholeCharacters) {
  std::mt19937 rng(5);
  const auto tokenizer = MakeOrFail(SmallData({{"<e>", kControl}}));
  for (int i = 0; i < 200; ++i) {
    const std::string text = RandomText(&rng, 40) + "ab abc";
    Detokenizer detokenizer(tokenizer);
    std::string streamed;
    for (int32_t id : Encode(*tokenizer, text)) {
      const std::string part = detokenizer.Push(id);
      EXPECT_TRUE(CheckUtf8(part).ok());
      streamed += part;
      if (rng() % 8 == 0) {  // control tokens give none and change nothing
        EXPECT_EQ(detokenizer.Push(259), "");
      }
    }
    EXPECT_EQ(detokenizer.Finish(), "");
    EXPECT_EQ(streamed, text);
  }
}

TEST(DetokenizerTest, WhatCannotBecomeUtf8IsOneReplacementEach) {
  Detokenizer detokenizer(MakeOrFail(SmallData()));
  EXPECT_EQ(detokenizer.Push(0xe4), "");
  EXPECT_EQ(detokenizer.Push(0xbd), "");
  EXPECT_EQ(detokenizer.Push('a'),
            "\xef\xbf\xbd"
            "a");
  EXPECT_EQ(detokenizer.Push(0xff), "\xef\xbf\xbd");
  EXPECT_EQ(detokenizer.Push(0x80), "\xef\xbf\xbd");
  EXPECT_EQ(detokenizer.Push(0xf0), "");
  EXPECT_EQ(detokenizer.Push(0x9f), "");
  EXPECT_EQ(detokenizer.Push(0x99), "");
  EXPECT_EQ(detokenizer.Finish(), "\xef\xbf\xbd");
  EXPECT_EQ(detokenizer.Finish(), "");
  EXPECT_EQ(detokenizer.Push('b'), "b");
}

}  // namespace
}  // namespace palimpsest
