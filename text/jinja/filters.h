// The filters of templates: "x | trim", "x | join(', ')". As in Jinja 3, except tojson, which is that of
// Hugging Face's transformers (no HTML escapes).
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "text/jinja/arguments.h"
#include "text/jinja/value.h"

namespace palimpsest::jinja {

bool FilterExists(std::string_view name);
// InvalidArgument if there is no such filter (map() names filters at run time).
absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input, const Arguments& arguments,
                                  Budget* budget);

// The filters over lists, in filters_lists.cc; the others are in filters.cc.
using Filter = absl::StatusOr<Value> (*)(const Value& input, const Arguments& arguments, Budget* budget);
Filter FindListFilter(std::string_view name);  // nullptr if absent

}  // namespace palimpsest::jinja
