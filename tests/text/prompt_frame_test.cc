// MakePromptFrame: a template cut where the user's text stands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "proto/base/status.h"
#include "text/chat_template.h"
#include "text/gguf.h"

namespace palimpsest {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<PromptFrame> Frame(const std::string& source) {
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status();
  ChatTemplate::Options options;
  options.bos_token = "<s>";
  return MakePromptFrame(**parsed, options);
}

std::string Refusal(const std::string& source) {
  const auto frame = Frame(source);
  return frame.ok() ? "cut: " + frame->prefix + "|" + frame->tail : Message(frame.status());
}

TEST(PromptFrame, IsWhatStandsAroundTheUsersText) {
  const auto frame = Frame(
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}\n"
      "{% if add_generation_prompt %}[assistant] {% endif %}");
  ASSERT_TRUE(frame.ok()) << Message(frame.status());
  EXPECT_EQ(frame->prefix, "<s>[user] ");
  EXPECT_EQ(frame->tail, "\n[assistant] ");
}

TEST(PromptFrame, MayTrimTheUsersText) {
  const auto frame = Frame("<{{ messages[0].content | trim }}>");
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->prefix + frame->tail, "<>");
}

TEST(PromptFrame, IsRefusedWhenTheTextIsAltered) {
  EXPECT_THAT(Refusal("{{ messages[0].content | upper }}"), HasSubstr("alters"));
  EXPECT_THAT(Refusal("{{ messages[0].content | tojson }}"), HasSubstr("alters"));
  EXPECT_THAT(Refusal("no text"), HasSubstr("alters"));
}

TEST(PromptFrame, IsRefusedWhenTheTextIsRepeated) {
  EXPECT_THAT(Refusal("{{ messages[0].content }}{{ messages[0].content }}"), HasSubstr("repeats"));
}

TEST(PromptFrame, IsRefusedWhenItDependsOnTheText) {
  EXPECT_THAT(Refusal("{{ messages[0].content | length }}{{ messages[0].content }}"), HasSubstr("depends"));
  EXPECT_THAT(Refusal("{{ messages[0].content }}{{ 'x' if '{{' in messages[0].content }}"),
              HasSubstr("depends"));
}

TEST(PromptFrame, PassesTheTemplatesRefusalOn) {
  EXPECT_THAT(Refusal("{{ raise_exception('system text needed') }}"), HasSubstr("system text needed"));
}

TEST(PromptFrame, OfTheModelFileIsItsDefaultSystemTextAndTheAnswersHead) {
  const char* path = std::getenv("PALIMPSEST_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "PALIMPSEST_TEST_MODEL is unset: no model file to test with";
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << Message(file.status());
  const auto source = (*file)->GetString("tokenizer.chat_template");
  ASSERT_TRUE(source.ok()) << Message(source.status());
  const auto frame = Frame(std::string(*source));
  ASSERT_TRUE(frame.ok()) << Message(frame.status());
  EXPECT_EQ(
      frame->prefix,
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
      "<|im_start|>user\n");
  EXPECT_EQ(frame->tail, "<|im_end|>\n<|im_start|>assistant\n");
}

}  // namespace
}  // namespace palimpsest
