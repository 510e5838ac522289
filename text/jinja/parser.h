// Parses a template completely, so that nothing unsupported is met while rendering a message.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "text/jinja/ast.h"

namespace palimpsest::jinja {

// InvalidArgument "chat template line N: ..." names the construct that is wrong or not supported.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace palimpsest::jinja
