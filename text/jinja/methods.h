// The methods of Python's str, list and dict that templates call. Those that would change their object are
// hidden, as in Jinja's immutable sandbox.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "text/jinja/arguments.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

// Whether Python's type has a (safe) method of that name; it need not be one that CallMethod supports.
bool MethodExists(const Value& object, std::string_view name);
absl::StatusOr<Value> CallMethod(const Value& object, std::string_view name, const Arguments& arguments,
                                 Budget* budget);

// Those of strings, in text_methods.cc; `object` is one.
absl::StatusOr<Value> CallTextMethod(const Value& object, std::string_view name, const Arguments& arguments,
                                     Budget* budget);

// Shared with the filters of the same names.
absl::StatusOr<Value> Strip(const std::string& text, const Value* characters, bool left, bool right,
                            Budget* budget);
absl::StatusOr<Value> Replace(const std::string& text, std::string_view from, std::string_view to,
                              int64_t count, Budget* budget);
absl::StatusOr<Value> Join(const std::string& separator, const std::vector<Value>& items, bool text_only,
                           Budget* budget);
absl::StatusOr<Value> Capitalize(const std::string& text, Budget* budget);
std::vector<std::string_view> SplitLines(std::string_view text);

}  // namespace palimpsest::jinja
