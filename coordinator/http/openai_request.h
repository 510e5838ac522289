// From the JSON that OpenAI's clients send to a request for an answer: POST /v1/chat/completions and
// /v1/completions.
//
// Fields that we have are checked for type and range. Of the others, those that cannot change the answer
// (user, metadata, store, ...) are ignored, those that would (tools, response_format, logit_bias, ...) are
// refused with code "unsupported" unless they ask for what happens anyway, and unknown ones with
// "unknown_parameter".
//
// Ours are in one object: "palimpsest": {"documents": ["doc-..."], "policy", "recall", "prefill",
// "question": "hidden" | "visible", "catalyst", "answer_prefix", "cache_salt", "ignore_end"}. A policy names
// no file here: the text of a catalyst is a field.
//
// Defaults: max_tokens as OpenAI's (a chat: as many as fit; a completion: 16, or as many as fit); the rest
// from the configuration's generate.*.
// Errors : InvalidArgument with param and code (api_error.h); NotFound for a model that is not served.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "coordinator/answer_request.h"
#include "proto/base/config.h"

namespace boost::json {
class value;
}

namespace palimpsest::http {

class JsonFields;

struct RequestRules {
  Config::Limits limits;
  Config::Generate generate;
  std::string model;  // what is served
};

struct OpenAiRequest {
  AnswerRequest answer;
  bool chat = true;
  bool stream = false;
  bool include_usage = false;  // in a stream
};

absl::StatusOr<OpenAiRequest> ParseChatRequest(std::string_view body, const RequestRules& rules);
absl::StatusOr<OpenAiRequest> ParseCompletionRequest(std::string_view body, const RequestRules& rules);

// Is it the model that is served? Its file's ending may be there or not.
bool IsServed(std::string_view name, std::string_view served);
absl::Status ModelNotFound(std::string_view name, std::string_view served);

// The field `model`, if it is there, must be the one that is served.
absl::Status CheckModel(JsonFields& fields, std::string_view served);

// The array `messages` of a request.
absl::StatusOr<std::vector<ChatMessage>> ParseMessages(const boost::json::value& messages,
                                                       const Config::Limits& limits);

}  // namespace palimpsest::http
