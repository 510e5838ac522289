#include "coordinator/http/openai_request.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "coordinator/http/api_error.h"
#include "coordinator/http/json_fields.h"
#include "proto/base/policy_spec.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "text/utf8.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

constexpr int64_t kTokensMax = 1 << 24;  // of one answer; the window is checked with the prompt
constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr int64_t kNameCharactersMax = 512;
constexpr int64_t kPolicyCharactersMax = 4096;
constexpr int64_t kSaltCharactersMax = 1024;
constexpr int64_t kDocumentsMax = 1024;
constexpr int64_t kCompletionTokens = 16;  // OpenAI's default

constexpr std::string_view kZero[] = {"0"};
constexpr std::string_view kEmptyObject[] = {"{}"};
constexpr std::string_view kEmptyArray[] = {"[]"};
constexpr std::string_view kOff[] = {"false"};
constexpr std::string_view kEmptyText[] = {"\"\""};

// They name, bill or keep; no answer depends on them.
constexpr std::string_view kHarmless[] = {"user",
                                          "metadata",
                                          "store",
                                          "service_tier",
                                          "safety_identifier",
                                          "prompt_cache_key",
                                          "prediction",
                                          "parallel_tool_calls",
                                          "prompt_cache_retention"};

absl::Status Missing(std::string_view name) {
  return AtParam(InvalidArgument("{} is missing", name), name, "missing");
}

absl::Status ReadTokens(JsonFields& fields, bool chat, AnswerRequest* answer) {
  PALIMPSEST_ASSIGN_OR_RETURN(auto tokens, fields.Integer("max_tokens", 1, kTokensMax));
  if (chat) {  // the newer name wins
    PALIMPSEST_ASSIGN_OR_RETURN(const auto newer, fields.Integer("max_completion_tokens", 1, kTokensMax));
    if (newer.has_value()) tokens = newer;
  }
  answer->sampling.set_max_tokens(tokens.value_or(chat ? 0 : kCompletionTokens));
  answer->may_cut = !tokens.has_value();
  return absl::OkStatus();
}

absl::Status ReadStop(JsonFields& fields, const Config::Limits& limits, proto::Sampling* sampling) {
  const json::value* const stop = fields.Take("stop");
  if (stop == nullptr) return absl::OkStatus();
  std::vector<const json::value*> texts;
  if (const json::array* const array = stop->if_array()) {
    if (static_cast<int64_t>(array->size()) > limits.stop_strings) {
      return AtParam(InvalidArgument("stop has {} strings, limits.stop_strings allows {}", array->size(),
                                     limits.stop_strings),
                     "stop", "invalid_value");
    }
    for (const json::value& one : *array) texts.push_back(&one);
  } else {
    texts.push_back(stop);
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string path = stop->is_array() ? fmt::format("stop[{}]", i) : "stop";
    const json::string* const text = texts[i]->if_string();
    if (text == nullptr) {
      return AtParam(InvalidArgument("{} is {}; expected a string", path, KindOf(*texts[i])), path,
                     "invalid_type");
    }
    if (text->empty() || static_cast<int64_t>(text->size()) > limits.stop_bytes) {
      return AtParam(InvalidArgument("{} has {} bytes, limits.stop_bytes allows 1 to {}", path, text->size(),
                                     limits.stop_bytes),
                     path, "invalid_value");
    }
    sampling->add_stop(text->data(), text->size());
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(JsonFields& fields, const RequestRules& rules, proto::Sampling* sampling) {
  const Config::Generate& own = rules.generate;
  PALIMPSEST_ASSIGN_OR_RETURN(const auto temperature, fields.Real("temperature", 0, 2));
  sampling->set_temperature(temperature.value_or(own.temperature));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto top_p, fields.Real("top_p", 0, 1));
  sampling->set_top_p(top_p.value_or(own.top_p));
  // -1 is how some clients write "all".
  PALIMPSEST_ASSIGN_OR_RETURN(const auto top_k, fields.Integer("top_k", -1, 1'000'000));
  sampling->set_top_k(std::max<int64_t>(0, top_k.value_or(own.top_k)));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto min_p, fields.Real("min_p", 0, 1));
  sampling->set_min_p(min_p.value_or(own.min_p));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto penalty, fields.Real("repetition_penalty", 0.01, 10));
  sampling->set_repetition_penalty(penalty.value_or(own.repetition_penalty));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto seed,
                              fields.Integer("seed", std::numeric_limits<int64_t>::min(), kAny));
  sampling->set_seed(static_cast<uint64_t>(seed.value_or(own.seed)));
  return ReadStop(fields, rules.limits, sampling);
}

