#include "coordinator/http/api_error.h"

#include "absl/strings/cord.h"
#include "coordinator/prompt_plan.h"
#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

constexpr std::string_view kParam = "palimpsest/param";
constexpr std::string_view kCode = "palimpsest/code";
constexpr int kInternal = 500;

std::string Payload(const absl::Status& status, std::string_view name) {
  const auto payload = status.GetPayload(ToAbsl(name));
  return payload.has_value() ? std::string(*payload) : std::string();
}

// SendError's own words stand for statuses without a code.
std::string DefaultCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented:
      return "unsupported";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    case absl::StatusCode::kResourceExhausted:
      return "too_many_requests";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    default:
      return "";
  }
}

}  // namespace

absl::Status AtParam(absl::Status status, std::string_view param, std::string_view code) {
  if (status.ok()) return status;
  if (!param.empty() && ParamOf(status).empty()) {
    status.SetPayload(ToAbsl(kParam), absl::Cord(ToAbsl(param)));
  }
  if (!code.empty() && CodeOf(status).empty()) status.SetPayload(ToAbsl(kCode), absl::Cord(ToAbsl(code)));
  return status;
}

std::string ParamOf(const absl::Status& status) { return Payload(status, kParam); }
std::string CodeOf(const absl::Status& status) { return Payload(status, kCode); }

absl::Status AboutPrompt(absl::Status status, std::string_view param) {
  const bool too_large =
      status.code() == absl::StatusCode::kResourceExhausted && !RetryAfter(status).has_value();
  if (too_large || IsOverWindow(status)) {
    return AtParam(Error(absl::StatusCode::kInvalidArgument, "{}", Message(status)), param,
                   "context_length_exceeded");
  }
  if (status.code() == absl::StatusCode::kNotFound) {
    return AtParam(std::move(status), "palimpsest.documents", "document_not_found");
  }
  if (status.code() == absl::StatusCode::kInvalidArgument) return AtParam(std::move(status), param);
  return status;
}

std::string ApiErrorBody(const absl::Status& status, std::string_view request_id) {
  const int http = HttpStatusOf(status);
  const std::string code = CodeOf(status);
  if (http == kInternal) {
    PALIMPSEST_LOG(kError, "request {} failed: {}", LogName(request_id), status);
    return ErrorBody(http,
                     "internal error; the server's log has the details under this answer's X-Request-Id");
  }
  return ErrorBody(http, Message(status), code.empty() ? DefaultCode(status) : code, ParamOf(status));
}

void SendApiError(Response& response, const absl::Status& status) {
  const std::string code = CodeOf(status);
  if (code.empty()) return SendError(response, status, ParamOf(status));
  const int http = HttpStatusOf(status);
  Headers more;
  if (const auto seconds = RetryAfter(status)) more["retry-after"] = std::to_string(*seconds);
  response.Send(http, "application/json", ErrorBody(http, Message(status), code, ParamOf(status)), more);
}

void SendHttpError(Response& response, int status, std::string_view message, std::string_view param) {
  response.Send(status, "application/json", ErrorBody(status, message, "", param));
}

}  // namespace palimpsest::http
