// The two ways in which Python puts values into a string, as far as templates use them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "text/jinja/arguments.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

// format % values, with %s %d %i %% only.
absl::StatusOr<Value> FormatPercent(const std::string& format, const Value& values, Budget* budget);
// format.format(...), with {} {0} {name} {{ }} only.
absl::StatusOr<Value> FormatBraces(const std::string& format, const Arguments& arguments, Budget* budget);

}  // namespace palimpsest::jinja
