// POST /v1/chat/completions and /v1/completions.
#include <chrono>
#include <utility>

#include "coordinator/http/answer_sinks.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/api_routes.h"
#include "coordinator/http/openai_response.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

using ParseRequest = absl::StatusOr<OpenAiRequest> (*)(std::string_view body, const RequestRules& rules);

OpenAiFormat::Options FormatOf(const OpenAiRequest& request, const ServedModel& model) {
  return {.chat = request.chat,
          .logprobs = request.answer.logprobs,
          .include_usage = request.include_usage,
          .model = model.name,
          .fingerprint = "fp_" + model.hash.substr(0, 12),
          .created = RealClock().UnixMillis() / 1000,
          .tokenizer = model.tokenizer};
}

// In words for the client. A cancelled request whose client is there was cancelled by a stop.
absl::Status Explained(absl::Status status, const OpenAiRequest& request, const Response& response) {
  if (status.code() == absl::StatusCode::kCancelled && !response.gone().IsSet()) {
    return WithRetryAfter(Error(absl::StatusCode::kUnavailable, "the server is stopping; ask again"), 1);
  }
  return AboutPrompt(std::move(status), request.chat ? "messages" : "prompt");
}

void AnswerWhole(Coordinator& coordinator, const OpenAiRequest& request, const OpenAiFormat& format,
                 Response& response) {
  CollectingSink sink(request.answer.choices, request.answer.logprobs);
  absl::Status status = coordinator.Answer(request.answer, sink, response.gone());
  if (status.ok() && !sink.AllDone()) status = Internal("an answer ended without its last event");
  if (!status.ok()) return SendApiError(response, Explained(std::move(status), request, response));
  response.Send(200, "application/json", format.Whole(sink.choices(), sink.documents()));
}

void AnswerAsStream(Coordinator& coordinator, const OpenAiRequest& request, const OpenAiFormat& format,
                    Response& response) {
  StreamingSink sink(format, request.answer.choices, response);
  const absl::Status status = coordinator.Answer(request.answer, sink, sink.cancel());
  sink.Finish(Explained(status, request, response));
}

void Answer(const ApiParts& parts, ParseRequest parse, const Request& http, Response& response) {
  if (!IsJson(http, response)) return;
  absl::StatusOr<OpenAiRequest> request = parse(http.body, RulesOf(parts));
  if (!request.ok()) return SendApiError(response, request.status());
  request->answer.tenant = http.tenant;
  request->answer.request_id = http.request_id;
  const OpenAiFormat format(FormatOf(*request, parts.coordinator->model()));
  (request->stream ? AnswerAsStream : AnswerWhole)(*parts.coordinator, *request, format, response);
}

}  // namespace

void AddCompletionRoutes(const ApiParts& parts, Router& router) {
  const auto add = [&](const char* path, ParseRequest parse) {
    router.Add({"POST", path, Route::Body::kMemory, Route::Access::kKey,
                [parts, parse](const Request& request, Response& response) {
                  Answer(parts, parse, request, response);
                }});
  };
  add("/v1/chat/completions", ParseChatRequest);
  add("/v1/completions", ParseCompletionRequest);
}

}  // namespace palimpsest::http
