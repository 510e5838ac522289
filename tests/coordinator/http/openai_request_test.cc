// JSON of clients to requests: what is taken, and how what is not is refused.
#include "coordinator/http/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/http/api_error.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

RequestRules Rules() {
  RequestRules rules;
  rules.model = "tiny";
  rules.generate.temperature = 0.25;
  rules.generate.seed = 7;
  return rules;
}

absl::StatusOr<OpenAiRequest> Chat(std::string_view more) {
  std::string body = R"({"messages": [{"role": "user", "content": "hi"}])";
  if (!more.empty()) body += fmt::format(", {}", more);
  return ParseChatRequest(body + "}", Rules());
}

absl::StatusOr<OpenAiRequest> Complete(std::string_view more) {
  std::string body = R"({"prompt": "hi")";
  if (!more.empty()) body += fmt::format(", {}", more);
  return ParseCompletionRequest(body + "}", Rules());
}

const std::vector<ChatMessage>& Messages(const OpenAiRequest& request) {
  return std::get<std::vector<ChatMessage>>(request.answer.prompt);
}

TEST(ChatRequestTest, TheShortestOneHasTheDefaults) {
  const auto request = Chat("");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->chat);
  EXPECT_FALSE(request->stream);
  ASSERT_EQ(Messages(*request).size(), 1u);
  EXPECT_EQ(Messages(*request)[0].role, "user");
  EXPECT_EQ(Messages(*request)[0].content, "hi");
  const AnswerRequest& answer = request->answer;
  EXPECT_EQ(answer.sampling.max_tokens(), 0);  // as many as fit
  EXPECT_TRUE(answer.may_cut);
  EXPECT_EQ(answer.sampling.temperature(), 0.25);
  EXPECT_EQ(answer.sampling.top_p(), 1);
  EXPECT_EQ(answer.sampling.repetition_penalty(), 1);
  EXPECT_EQ(answer.sampling.seed(), 7u);
  EXPECT_EQ(answer.choices, 1);
  EXPECT_EQ(PolicyText(answer.options.policy), "auto");
  EXPECT_FALSE(answer.logprobs);
}

TEST(ChatRequestTest, EveryFieldArrives) {
  const auto request = Chat(R"(
      "model": "tiny.gguf", "max_tokens": 5, "max_completion_tokens": 6, "temperature": 2, "top_p": 0.5,
      "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "seed": -1, "n": 8, "stop": ["a", "\n\n"],
      "stream": true, "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 20,
      "palimpsest": {"documents": ["doc-00000001", "doc-00000002"], "policy": "full", "recall": "none",
                     "prefill": "exact", "question": "visible", "cache_salt": "s",
                     "answer_prefix": " It is"})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  const AnswerRequest& answer = request->answer;
  EXPECT_EQ(answer.sampling.max_tokens(), 6);
  EXPECT_FALSE(answer.may_cut);
  EXPECT_EQ(answer.sampling.temperature(), 2);
  EXPECT_EQ(answer.sampling.top_p(), 0.5);
  EXPECT_EQ(answer.sampling.top_k(), 40);
  EXPECT_EQ(answer.sampling.min_p(), 0.1);
  EXPECT_EQ(answer.sampling.repetition_penalty(), 1.1);
  EXPECT_EQ(answer.sampling.seed(), std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(answer.sampling.stop(), ElementsAre("a", "\n\n"));
  EXPECT_EQ(answer.choices, 8);
  EXPECT_TRUE(answer.logprobs);
  EXPECT_EQ(answer.top_logprobs, 20);
  EXPECT_THAT(answer.documents, ElementsAre("doc-00000001", "doc-00000002"));
  EXPECT_EQ(answer.options.prefill, PrefillChoice::kExact);
  EXPECT_TRUE(answer.options.question_visible);
  EXPECT_EQ(answer.options.answer_prefix, " It is");
  EXPECT_EQ(answer.cache_salt, "s");
}

TEST(ChatRequestTest, PoliciesAndTheTextOfACatalystArrive) {
  const auto request = Chat(R"("palimpsest": {"policy": "infinipot:pot=2K", "prefill": "pot",
                                              "catalyst": "Well?"})");
  ASSERT_TRUE(request.ok()) << request.status();
  const PromptOptions& options = request->answer.options;
  EXPECT_EQ(options.prefill, PrefillChoice::kPot);
  EXPECT_EQ(options.policy.pot.value, 2048);
  EXPECT_EQ(options.policy.catalyst, PolicySpec::Catalyst::kFile);
  EXPECT_EQ(options.catalyst, "Well?");
  EXPECT_TRUE(ParsePolicy(PolicyText(options.policy)).ok()) << "a worker reads it";
  RequestRules rules = Rules();
  rules.limits.question_bytes = 4;
  for (const char* name : {"catalyst", "answer_prefix"}) {
    const auto longer = ParseChatRequest(fmt::format(R"({{"messages": [{{"role": "user", "content": "hi"}}],
            "palimpsest": {{"policy": "infinipot", "{}": "\u00e9\u00e9\u00e9"}}}})",
                                                     name),
                                         rules);
    EXPECT_THAT(Message(longer.status()), HasSubstr("6 bytes, limits.question_bytes allows 4"));
  }
}

