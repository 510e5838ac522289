// The file of API keys (api_keys.h), read and checked.
//
// Errors : InvalidArgument "FILE line 4: key 'team-a': ..."; NotFound or PermissionDenied if it cannot be
// read.
//          None repeats a hash.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/ids.h"

namespace palimpsest::http {

struct ApiKeyEntry {
  std::string name, tenant;
  Hash256 hash;                                      // SHA-256 of the key
  std::optional<int64_t> expired_from_unix_seconds;  // the end of the day that the file names
  int64_t concurrent = 0, requests_per_minute = 0;   // 0: no limit
};

absl::StatusOr<std::vector<ApiKeyEntry>> ReadApiKeysFile(const std::string& file);
absl::StatusOr<std::vector<ApiKeyEntry>> ParseApiKeys(std::string_view yaml, std::string_view name);

}  // namespace palimpsest::http
