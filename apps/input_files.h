// The texts that a person names on the command line: files, folders of them, standard input.
//
// Errors : NotFound, PermissionDenied; InvalidArgument: a folder without text files, more bytes than
//          allowed. All name the path. Cancelled while standard input is read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/cancel.h"

namespace palimpsest {

inline constexpr std::string_view kStdin = "-";

// Folders become the .txt and .md files below them, in order of their names; hidden ones and links to folders
// are left out. Anything else stays as it is.
absl::StatusOr<std::vector<std::string>> ExpandFolders(const std::vector<std::string>& paths);

// All of a file, or of standard input for "-". A folder is InvalidArgument.
absl::StatusOr<std::string> ReadInput(const std::string& path, int64_t bytes_max, const CancelToken& cancel);

}  // namespace palimpsest