TEST(ChatRequestTest, RolesAndPartsAreUnderstood) {
  const auto request = ParseChatRequest(
      R"({"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"},
                                                         {"type": "text", "text": "b"}]},
                       {"role": "user", "name": "x", "content": ""},
                       {"role": "assistant", "content": null, "refusal": null, "tool_calls": []}]})",
      Rules());
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(Messages(*request).size(), 3u);
  EXPECT_EQ(Messages(*request)[0].role, "system");
  EXPECT_EQ(Messages(*request)[0].content, "ab");
  EXPECT_EQ(Messages(*request)[1].content, "");
  EXPECT_EQ(Messages(*request)[2].content, "");
}

TEST(ChatRequestTest, WhatChangesNothingIsIgnored) {
  const auto request = Chat(R"("user": "u", "metadata": {"a": 1}, "store": true, "service_tier": "auto",
      "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "response_format": {"type": "text"},
      "tools": [], "tool_choice": "none", "functions": null, "modalities": ["text"], "audio": null,
      "stop": null, "seed": null, "max_tokens": null, "top_k": -1, "parallel_tool_calls": true)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->answer.sampling.top_k(), 0);
  EXPECT_EQ(request->answer.sampling.seed(), 7u);
}

TEST(CompletionRequestTest, TakesTextOrIds) {
  const auto text = Complete(R"("logprobs": 3, "echo": false, "suffix": "", "best_of": 1)");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(std::get<std::string>(text->answer.prompt), "hi");
  EXPECT_EQ(text->answer.sampling.max_tokens(), 16);
  EXPECT_TRUE(text->answer.may_cut);
  EXPECT_FALSE(Complete(R"("max_tokens": 16)")->answer.may_cut);
  EXPECT_TRUE(text->answer.logprobs);
  EXPECT_EQ(text->answer.top_logprobs, 3);
  for (const char* prompt : {"[1, 2]", "[[1, 2]]"}) {
    const auto ids = ParseCompletionRequest(fmt::format(R"({{"prompt": {}}})", prompt), Rules());
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_THAT(std::get<std::vector<int32_t>>(ids->answer.prompt), ElementsAre(1, 2));
  }
  EXPECT_TRUE(ParseCompletionRequest(R"({"prompt": ["one"]})", Rules()).ok());
}

struct Bad {
  const char* field;  // added to a good request
  const char* code;
  const char* param;
  const char* says = "";
};

