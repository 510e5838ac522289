// Any bytes as a request: the first byte says of which kind, the rest is its body, or its target. What is
// accepted keeps the limits and comes out as valid JSON; what is refused says so in valid JSON, with no
// status but a client's fault.
#include <boost/json.hpp>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "coordinator/http/api_error.h"
#include "coordinator/http/http.h"
#include "coordinator/http/json_fields.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/target.h"
#include "coordinator/prompt_mode.h"
#include "proto/base/policy_spec.h"
#include "proto/base/status.h"
#include "text/utf8.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

RequestRules Rules() {
  RequestRules rules;
  rules.model = "tiny";
  rules.limits.messages = 64;
  return rules;
}

void CheckRefusal(const absl::Status& status) {
  const int http = HttpStatusOf(status);
  PALIMPSEST_CHECK(http == 400 || http == 404, "status {}", http);
  json::error_code error;
  const json::value body = json::parse(ApiErrorBody(status), error);
  PALIMPSEST_CHECK(!error && body.is_object() && body.get_object().contains("error"));
  PALIMPSEST_CHECK(ApiErrorBody(status).size() < 64 << 10, "{} bytes", ApiErrorBody(status).size());
}

void CheckMessages(const std::vector<ChatMessage>& messages, const Config::Limits& limits) {
  PALIMPSEST_CHECK(!messages.empty() && static_cast<int64_t>(messages.size()) <= limits.messages);
  for (const ChatMessage& message : messages) {
    PALIMPSEST_CHECK(message.role == "system" || message.role == "user" || message.role == "assistant");
    PALIMPSEST_CHECK(CheckUtf8(message.content).ok());
  }
}

// A policy comes out as one that its own text names again; a catalyst as text of this request, never a file.
void CheckPrompt(const PromptOptions& options, const Config::Limits& limits) {
  const bool with_text = options.policy.catalyst == PolicySpec::Catalyst::kFile;
  PALIMPSEST_CHECK(with_text == !options.catalyst.empty());
  PALIMPSEST_CHECK(static_cast<int64_t>(options.catalyst.size()) <= limits.question_bytes);
  if (with_text) {
    PALIMPSEST_CHECK(options.policy.kind == PolicySpec::Kind::kInfiniPot && options.policy.score == "cap");
    PALIMPSEST_CHECK(CheckUtf8(options.catalyst).ok());
  }
  PALIMPSEST_CHECK(static_cast<int64_t>(options.answer_prefix.size()) <= limits.question_bytes);
  PALIMPSEST_CHECK(CheckUtf8(options.answer_prefix).ok());
  const absl::StatusOr<PolicySpec> again = ParsePolicy(PolicyText(options.policy));
  PALIMPSEST_CHECK(again.ok() && *again == options.policy, "{}", PolicyText(options.policy));
}

void CheckAccepted(const OpenAiRequest& request, std::string_view body, const RequestRules& rules) {
  // A plain parse of the same bytes must agree that it is an object.
  json::error_code error;
  json::parse_options options;
  options.max_depth = static_cast<size_t>(rules.limits.json_depth);
  const json::value value =
      json::parse(json::string_view(body.data(), body.size()), error, json::storage_ptr(), options);
  PALIMPSEST_CHECK(!error && value.is_object());

  const AnswerRequest& answer = request.answer;
  const proto::Sampling& sampling = answer.sampling;
  PALIMPSEST_CHECK(sampling.max_tokens() >= 0 && sampling.max_tokens() <= 1 << 24);
  PALIMPSEST_CHECK(sampling.temperature() >= 0 && sampling.temperature() <= 2);
  PALIMPSEST_CHECK(sampling.top_p() >= 0 && sampling.top_p() <= 1);
  PALIMPSEST_CHECK(sampling.min_p() >= 0 && sampling.min_p() <= 1);
  PALIMPSEST_CHECK(sampling.top_k() >= 0);
  PALIMPSEST_CHECK(sampling.repetition_penalty() > 0 && std::isfinite(sampling.repetition_penalty()));
  PALIMPSEST_CHECK(sampling.stop_size() <= rules.limits.stop_strings);
  for (const std::string& stop : sampling.stop()) {
    PALIMPSEST_CHECK(!stop.empty() && static_cast<int64_t>(stop.size()) <= rules.limits.stop_bytes);
  }
  PALIMPSEST_CHECK(answer.choices >= 1 && answer.choices <= rules.limits.choices);
  PALIMPSEST_CHECK(answer.top_logprobs >= 0 && answer.top_logprobs <= rules.limits.logprobs);
  PALIMPSEST_CHECK(answer.logprobs || answer.top_logprobs == 0);
  PALIMPSEST_CHECK(*ParseRecall(RecallText(answer.options.recall)) == answer.options.recall);
  CheckPrompt(answer.options, rules.limits);
  if (request.chat) {
    CheckMessages(std::get<std::vector<ChatMessage>>(answer.prompt), rules.limits);
  } else {
    PALIMPSEST_CHECK(answer.documents.empty());
  }
}

void CheckTarget(std::string_view target) {
  std::string path;
  std::map<std::string, std::string> query;
  if (!DecodeTarget(target, path, query).ok()) return;
  PALIMPSEST_CHECK(path.find('\0') == std::string::npos);
  size_t bytes = path.size();
  for (const auto& [name, value] : query) bytes += name.size() + value.size();
  PALIMPSEST_CHECK(bytes <= target.size() + 1, "{} bytes of {}", bytes, target.size());
}

}  // namespace
}  // namespace palimpsest::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  using namespace palimpsest::http;
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 2) {
    CheckTarget(body);
    return 0;
  }
  const RequestRules rules = Rules();
  const absl::StatusOr<OpenAiRequest> request =
      data[0] % 3 == 0 ? ParseChatRequest(body, rules) : ParseCompletionRequest(body, rules);
  if (request.ok()) {
    CheckAccepted(*request, body, rules);
  } else {
    CheckRefusal(request.status());
  }
  return 0;
}
