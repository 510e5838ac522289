#include "proto/base/json.h"

#include <boost/json.hpp>
#include <cmath>
#include <limits>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

void Print(const json::value& value, std::string& out);

void PrintDouble(double number, std::string& out) {
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  const std::string text = fmt::format("{}", number);
  out += text;
  if (text.find_first_of(".e") == std::string::npos) out += ".0";  // a reader sees that it is a real number
}

void PrintObject(const json::object& object, std::string& out) {
  std::string_view separator;
  out += '{';
  for (const auto& [key, value] : object) {
    out += separator;
    out += json::serialize(json::string(key));
    out += ": ";
    Print(value, out);
    separator = ", ";
  }
  out += '}';
}

void PrintArray(const json::array& array, std::string& out) {
  std::string_view separator;
  out += '[';
  for (const json::value& value : array) {
    out += separator;
    Print(value, out);
    separator = ", ";
  }
  out += ']';
}

void Print(const json::value& value, std::string& out) {
  if (const json::object* object = value.if_object()) return PrintObject(*object, out);
  if (const json::array* array = value.if_array()) return PrintArray(*array, out);
  if (const double* number = value.if_double()) return PrintDouble(*number, out);
  out += json::serialize(value);
}

}  // namespace

std::string PrintJson(const json::value& value) {
  std::string out;
  Print(value, out);
  return out;
}

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text, std::string_view name) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return InvalidArgument("{}: not JSON: {}", OneLine(name), error.message());
  const json::array* const array = value.if_array();
  if (array == nullptr) return InvalidArgument("{}: expected a JSON array of token ids", OneLine(name));
  std::vector<int32_t> ids;
  ids.reserve(array->size());
  for (const json::value& element : *array) {
    const int64_t* const id = element.if_int64();
    if (id == nullptr || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
      return InvalidArgument("{}: element {} is not a token id (a whole number from 0)", OneLine(name),
                             ids.size());
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

}  // namespace palimpsest