void ExpectRefused(const absl::Status& status, const Bad& bad) {
  EXPECT_EQ(HttpStatusOf(status), 400) << bad.field << ": " << status;
  EXPECT_EQ(CodeOf(status), bad.code) << bad.field << ": " << status;
  EXPECT_EQ(ParamOf(status), bad.param) << bad.field;
  EXPECT_THAT(Message(status), HasSubstr(bad.says)) << bad.field;
}

TEST(ChatRequestTest, BadFieldsAreRefusedByName) {
  const Bad table[] = {
      {R"("model": 3)", "invalid_type", "model", "a whole number"},
      {R"("model": "")", "invalid_value", "model"},
      {R"("temperature": -0.1)", "invalid_value", "temperature", "from 0 to 2"},
      {R"("temperature": 2.1)", "invalid_value", "temperature"},
      {R"("temperature": "1")", "invalid_type", "temperature", "a string"},
      {R"("temperature": 1e999)", "invalid_value", "temperature"},
      {R"("top_p": 1.5)", "invalid_value", "top_p"},
      {R"("top_k": 1.5)", "invalid_value", "top_k"},
      {R"("top_k": -2)", "invalid_value", "top_k"},
      {R"("min_p": 2)", "invalid_value", "min_p"},
      {R"("repetition_penalty": 0)", "invalid_value", "repetition_penalty"},
      {R"("max_tokens": 0)", "invalid_value", "max_tokens"},
      {R"("max_tokens": -5)", "invalid_value", "max_tokens", "-5"},
      {R"("max_tokens": 99999999999999999999)", "invalid_value", "max_tokens"},
      {R"("max_completion_tokens": 0)", "invalid_value", "max_completion_tokens"},
      {R"("seed": 9223372036854775808)", "invalid_value", "seed"},
      {R"("seed": true)", "invalid_type", "seed", "a boolean"},
      {R"("n": 0)", "invalid_value", "n"},
      {R"("n": 9)", "invalid_value", "n", "from 1 to 8"},
      {R"("stop": 1)", "invalid_type", "stop"},
      {R"("stop": "")", "invalid_value", "stop"},
      {R"("stop": ["a", 1])", "invalid_type", "stop[1]"},
      {R"("stop": ["1","2","3","4","5","6","7","8","9","0","1","2","3","4","5","6","7"])", "invalid_value",
       "stop", "limits.stop_strings allows 16"},
      {R"("stream": "yes")", "invalid_type", "stream"},
      {R"("stream_options": {"include_usage": true})", "invalid_value", "stream_options", "stream: true"},
      {R"("stream": true, "stream_options": {"includeusage": true})", "unknown_parameter",
       "stream_options.includeusage", "did you mean include_usage?"},
      {R"("stream": true, "stream_options": {"continuous_usage_stats": true})", "unsupported",
       "stream_options.continuous_usage_stats"},
      {R"("logprobs": 5)", "invalid_type", "logprobs"},
      {R"("top_logprobs": 5)", "invalid_value", "top_logprobs", "needs logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "invalid_value", "top_logprobs"},
      {R"("tools": [{"type": "function"}])", "unsupported", "tools"},
      {R"("tool_choice": "required")", "unsupported", "tool_choice"},
      {R"("functions": [1])", "unsupported", "functions"},
      {R"("response_format": {"type": "json_object"})", "unsupported", "response_format"},
      {R"("logit_bias": {"50256": -100})", "unsupported", "logit_bias"},
      {R"("presence_penalty": 0.5)", "unsupported", "presence_penalty"},
      {R"("frequency_penalty": -1)", "unsupported", "frequency_penalty"},
      {R"("modalities": ["text", "audio"])", "unsupported", "modalities"},
      {R"("audio": {"voice": "x"})", "unsupported", "audio"},
      {R"("reasoning_effort": "low")", "unsupported", "reasoning_effort"},
      {R"("prompt": "x")", "unknown_parameter", "prompt"},
      {R"("temprature": 1)", "unknown_parameter", "temprature", "did you mean temperature?"},
      {R"("cache_salt": "")", "invalid_value", "cache_salt"},
      {R"("palimpsest": [])", "invalid_type", "palimpsest"},
      {R"("palimpsest": {"document": ["doc-1"]})", "unknown_parameter", "palimpsest.document",
       "did you mean documents?"},
      {R"("palimpsest": {"documents": "doc-1"})", "invalid_type", "palimpsest.documents"},
      {R"("palimpsest": {"documents": [1]})", "invalid_type", "palimpsest.documents[0]"},
      {R"("palimpsest": {"documents": [""]})", "invalid_value", "palimpsest.documents[0]"},
      {R"("palimpsest": {"policy": "snapvk"})", "invalid_value", "palimpsest.policy", "did you mean snapkv?"},
      {R"("palimpsest": {"policy": "snapkv:kernel=4"})", "invalid_value", "palimpsest.policy", "odd number"},
      {R"("palimpsest": {"policy": "infinipot:catalyst=@/etc/passwd"})", "invalid_value", "palimpsest.policy",
       "palimpsest.catalyst"},
      {R"("palimpsest": {"catalyst": "Well?"})", "invalid_value", "palimpsest.catalyst",
       "the policy is auto"},
      {R"("palimpsest": {"policy": "infinipot:catalyst=question", "catalyst": "Well?"})", "invalid_value",
       "palimpsest.catalyst", "no other catalyst"},
      {R"("palimpsest": {"policy": "infinipot", "catalyst": ""})", "invalid_value", "palimpsest.catalyst"},
      {R"("palimpsest": {"policy": "infinipot", "catalyst": 1})", "invalid_type", "palimpsest.catalyst"},
      {R"("palimpsest": {"policy": "snapkv:budget=1"})", "invalid_value", "palimpsest.policy", "window=32"},
      {R"("palimpsest": {"recall": "most"})", "invalid_value", "palimpsest.recall"},
      {R"("palimpsest": {"recall": "slices:slice=5"})", "invalid_value", "palimpsest.recall",
       "8, 16, 32 or 64"},
      {R"("palimpsest": {"prefill": "exakt"})", "invalid_value", "palimpsest.prefill", "exact"},
      {R"("palimpsest": {"question": "seen"})", "invalid_value", "palimpsest.question"},
      {R"("palimpsest": {"answer_prefix": ""})", "invalid_value", "palimpsest.answer_prefix"},
      {R"("palimpsest": {"answer_prefix": ["a"]})", "invalid_type", "palimpsest.answer_prefix"},
  };
  for (const Bad& bad : table) ExpectRefused(Chat(bad.field).status(), bad);
}

TEST(CompletionRequestTest, BadFieldsAreRefusedByName) {
  const Bad table[] = {
      {R"("logprobs": true)", "invalid_type", "logprobs"},
      {R"("echo": true)", "unsupported", "echo"},
      {R"("suffix": "x")", "unsupported", "suffix"},
      {R"("best_of": 2)", "unsupported", "best_of"},
      {R"("messages": [])", "unknown_parameter", "messages"},
      {R"("palimpsest": {"documents": ["doc-1"]})", "unsupported", "palimpsest.documents",
       "/v1/chat/completions"},
      {R"("palimpsest": {"answer_prefix": "It"})", "unsupported", "palimpsest.answer_prefix",
       "behind its prompt"},
  };
  for (const Bad& bad : table) ExpectRefused(Complete(bad.field).status(), bad);
  const Bad prompts[] = {
      {"null", "missing", "prompt"},
      {"\"\"", "invalid_value", "prompt"},
      {"{}", "invalid_type", "prompt"},
      {"[]", "invalid_value", "prompt"},
      {"[1, \"a\"]", "invalid_value", "prompt[1]"},
      {"[1, -1]", "invalid_value", "prompt[1]"},
      {"[2147483648]", "invalid_value", "prompt[0]"},
      {"[\"a\", \"b\"]", "unsupported", "prompt", "2 prompts"},
      {"[[]]", "invalid_value", "prompt[0]"},
  };
  for (const Bad& bad : prompts) {
    const std::string body = fmt::format(R"({{"prompt": {}}})", bad.field);
    ExpectRefused(ParseCompletionRequest(body, Rules()).status(), bad);
  }
}

TEST(ChatRequestTest, BadMessagesAreRefusedByPlace) {
  const Bad table[] = {
      {"null", "missing", "messages"},
      {"\"hi\"", "invalid_type", "messages"},
      {"[]", "invalid_value", "messages"},
      {"[\"hi\"]", "invalid_type", "messages[0]"},
      {"[{}]", "missing", "messages[0].role"},
      {R"([{"role": "user", "content": "a"}, {"role": "usr", "content": "b"}])", "invalid_value",
       "messages[1].role", "did you mean user?"},
      {R"([{"role": "tool", "content": "b"}])", "unsupported", "messages[0].role", "tools are not supported"},
      {R"([{"role": "user"}])", "missing", "messages[0].content"},
      {R"([{"role": "user", "content": 1}])", "invalid_type", "messages[0].content"},
      {R"([{"role": "user", "content": ["a"]}])", "invalid_type", "messages[0].content[0]"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])", "unsupported",
       "messages[0].content[0].type", "only text is"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "missing", "messages[0].content[0].text"},
      {R"([{"role": "user", "content": "a", "contents": 1}])", "unknown_parameter", "messages[0].contents"},
      {R"([{"role": "assistant", "tool_calls": [{}]}])", "unsupported", "messages[0].tool_calls"},
  };
  for (const Bad& bad : table) {
    const std::string body = fmt::format(R"({{"messages": {}}})", bad.field);
    ExpectRefused(ParseChatRequest(body, Rules()).status(), bad);
  }
}