absl::Status ReadStream(JsonFields& fields, OpenAiRequest* request) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto stream, fields.Bool("stream"));
  request->stream = stream.value_or(false);
  PALIMPSEST_ASSIGN_OR_RETURN(const json::object* const object, fields.Object("stream_options"));
  if (object == nullptr) return absl::OkStatus();
  if (!request->stream) {
    return AtParam(InvalidArgument("stream_options needs stream: true"), "stream_options", "invalid_value");
  }
  JsonFields options(*object, "stream_options");
  PALIMPSEST_ASSIGN_OR_RETURN(const auto usage, options.Bool("include_usage"));
  request->include_usage = usage.value_or(false);
  PALIMPSEST_RETURN_IF_ERROR(options.Unsupported("continuous_usage_stats", kOff));
  constexpr std::string_view kIgnored[] = {"include_obfuscation"};
  options.Ignore(kIgnored);
  return options.NoOthers();
}

// A right policy that this version does not have is "unsupported", as any such field.
absl::Status AtOwn(absl::Status status, std::string_view name) {
  const std::string path = fmt::format("palimpsest.{}", name);
  if (status.ok()) return status;
  const bool later = status.code() == absl::StatusCode::kUnimplemented;
  return AtParam(InvalidArgument("{}: {}", path, Message(status)), path,
                 later ? "unsupported" : "invalid_value");
}

absl::Status ReadDocuments(JsonFields& own, std::vector<std::string>* documents) {
  PALIMPSEST_ASSIGN_OR_RETURN(const json::array* const array, own.Array("documents"));
  if (array == nullptr) return absl::OkStatus();
  const std::string name = own.Path("documents");
  if (static_cast<int64_t>(array->size()) > kDocumentsMax) {
    return AtParam(InvalidArgument("{} has {} ids; at most {}", name, array->size(), kDocumentsMax), name,
                   "invalid_value");
  }
  for (const json::value& element : *array) {
    const std::string path = fmt::format("{}[{}]", name, documents->size());
    const json::string* const id = element.if_string();
    if (id == nullptr || id->empty() || id->size() > 128) {
      return AtParam(InvalidArgument("{} is not the id of a document, such as doc-0123456789abcdef", path),
                     path, id == nullptr ? "invalid_type" : "invalid_value");
    }
    documents->emplace_back(id->data(), id->size());
  }
  return absl::OkStatus();
}

// A text of ours, of as many bytes as a question may have.
absl::StatusOr<std::string> ReadOwnText(JsonFields& own, const Config::Limits& limits,
                                        std::string_view name) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto text, own.Text(name, 1, limits.question_bytes));
  if (!text.has_value()) return std::string();
  if (static_cast<int64_t>(text->size()) <= limits.question_bytes) return std::string(*text);
  return AtOwn(
      InvalidArgument("{} bytes, limits.question_bytes allows {}", text->size(), limits.question_bytes),
      name);
}

absl::Status ReadPolicy(JsonFields& own, const Config::Limits& limits, PromptOptions* options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto text, own.Text("policy", 1, kPolicyCharactersMax));
  if (text.has_value()) {
    absl::StatusOr<PolicySpec> policy = ParsePolicy(*text);
    PALIMPSEST_RETURN_IF_ERROR(AtOwn(policy.status(), "policy"));
    options->policy = std::move(*policy);
  }
  PolicySpec& policy = options->policy;
  if (policy.catalyst == PolicySpec::Catalyst::kFile) {
    return AtOwn(InvalidArgument("catalyst=@ names a file, and a server reads none for a client; send the "
                                 "text itself as palimpsest.catalyst"),
                 "policy");
  }
  PALIMPSEST_ASSIGN_OR_RETURN(options->catalyst, ReadOwnText(own, limits, "catalyst"));
  if (options->catalyst.empty()) return absl::OkStatus();
  if (policy.kind != PolicySpec::Kind::kInfiniPot || policy.score != "cap" ||
      policy.catalyst != PolicySpec::Catalyst::kDefault) {
    return AtOwn(InvalidArgument("it goes with policy infinipot that names no other catalyst and has "
                                 "score=cap; the policy is {}",
                                 policy.name()),
                 "catalyst");
  }
  policy.catalyst = PolicySpec::Catalyst::kFile;
  policy.catalyst_file = "request";
  return absl::OkStatus();
}

