// Errors of the API: which field of the request is meant, and the word that clients know for it, travel with
// the status.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "coordinator/http/http.h"

namespace palimpsest::http {

// `param` is the path of a field: "messages[2].content". `code` is OpenAI's where it has one:
// "model_not_found". What the status carries already stays.
absl::Status AtParam(absl::Status status, std::string_view param, std::string_view code = "");
std::string ParamOf(const absl::Status& status);
std::string CodeOf(const absl::Status& status);

// What a coordinator's refusal means to a client: `param` is where the request has its prompt. A prompt that
// can never fit is the request's fault, not a quota's.
absl::Status AboutPrompt(absl::Status status, std::string_view param);

// The body of the error, and the whole answer. Internal errors are logged, under the request's id, and told
// without details.
std::string ApiErrorBody(const absl::Status& status, std::string_view request_id = "");
void SendApiError(Response& response, const absl::Status& status);
// One of HTTP's own: 415 and the like.
void SendHttpError(Response& response, int status, std::string_view message, std::string_view param = "");

}  // namespace palimpsest::http
