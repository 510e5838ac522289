#include "coordinator/http/json_fields.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "coordinator/http/api_error.h"
#include "coordinator/http/openai_text.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"
#include "text/utf8.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

json::string_view ToBoost(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

std::string_view KindOf(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
      return "a whole number";
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "a value";
}

absl::StatusOr<json::value> ParseJsonBody(std::string_view body, int64_t depth) {
  if (const absl::Status utf8 = CheckUtf8(body); !utf8.ok()) {
    return AtParam(InvalidArgument("the body: {}", Message(utf8)), "", "invalid_utf8");
  }
  json::parse_options options;
  options.max_depth = static_cast<size_t>(depth);
  json::stream_parser parser(json::storage_ptr(), options);
  json::error_code error;
  const size_t read = parser.write_some(body.data(), body.size(), error);
  if (!error && !parser.done()) parser.finish(error);
  if (error == json::error::too_deep) {
    return AtParam(InvalidArgument("the body is nested deeper than limits.json_depth, {}", depth), "",
                   "invalid_json");
  }
  const size_t rest = body.find_first_not_of(" \t\r\n", read);
  if (error || rest != std::string_view::npos) {
    return AtParam(InvalidArgument("the body is not JSON: {} at byte {} of {}",
                                   error ? error.message() : "more text", error ? read : rest, body.size()),
                   "", "invalid_json");
  }
  json::value value = parser.release();
  if (!value.is_object()) {
    return AtParam(InvalidArgument("the body is {}; send a JSON object", KindOf(value)), "", "invalid_json");
  }
  return value;
}

JsonFields::JsonFields(const json::object& object, std::string path)
    : object_(object), path_(std::move(path)) {}

std::string JsonFields::Path(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

const json::value* JsonFields::Take(std::string_view name) {
  known_.emplace_back(name);
  const json::value* const value = object_.if_contains(ToBoost(name));
  return value == nullptr || value->is_null() ? nullptr : value;
}

absl::Status JsonFields::Wrong(std::string_view name, std::string_view expected,
                               const json::value& got) const {
  return AtParam(InvalidArgument("{} is {}; expected {}", Path(name), KindOf(got), expected), Path(name),
                 "invalid_type");
}

absl::StatusOr<std::optional<bool>> JsonFields::Bool(std::string_view name) {
  const json::value* const value = Take(name);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_bool()) return Wrong(name, "true or false", *value);
  return std::optional<bool>(value->get_bool());
}

absl::StatusOr<std::optional<int64_t>> JsonFields::Integer(std::string_view name, int64_t low, int64_t high) {
  const json::value* const value = Take(name);
  if (value == nullptr) return std::optional<int64_t>();
  const std::string range = fmt::format("a whole number from {} to {}", low, high);
  if (!value->is_int64() && !value->is_uint64() && !value->is_double()) return Wrong(name, range, *value);
  json::error_code error;
  const int64_t number = value->to_number<int64_t>(error);  // 3.0 is 3; 3.5 and what is too large are errors
  if (error || number < low || number > high) {
    return AtParam(InvalidArgument("{} is {}; expected {}", Path(name), json::serialize(*value), range),
                   Path(name), "invalid_value");
  }
  return std::optional<int64_t>(number);
}

absl::StatusOr<std::optional<double>> JsonFields::Real(std::string_view name, double low, double high) {
  const json::value* const value = Take(name);
  if (value == nullptr) return std::optional<double>();
  const std::string range = fmt::format("a number from {} to {}", low, high);
  if (!value->is_number()) return Wrong(name, range, *value);
  const double number = value->to_number<double>();
  if (!(number >= low && number <= high)) {
    return AtParam(InvalidArgument("{} is {}; expected {}", Path(name), number, range), Path(name),
                   "invalid_value");
  }
  return std::optional<double>(number);
}

absl::StatusOr<std::optional<std::string_view>> JsonFields::Text(std::string_view name,
                                                                 int64_t characters_min,
                                                                 int64_t characters_max) {
  const json::value* const value = Take(name);
  if (value == nullptr) return std::optional<std::string_view>();
  if (!value->is_string()) return Wrong(name, "a string", *value);
  const std::string_view text(value->get_string().data(), value->get_string().size());
  const int64_t characters = CountCharacters(text);
  if (characters < characters_min || characters > characters_max) {
    return AtParam(InvalidArgument("{} has {} characters; expected {} to {}", Path(name), characters,
                                   characters_min, characters_max),
                   Path(name), "invalid_value");
  }
  return std::optional<std::string_view>(text);
}

absl::StatusOr<const json::object*> JsonFields::Object(std::string_view name) {
  const json::value* const value = Take(name);
  if (value != nullptr && !value->is_object()) return Wrong(name, "an object", *value);
  return value == nullptr ? nullptr : &value->get_object();
}

absl::StatusOr<const json::array*> JsonFields::Array(std::string_view name) {
  const json::value* const value = Take(name);
  if (value != nullptr && !value->is_array()) return Wrong(name, "an array", *value);
  return value == nullptr ? nullptr : &value->get_array();
}

void JsonFields::Ignore(std::span<const std::string_view> names) {
  known_.insert(known_.end(), names.begin(), names.end());
}

absl::Status JsonFields::Unsupported(std::string_view name, std::span<const std::string_view> same) {
  const json::value* const value = Take(name);
  if (value == nullptr) return absl::OkStatus();
  const auto means_the_same = [value](std::string_view text) {
    const json::value other = json::parse(ToBoost(text));
    if (other.is_number() && value->is_number()) {
      return other.to_number<double>() == value->to_number<double>();
    }
    return other == *value;
  };
  if (std::any_of(same.begin(), same.end(), means_the_same)) return absl::OkStatus();
  const std::string but = same.empty() ? "" : fmt::format(" but as {}", fmt::join(same, " or "));
  return AtParam(InvalidArgument("{} is not supported{}; leave it out", Path(name), but), Path(name),
                 "unsupported");
}

absl::Status JsonFields::NoOthers() const {
  for (const auto& field : object_) {
    const std::string_view key(field.key().data(), field.key().size());
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string path = Path(OneLine(key, 64));
    return AtParam(InvalidArgument("unknown field {}{}", Quoted(path, 256), DidYouMean(key, known_)), path,
                   "unknown_parameter");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> TokenIds(const json::array& array, std::string_view path) {
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (const json::value& element : array) {
    const int64_t* const id = element.if_int64();
    if (id == nullptr || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
      const std::string place = fmt::format("{}[{}]", path, ids.size());
      return AtParam(InvalidArgument("{} is not a token id, a whole number from 0", place), place,
                     "invalid_value");
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

}  // namespace palimpsest::http