absl::Status ReadOwn(JsonFields& fields, const Config::Limits& limits, AnswerRequest* answer) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto salt, fields.Text("cache_salt", 1, kSaltCharactersMax));
  answer->cache_salt = std::string(salt.value_or(""));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::object* const object, fields.Object("palimpsest"));
  if (object == nullptr) return absl::OkStatus();
  JsonFields own(*object, "palimpsest");
  PALIMPSEST_RETURN_IF_ERROR(ReadDocuments(own, &answer->documents));
  PALIMPSEST_RETURN_IF_ERROR(ReadPolicy(own, limits, &answer->options));
  PALIMPSEST_ASSIGN_OR_RETURN(answer->options.answer_prefix, ReadOwnText(own, limits, "answer_prefix"));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto recall, own.Text("recall", 1, kPolicyCharactersMax));
  if (recall.has_value()) {
    const absl::StatusOr<RecallSpec> spec = ParseRecall(*recall);
    PALIMPSEST_RETURN_IF_ERROR(AtOwn(spec.status(), "recall"));
    answer->options.recall = *spec;
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const auto prefill, own.Text("prefill", 1, kPolicyCharactersMax));
  if (prefill.has_value()) {
    const absl::StatusOr<PrefillChoice> choice = ParsePrefill(*prefill);
    PALIMPSEST_RETURN_IF_ERROR(AtOwn(choice.status(), "prefill"));
    answer->options.prefill = *choice;
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const auto question, own.Text("question", 1, kPolicyCharactersMax));
  if (question.has_value()) {
    const absl::StatusOr<bool> visible = ParseQuestionVisible(*question);
    PALIMPSEST_RETURN_IF_ERROR(AtOwn(visible.status(), "question"));
    answer->options.question_visible = *visible;
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const auto own_salt, own.Text("cache_salt", 1, kSaltCharactersMax));
  if (own_salt.has_value()) answer->cache_salt = std::string(*own_salt);
  PALIMPSEST_ASSIGN_OR_RETURN(const auto ignore_end, own.Bool("ignore_end"));
  answer->ignore_end = ignore_end.value_or(false);
  return own.NoOthers();
}

// What both kinds of requests have.
absl::Status ReadCommon(JsonFields& fields, const RequestRules& rules, OpenAiRequest* request) {
  PALIMPSEST_RETURN_IF_ERROR(CheckModel(fields, rules.model));
  PALIMPSEST_RETURN_IF_ERROR(ReadTokens(fields, request->chat, &request->answer));
  PALIMPSEST_RETURN_IF_ERROR(ReadSampling(fields, rules, &request->answer.sampling));
  PALIMPSEST_RETURN_IF_ERROR(ReadStream(fields, request));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto choices, fields.Integer("n", 1, rules.limits.choices));
  request->answer.choices = choices.value_or(1);
  PALIMPSEST_RETURN_IF_ERROR(ReadOwn(fields, rules.limits, &request->answer));
  for (const std::string_view name : {"presence_penalty", "frequency_penalty", "priority"}) {
    PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported(name, kZero));
  }
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("logit_bias", kEmptyObject));
  fields.Ignore(kHarmless);
  return absl::OkStatus();
}

absl::Status ReadChatLogprobs(JsonFields& fields, const Config::Limits& limits, AnswerRequest* answer) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto logprobs, fields.Bool("logprobs"));
  answer->logprobs = logprobs.value_or(false);
  PALIMPSEST_ASSIGN_OR_RETURN(const auto top, fields.Integer("top_logprobs", 0, limits.logprobs));
  answer->top_logprobs = static_cast<int32_t>(top.value_or(0));
  if (answer->top_logprobs == 0 || answer->logprobs) return absl::OkStatus();
  return AtParam(InvalidArgument("top_logprobs needs logprobs: true"), "top_logprobs", "invalid_value");
}

// Formats and tools of which only the plain one is there.
absl::Status RefuseWhatChatsLack(JsonFields& fields) {
  constexpr std::string_view kPlainFormat[] = {R"({"type": "text"})"};
  constexpr std::string_view kTextOnly[] = {R"(["text"])"};
  constexpr std::string_view kNoTool[] = {"\"none\"", "\"auto\""};
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("response_format", kPlainFormat));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("modalities", kTextOnly));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("tool_choice", kNoTool));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("function_call", kNoTool));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("tools", kEmptyArray));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("functions", kEmptyArray));
  for (const std::string_view name : {"audio", "reasoning_effort", "verbosity", "web_search_options"}) {
    PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported(name));
  }
  return absl::OkStatus();
}

