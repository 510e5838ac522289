// Policy and recall as written on the command line: NAME or NAME:key=value,key=value.
//
// Errors: InvalidArgument: no such name or key, with the nearest one, or not of this form. Unimplemented:
// right, but
//         not in this version; names what is.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace palimpsest {

absl::Status CheckPolicy(std::string_view text);
absl::Status CheckRecall(std::string_view text);

}  // namespace palimpsest
