// range and strftime_now, apart from the interpreter.
#pragma once

#include <chrono>

#include "absl/status/statusor.h"
#include "text/jinja/arguments.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

absl::StatusOr<Value> MakeRange(const Arguments& arguments, Budget* budget);
// strftime with the names of the C locale, in UTC: every machine of a cluster renders the same text.
absl::StatusOr<Value> FormatTime(const Arguments& arguments, std::chrono::system_clock::time_point now,
                                 Budget* budget);

}  // namespace palimpsest::jinja