// A text, token ids, or an array of one of them.
absl::Status ReadPrompt(JsonFields& fields, AnswerRequest* answer) {
  const json::value* prompt = fields.Take("prompt");
  if (prompt == nullptr) return Missing("prompt");
  std::string path = "prompt";
  if (const json::array* const array = prompt->if_array();
      array != nullptr && !array->empty() && (array->front().is_string() || array->front().is_array())) {
    if (array->size() > 1) {
      return AtParam(InvalidArgument("prompt has {} prompts; send one in a request", array->size()), "prompt",
                     "unsupported");
    }
    prompt = &array->front();
    path = "prompt[0]";
  }
  if (const json::string* const text = prompt->if_string()) {
    if (text->empty()) return AtParam(InvalidArgument("{} is empty", path), path, "invalid_value");
    answer->prompt = std::string(text->data(), text->size());
    return absl::OkStatus();
  }
  const json::array* const ids = prompt->if_array();
  if (ids == nullptr) {
    return AtParam(
        InvalidArgument("{} is {}; expected a string or an array of token ids", path, KindOf(*prompt)), path,
        "invalid_type");
  }
  if (ids->empty()) return AtParam(InvalidArgument("{} is empty", path), path, "invalid_value");
  PALIMPSEST_ASSIGN_OR_RETURN(answer->prompt, TokenIds(*ids, path));
  return absl::OkStatus();
}

absl::Status ReadCompletionOnly(JsonFields& fields, const Config::Limits& limits, AnswerRequest* answer) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto logprobs, fields.Integer("logprobs", 0, limits.logprobs));
  answer->logprobs = logprobs.has_value();
  answer->top_logprobs = static_cast<int32_t>(logprobs.value_or(0));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("echo", kOff));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("suffix", kEmptyText));
  const std::string choices = fmt::format("{}", answer->choices);
  const std::string_view as_many[] = {choices};
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("best_of", as_many));
  if (!answer->options.answer_prefix.empty()) {
    return AtParam(InvalidArgument("an answer goes on behind its prompt; put its first words there"),
                   "palimpsest.answer_prefix", "unsupported");
  }
  if (answer->documents.empty()) return absl::OkStatus();
  return AtParam(InvalidArgument("documents are read before a question of a chat; use /v1/chat/completions"),
                 "palimpsest.documents", "unsupported");
}

}  // namespace

bool IsServed(std::string_view name, std::string_view served) {
  constexpr std::string_view kEnding = ".gguf";
  const auto stem = [&](std::string_view text) {
    return text.ends_with(kEnding) ? text.substr(0, text.size() - kEnding.size()) : text;
  };
  return stem(name) == stem(served);
}

absl::Status ModelNotFound(std::string_view name, std::string_view served) {
  return NotFound("model {} is not served here; {} is", Quoted(name, 256), Quoted(served, 256));
}

absl::Status CheckModel(JsonFields& fields, std::string_view served) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto model, fields.Text("model", 1, kNameCharactersMax));
  if (!model.has_value() || IsServed(*model, served)) return absl::OkStatus();
  return AtParam(ModelNotFound(*model, served), "model", "model_not_found");
}

absl::StatusOr<OpenAiRequest> ParseChatRequest(std::string_view body, const RequestRules& rules) {
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value value, ParseJsonBody(body, rules.limits.json_depth));
  JsonFields fields(value.get_object(), "");
  OpenAiRequest request;
  request.chat = true;
  PALIMPSEST_RETURN_IF_ERROR(ReadCommon(fields, rules, &request));
  PALIMPSEST_RETURN_IF_ERROR(ReadChatLogprobs(fields, rules.limits, &request.answer));
  PALIMPSEST_RETURN_IF_ERROR(RefuseWhatChatsLack(fields));
  const json::value* const messages = fields.Take("messages");
  if (messages == nullptr) return Missing("messages");
  PALIMPSEST_ASSIGN_OR_RETURN(request.answer.prompt, ParseMessages(*messages, rules.limits));
  PALIMPSEST_RETURN_IF_ERROR(fields.NoOthers());
  return request;
}

absl::StatusOr<OpenAiRequest> ParseCompletionRequest(std::string_view body, const RequestRules& rules) {
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value value, ParseJsonBody(body, rules.limits.json_depth));
  JsonFields fields(value.get_object(), "");
  OpenAiRequest request;
  request.chat = false;
  PALIMPSEST_RETURN_IF_ERROR(ReadCommon(fields, rules, &request));
  PALIMPSEST_RETURN_IF_ERROR(ReadPrompt(fields, &request.answer));
  PALIMPSEST_RETURN_IF_ERROR(ReadCompletionOnly(fields, rules.limits, &request.answer));
  PALIMPSEST_RETURN_IF_ERROR(fields.NoOthers());
  return request;
}

}  // namespace palimpsest::http
