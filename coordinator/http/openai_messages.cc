// The conversation of a request: roles and texts.
#include <boost/json.hpp>
#include <utility>

#include "coordinator/http/api_error.h"
#include "coordinator/http/json_fields.h"
#include "coordinator/http/openai_request.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

constexpr int64_t kRoleCharactersMax = 64;

absl::StatusOr<std::string> ParseRole(JsonFields& fields) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto role, fields.Text("role", 1, kRoleCharactersMax));
  const std::string path = fields.Path("role");
  if (!role.has_value()) {
    return AtParam(InvalidArgument("{} is missing; give system, user or assistant", path), path, "missing");
  }
  if (*role == "developer") return std::string("system");  // the newer word for it
  if (*role == "system" || *role == "user" || *role == "assistant") return std::string(*role);
  if (*role == "tool" || *role == "function") {
    return AtParam(InvalidArgument("{} is {}: tools are not supported; put what the tool said into a user "
                                   "message",
                                   path, Quoted(*role)),
                   path, "unsupported");
  }
  const std::vector<std::string> roles = {"system", "user", "assistant", "developer"};
  return AtParam(InvalidArgument("{} {} is not system, developer, user or assistant{}", path, Quoted(*role),
                                 DidYouMean(*role, roles)),
                 path, "invalid_value");
}

// One part of a text: {"type": "text", "text": "..."}.
absl::Status AppendPart(const json::value& part, const std::string& path, std::string* text) {
  if (!part.is_object()) {
    return AtParam(InvalidArgument("{} is {}; expected an object with type and text", path, KindOf(part)),
                   path, "invalid_type");
  }
  JsonFields fields(part.get_object(), path);
  PALIMPSEST_ASSIGN_OR_RETURN(const auto type, fields.Text("type", 0, kRoleCharactersMax));
  if (type.has_value() && *type != "text") {
    return AtParam(InvalidArgument("{}.type {} is not supported; only text is", path, Quoted(*type)),
                   path + ".type", "unsupported");
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const auto words, fields.Text("text", 0, std::numeric_limits<int64_t>::max()));
  if (!type.has_value() || !words.has_value()) {
    const std::string missing = fields.Path(type.has_value() ? "text" : "type");
    return AtParam(InvalidArgument("{} is missing", missing), missing, "missing");
  }
  text->append(*words);
  return fields.NoOthers();
}

absl::StatusOr<std::string> ParseContent(JsonFields& fields, bool may_be_absent) {
  const std::string path = fields.Path("content");
  const json::value* const content = fields.Take("content");
  if (content == nullptr) {
    if (may_be_absent) return std::string();
    return AtParam(InvalidArgument("{} is missing; give a string", path), path, "missing");
  }
  if (const json::string* const text = content->if_string()) return std::string(text->data(), text->size());
  const json::array* const parts = content->if_array();
  if (parts == nullptr) {
    return AtParam(
        InvalidArgument("{} is {}; expected a string or an array of text parts", path, KindOf(*content)),
        path, "invalid_type");
  }
  std::string text;
  for (size_t i = 0; i < parts->size(); ++i) {
    PALIMPSEST_RETURN_IF_ERROR(AppendPart((*parts)[i], fmt::format("{}[{}]", path, i), &text));
  }
  return text;
}

absl::StatusOr<ChatMessage> ParseMessage(const json::value& value, const std::string& path) {
  if (!value.is_object()) {
    return AtParam(InvalidArgument("{} is {}; expected an object with role and content", path, KindOf(value)),
                   path, "invalid_type");
  }
  JsonFields fields(value.get_object(), path);
  ChatMessage message;
  PALIMPSEST_ASSIGN_OR_RETURN(message.role, ParseRole(fields));
  constexpr std::string_view kEmptyArray[] = {"[]"};
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("tool_calls", kEmptyArray));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("function_call"));
  PALIMPSEST_RETURN_IF_ERROR(fields.Unsupported("audio"));
  // What our own answers and OpenAI's carry when they are sent back as history.
  constexpr std::string_view kIgnored[] = {"name", "refusal", "annotations"};
  fields.Ignore(kIgnored);
  PALIMPSEST_ASSIGN_OR_RETURN(message.content, ParseContent(fields, message.role == "assistant"));
  PALIMPSEST_RETURN_IF_ERROR(fields.NoOthers());
  return message;
}

}  // namespace

absl::StatusOr<std::vector<ChatMessage>> ParseMessages(const json::value& messages,
                                                       const Config::Limits& limits) {
  const json::array* const array = messages.if_array();
  if (array == nullptr) {
    return AtParam(InvalidArgument("messages is {}; expected an array", KindOf(messages)), "messages",
                   "invalid_type");
  }
  if (array->empty()) {
    return AtParam(InvalidArgument("messages is empty; give at least one"), "messages", "invalid_value");
  }
  if (static_cast<int64_t>(array->size()) > limits.messages) {
    return AtParam(InvalidArgument("{} messages, limits.messages allows {}", array->size(), limits.messages),
                   "messages", "invalid_value");
  }
  std::vector<ChatMessage> parsed;
  parsed.reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    PALIMPSEST_ASSIGN_OR_RETURN(ChatMessage message,
                                ParseMessage((*array)[i], fmt::format("messages[{}]", i)));
    parsed.push_back(std::move(message));
  }
  return parsed;
}

}  // namespace palimpsest::http