TEST(ChatRequestTest, BodiesThatAreNoJsonObjectAreRefused) {
  const Bad table[] = {
      {"", "invalid_json", ""},
      {"{", "invalid_json", ""},
      {"[]", "invalid_json", "", "an array"},
      {"{} x", "invalid_json", "", "more text"},
      {"{\"messages\": [\xff]}", "invalid_utf8", ""},
      {"{\"messages\": \"\\ud800\"}", "invalid_json", ""},
      {"{'a': 1}", "invalid_json", ""},
  };
  for (const Bad& bad : table) ExpectRefused(ParseChatRequest(bad.field, Rules()).status(), bad);
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  ExpectRefused(ParseChatRequest(R"({"messages": )" + deep + "}", Rules()).status(),
                {"deep", "invalid_json", "", "limits.json_depth, 32"});
}

TEST(ChatRequestTest, TooManyMessagesAreCounted) {
  RequestRules rules = Rules();
  rules.limits.messages = 1;
  const std::string one = R"({"role": "user", "content": "a"})";
  const auto request = ParseChatRequest(fmt::format(R"({{"messages": [{}, {}]}})", one, one), rules);
  ExpectRefused(request.status(),
                {"two", "invalid_value", "messages", "2 messages, limits.messages allows 1"});
}

TEST(ChatRequestTest, OtherModelsAreNotFound) {
  const absl::Status status = Chat(R"("model": "gpt-4o")").status();
  EXPECT_EQ(HttpStatusOf(status), 404);
  EXPECT_EQ(CodeOf(status), "model_not_found");
  EXPECT_EQ(ParamOf(status), "model");
  EXPECT_THAT(Message(status), HasSubstr("'tiny'"));
}

TEST(ChatRequestTest, ErrorsNeverTellContent) {
  const auto request =
      ParseChatRequest(R"({"messages": [{"role": "user", "content": {"secret": 1}}]})", Rules());
  EXPECT_THAT(Message(request.status()), ::testing::Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace palimpsest::http
