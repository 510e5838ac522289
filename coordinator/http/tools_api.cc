// /v1/models, /version, /tokenize and /detokenize: what clients ask before they ask.
#include <boost/json.hpp>
#include <utility>

#include "coordinator/http/api_error.h"
#include "coordinator/http/api_routes.h"
#include "coordinator/http/json_fields.h"
#include "coordinator/http/openai_text.h"
#include "proto/base/json.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

json::object ModelJson(const ServedModel& model) {
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.created_unix},
          {"owned_by", "palimpsest"},
          {"max_model_len", model.window_tokens}};
}

void ListModels(const ApiParts& parts, const Request& /*request*/, Response& response) {
  const json::object list{{"object", "list"}, {"data", json::array{ModelJson(parts.coordinator->model())}}};
  response.Send(200, "application/json", PrintJson(list));
}

void GetModel(const ApiParts& parts, const Request& request, Response& response) {
  const ServedModel& model = parts.coordinator->model();
  const std::string& name = request.parameters.at("id");
  if (IsServed(name, model.name)) {
    return response.Send(200, "application/json", PrintJson(ModelJson(model)));
  }
  SendApiError(response, AtParam(ModelNotFound(name, model.name), "model", "model_not_found"));
}

// As vLLM's.
void GetVersion(const ApiParts& parts, const Request& /*request*/, Response& response) {
  const std::string& version = parts.coordinator->registry().identity().version;
  response.Send(200, "application/json", PrintJson(json::object{{"version", version}}));
}

std::vector<int32_t> TokensOf(const PromptPlan& plan) {
  std::vector<int32_t> tokens;
  for (const PromptSegment& segment : plan.segments) {
    tokens.insert(tokens.end(), segment.tokens.begin(), segment.tokens.end());
  }
  return tokens;
}

// The ids that a chat of these messages would have.
absl::StatusOr<std::vector<int32_t>> TokenizeMessages(const ApiParts& parts, const json::value& messages) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<ChatMessage> chat, ParseMessages(messages, parts.config.limits));
  const absl::StatusOr<PromptPlan> plan =
      parts.coordinator->model().planner->PlanChat({}, std::move(chat), {});
  if (!plan.ok()) return AboutPrompt(plan.status(), "messages");
  return TokensOf(*plan);
}

// Special tokens in a client's text are text, as in /v1/completions.
absl::StatusOr<std::vector<int32_t>> TokenizeText(const Tokenizer& tokenizer, std::string_view text,
                                                  bool add_special) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                              tokenizer.Encode(text, Tokenizer::Special::kAsText));
  const bool bos = add_special && tokenizer.add_bos() && tokenizer.bos() >= 0;
  if (bos) tokens.insert(tokens.begin(), tokenizer.bos());
  return tokens;
}

absl::StatusOr<json::object> Tokenized(const ApiParts& parts, std::string_view body) {
  const Config::Limits& limits = parts.config.limits;
  const ServedModel& model = parts.coordinator->model();
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value value, ParseJsonBody(body, limits.json_depth));
  JsonFields fields(value.get_object(), "");
  PALIMPSEST_RETURN_IF_ERROR(CheckModel(fields, model.name));
  PALIMPSEST_ASSIGN_OR_RETURN(auto text, fields.Text("text", 0, limits.body_bytes));
  PALIMPSEST_ASSIGN_OR_RETURN(const auto prompt, fields.Text("prompt", 0, limits.body_bytes));
  if (!text.has_value()) text = prompt;  // the name that other servers have for it
  PALIMPSEST_ASSIGN_OR_RETURN(const auto add_special, fields.Bool("add_special_tokens"));
  const json::value* const messages = fields.Take("messages");
  PALIMPSEST_RETURN_IF_ERROR(fields.NoOthers());
  if (text.has_value() == (messages != nullptr)) {
    return AtParam(InvalidArgument("give either text or messages"), "text",
                   text.has_value() ? "invalid_value" : "missing");
  }
  absl::StatusOr<std::vector<int32_t>> tokens =
      messages != nullptr ? TokenizeMessages(parts, *messages)
                          : TokenizeText(*model.tokenizer, *text, add_special.value_or(true));
  PALIMPSEST_RETURN_IF_ERROR(tokens.status());
  return json::object{{"tokens", json::array(tokens->begin(), tokens->end())},
                      {"count", tokens->size()},
                      {"max_model_len", model.window_tokens}};
}

absl::StatusOr<json::object> Detokenized(const ApiParts& parts, std::string_view body) {
  const ServedModel& model = parts.coordinator->model();
  PALIMPSEST_ASSIGN_OR_RETURN(const json::value value, ParseJsonBody(body, parts.config.limits.json_depth));
  JsonFields fields(value.get_object(), "");
  PALIMPSEST_RETURN_IF_ERROR(CheckModel(fields, model.name));
  PALIMPSEST_ASSIGN_OR_RETURN(const json::array* const array, fields.Array("tokens"));
  PALIMPSEST_RETURN_IF_ERROR(fields.NoOthers());
  if (array == nullptr) return AtParam(InvalidArgument("tokens is missing"), "tokens", "missing");
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, TokenIds(*array, "tokens"));
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < model.tokenizer->vocabulary_size()) continue;
    const std::string path = fmt::format("tokens[{}]", i);
    return AtParam(InvalidArgument("{} is {}; the model has ids from 0 to {}", path, tokens[i],
                                   model.tokenizer->vocabulary_size() - 1),
                   path, "invalid_value");
  }
  return json::object{{"text", ValidText(model.tokenizer->Decode(tokens, /*with_special=*/true))}};
}

void Tool(absl::StatusOr<json::object> (*tool)(const ApiParts& parts, std::string_view body),
          const ApiParts& parts, const Request& request, Response& response) {
  if (!IsJson(request, response)) return;
  const absl::StatusOr<json::object> object = tool(parts, request.body);
  if (!object.ok()) return SendApiError(response, object.status());
  response.Send(200, "application/json", PrintJson(*object));
}

}  // namespace

void AddToolRoutes(const ApiParts& parts, Router& router) {
  const auto add = [&](const char* method, const char* path, Route::Body body, auto handle,
                       bool takes_rest = false) {
    router.Add(
        {method, path, body, Route::Access::kKey,
         [parts, handle](const Request& request, Response& response) { handle(parts, request, response); },
         takes_rest});
  };
  add("GET", "/v1/models", Route::Body::kNone, ListModels);
  // Many a model is called ORGANISATION/NAME.
  add("GET", "/v1/models/{id}", Route::Body::kNone, GetModel, /*takes_rest=*/true);
  add("GET", "/version", Route::Body::kNone, GetVersion);
  add("POST", "/tokenize", Route::Body::kMemory,
      [](const ApiParts& own, const Request& request, Response& response) {
        Tool(Tokenized, own, request, response);
      });
  add("POST", "/detokenize", Route::Body::kMemory,
      [](const ApiParts& own, const Request& request, Response& response) {
        Tool(Detokenized, own, request, response);
      });
}

}  // namespace palimpsest::http
