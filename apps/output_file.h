// A file that a command makes for a person: whole or not at all.
//
// Errors : NotFound: no such folder; PermissionDenied; InvalidArgument: a folder, a device or a pipe is
//          there; Unavailable: the disk is full or fails. All name the path; what was there before stays as
//          it was.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace palimpsest {

// Whether WriteOutputFile may work, before hours are spent on what it would write. Writes nothing.
absl::Status CheckOutputFile(const std::string& path);

// Written beside `path` and renamed; a link is followed. A new file has the rights that the shell would give.
absl::Status WriteOutputFile(const std::string& path, std::string_view bytes);

}  // namespace palimpsest
