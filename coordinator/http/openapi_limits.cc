// The API's description with the limits of this server: what a client may send differs from one to the next.
#include <boost/json.hpp>
#include <map>

#include "coordinator/http/api_routes.h"
#include "proto/base/json.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

using LimitsByName = std::map<std::string, int64_t>;

// Every schema that names a limit gets its number, in the keyword that it has.
void Fill(json::value& schema, const LimitsByName& limits) {
  if (json::array* const array = schema.if_array()) {
    for (json::value& element : *array) Fill(element, limits);
    return;
  }
  json::object* const object = schema.if_object();
  if (object == nullptr) return;
  for (auto& field : *object) Fill(field.value(), limits);
  const json::value* const name = object->if_contains("x-limit");
  if (name == nullptr) return;
  const auto limit = limits.find(std::string(name->as_string()));
  PALIMPSEST_CHECK(limit != limits.end(), "openapi.json names an unknown limit");
  for (const char* keyword : {"maximum", "maxItems", "maxLength"}) {
    if (object->contains(keyword)) (*object)[keyword] = limit->second;
  }
}

}  // namespace

std::string OpenApiJson(const ApiParts& parts) {
  const Config::Limits& own = parts.config.limits;
  const LimitsByName limits = {
      {"limits.messages", own.messages},
      {"limits.question_bytes", own.question_bytes},
      {"limits.choices", own.choices},
      {"limits.logprobs", own.logprobs},
      {"limits.stop_strings", own.stop_strings},
      {"limits.stop_bytes", own.stop_bytes},
      {"last token id", parts.coordinator->model().tokenizer->vocabulary_size() - 1},
  };
  const std::string_view text = OpenApiTemplate();
  json::value description = json::parse(json::string_view(text.data(), text.size()));
  Fill(description, limits);
  return PrintJson(description);
}

}  // namespace palimpsest::http
