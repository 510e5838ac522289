#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"
#include "tests/testing/gguf_writer.h"
#include "text/gguf.h"
#include "text/tokenizer.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A model file with a vocabulary of eight tokens; every key can be left out or be another's.
struct Model {
  std::string model = "gpt2", pre = "gpt-2";
  std::vector<std::string> tokens = {"a", "b", "ab", "<s>", "<|im_end|>", "<eot>", "<eom>", "<|eot_id|>"};
  std::vector<int32_t> types = {1, 1, 1, 3, 3, 3, 3, 1};
  bool has_merges = true, has_types = true;
  std::string extra_key;  // with value `extra`
  uint32_t extra = 0;
  int add_bos = -1;  // -1: absent

  absl::StatusOr<std::shared_ptr<const Tokenizer>> Read() const {
    GgufWriter writer;
    writer.Add("tokenizer.ggml.model", model);
    writer.Add("tokenizer.ggml.pre", pre);
    writer.AddArray("tokenizer.ggml.tokens", tokens);
    if (has_types) writer.AddArray("tokenizer.ggml.token_type", types);
    if (has_merges) writer.AddArray("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    writer.Add("tokenizer.ggml.bos_token_id", uint32_t{3});
    writer.Add("tokenizer.ggml.eos_token_id", uint32_t{3});
    if (add_bos >= 0) writer.Add("tokenizer.ggml.add_bos_token", add_bos == 1);
    if (!extra_key.empty()) writer.Add(extra_key, extra);
    const std::vector<uint8_t> bytes = writer.Bytes();
    PALIMPSEST_ASSIGN_OR_RETURN(const auto file, GgufFile::Parse(bytes, "m.gguf"));
    return Tokenizer::FromGguf(*file);
  }
};

std::string ErrorOf(const Model& model, absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const absl::Status status = model.Read().status();
  EXPECT_EQ(status.code(), code);
  EXPECT_THAT(Message(status), ::testing::StartsWith("m.gguf: "));
  return Message(status);
}

TEST(TokenizerGgufTest, AVocabularyIsRead) {
  const auto tokenizer = Model().Read();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("ab<s>b", Tokenizer::Special::kParse), ElementsAre(2, 3, 1));
  EXPECT_EQ((*tokenizer)->bos(), 3);
  EXPECT_EQ((*tokenizer)->eos(), 3);
  EXPECT_FALSE((*tokenizer)->add_bos());
}

TEST(TokenizerGgufTest, EndTokensAreEosThoseOfMetadataAndThoseOfControlTextsOnly) {
  Model model;
  model.extra_key = "tokenizer.ggml.eot_token_id";
  model.extra = 5;
  const auto tokenizer = model.Read();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int32_t> ends;
  for (int32_t id = 0; id < 8; ++id) {
    if ((*tokenizer)->IsEnd(id)) ends.push_back(id);
  }
  EXPECT_THAT(ends, ElementsAre(3, 4, 5));  // <|eot_id|> is a normal token here
  model.extra_key = "tokenizer.ggml.eom_token_id";
  model.extra = 6;
  EXPECT_TRUE(model.Read().value()->IsEnd(6));
}

TEST(TokenizerGgufTest, AddBosIsAsTheFileSaysAndElseAsTheFamilyDoes) {
  Model model;
  for (const auto& [pre, by_default] : {std::pair("gpt-2", false), {"llama-bpe", true}, {"qwen2", false}}) {
    model.pre = pre;
    model.add_bos = -1;
    EXPECT_EQ(model.Read().value()->add_bos(), by_default) << pre;
    model.add_bos = 0;
    EXPECT_FALSE(model.Read().value()->add_bos()) << pre;
    model.add_bos = 1;
    EXPECT_TRUE(model.Read().value()->add_bos()) << pre;
  }
}

TEST(TokenizerGgufTest, WithoutTypesAllTokensAreNormal) {
  Model model;
  model.has_types = false;
  EXPECT_FALSE(model.Read().value()->IsSpecial(3));
}

TEST(TokenizerGgufTest, OtherTokenizersAreUnimplementedWithARemedy) {
  Model model;
  model.model = "llama";
  EXPECT_THAT(ErrorOf(model, absl::StatusCode::kUnimplemented), HasSubstr("choose such a model"));
  model = {};
  model.pre = "tekken";
  EXPECT_THAT(ErrorOf(model, absl::StatusCode::kUnimplemented), HasSubstr("llama-bpe"));
}

TEST(TokenizerGgufTest, DamagedFilesAreErrorsThatNameTheFile) {
  Model model;
  model.has_merges = false;
  EXPECT_THAT(ErrorOf(model), HasSubstr("tokenizer.ggml.merges"));
  model = {};
  model.types.pop_back();
  EXPECT_THAT(ErrorOf(model), HasSubstr("7 token types for 8 tokens"));
  model = {};
  model.types[2] = 1 << 20;
  EXPECT_THAT(ErrorOf(model), HasSubstr("token 2 has type -1"));
  model = {};
  model.tokens[2] = "ba";
  EXPECT_THAT(ErrorOf(model), HasSubstr("result of merge 0"));
  model = {};
  model.extra_key = "tokenizer.ggml.eot_token_id";
  model.extra = 8;
  EXPECT_THAT(ErrorOf(model), HasSubstr("end token has id 8"));
  model.extra = UINT32_MAX;
  EXPECT_THAT(ErrorOf(model), HasSubstr("4294967295"));
}

}  // namespace
}  // namespace palimpsest
