// The operators of expressions, and what stands behind "." and "[ ]".
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

// left + right, and -, *, /, //, %, **. Takes `left` over: a string that nobody else holds grows in place.
absl::StatusOr<Value> Arithmetic(Value left, std::string_view op, const Value& right, Budget* budget);
absl::StatusOr<Value> Negate(const Value& value);
// left < right, and ==, !=, <=, >, >=, "in", "not in".
absl::StatusOr<bool> CompareWith(const Value& left, std::string_view op, const Value& right, Budget* budget);
// Appends the text of `right` to the string `left`.
absl::StatusOr<Value> AppendText(Value left, std::string_view right, Budget* budget);

// value.name, where a method wins over a key, as in Jinja. `name` must outlive the result.
absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name, Budget* budget);
// value[key], where a key wins over a method. Undefined if there is none.
absl::StatusOr<Value> GetItem(const Value& value, const Value& key, std::string_view hint, Budget* budget);
// value[start:stop:step]; nullptr where left out.
absl::StatusOr<Value> GetSlice(const Value& value, const Value* start, const Value* stop, const Value* step,
                               Budget* budget);

}  // namespace palimpsest::jinja
