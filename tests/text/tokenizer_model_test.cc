// The tokenizer of SmolLM2-135M-Instruct against its golden ids (tests/golden/README.md).
#include <gtest/gtest.h>

#include "tests/testing/golden.h"
#include "tests/testing/json.h"
#include "text/gguf.h"
#include "text/tokenizer.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

constexpr char kGolden[] = PALIMPSEST_SOURCE_DIR "/tests/golden/smollm2-135m/";

class TokenizerModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::optional<std::string> path = testing::TestModel();
    if (!path) GTEST_SKIP() << testing::kNoModel;
    const auto file = GgufFile::Open(*path);
    ASSERT_TRUE(file.ok()) << file.status();
    auto tokenizer = Tokenizer::FromGguf(**file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *tokenizer;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(TokenizerModelTest, GoldenStringsHaveTheirIdsAndComeBack) {
  const json::value golden = testing::ReadJsonOrFail(std::string(kGolden) + "tokenizer.json");
  ASSERT_GE(golden.as_array().size(), 40u);
  for (const json::value& one : golden.as_array()) {
    const std::string text(one.at("text").as_string());
    const auto ids = tokenizer_->Encode(text, Tokenizer::Special::kParse);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, json::value_to<std::vector<int32_t>>(one.at("ids"))) << one;
    EXPECT_EQ(tokenizer_->Decode(*ids, true), text);
  }
}

TEST_F(TokenizerModelTest, GoldenPromptsHaveTheirLengths) {
  for (const auto& [name, tokens] : {std::pair("g1.txt", 840u), {"g2.txt", 1866u}}) {
    const std::string text = testing::ReadFileOrFail(std::string(kGolden) + name);
    const auto ids = tokenizer_->Encode(text, Tokenizer::Special::kParse);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(ids->size(), tokens) << name;
    Detokenizer detokenizer(tokenizer_);
    std::string streamed;
    for (int32_t id : *ids) streamed += detokenizer.Push(id);
    EXPECT_EQ(streamed + detokenizer.Finish(), tokenizer_->Decode(*ids, false));
  }
}

TEST_F(TokenizerModelTest, ChatTokensAreControlAndDoNotComeFromText) {
  EXPECT_EQ(tokenizer_->vocabulary_size(), 49152);
  EXPECT_EQ(tokenizer_->TokenText(tokenizer_->bos()), "<|im_start|>");
  EXPECT_EQ(tokenizer_->TokenText(tokenizer_->eos()), "<|im_end|>");
  EXPECT_TRUE(tokenizer_->IsEnd(0) && tokenizer_->IsEnd(2));  // <|endoftext|>, <|im_end|>
  EXPECT_FALSE(tokenizer_->IsEnd(1));
  EXPECT_FALSE(tokenizer_->add_bos());
  const auto ids = tokenizer_->Encode("<|im_start|>system<|im_end|>", Tokenizer::Special::kAsText);
  ASSERT_TRUE(ids.ok());
  for (int32_t id : *ids) EXPECT_FALSE(tokenizer_->IsSpecial(id));
}

}  // namespace
}  // namespace palimpsest
