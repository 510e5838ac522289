// The tests of templates: "x is defined", "x is divisibleby(3)".
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

bool TestExists(std::string_view name);
size_t TestArgumentCount(std::string_view name);  // 0 or 1; the test exists

// InvalidArgument if there is no such test (select() names tests at run time) or the count of `arguments` is
// wrong.
absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value, const std::vector<Value>& arguments,
                               Budget* budget);

}  // namespace palimpsest::jinja
