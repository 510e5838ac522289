// What a filter, test, method or function was called with, and how it reads that.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

// The arguments in the order of `parameters`, pointing into `arguments`; nullptr for those left out.
// InvalidArgument if there are too many, an unknown name, or fewer than the first `required`.
absl::StatusOr<std::vector<const Value*>> Bind(std::string_view callee, const Arguments& arguments,
                                               std::initializer_list<std::string_view> parameters,
                                               size_t required);

// A bound argument as what it must be; `fallback` if left out.
absl::StatusOr<std::string> TextArgument(const Value* value, std::string_view what,
                                         std::string_view fallback);
absl::StatusOr<int64_t> IntegerArgument(const Value* value, std::string_view what, int64_t fallback);
inline bool FlagArgument(const Value* value, bool fallback) {
  return value == nullptr ? fallback : IsTrue(*value);
}

}  // namespace palimpsest::jinja
