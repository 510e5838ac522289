// Values as text: str() and repr() of Python, JSON, and the numbers inside strings.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

// What {{ value }} prints. Undefined is empty. InvalidArgument for values whose text has no meaning (macros,
// loops).
absl::StatusOr<std::string> ToString(const Value& value, Budget* budget);

struct JsonStyle {
  std::string item_separator = ", ", key_separator = ": ";
  std::optional<std::string> indent;  // one level of it
  bool ascii = false;                 // other characters become \uXXXX
  bool sort_keys = false;
};
absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Budget* budget);

std::string FloatToString(double number);  // Python's repr
std::optional<double> StringToFloat(std::string_view text);
std::optional<int64_t> StringToInteger(std::string_view text);  // decimal

}  // namespace palimpsest::jinja
