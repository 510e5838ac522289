// What a client writes in the first lines of a request, made plain: target, address of this server, request
// id. No library, so that the fuzz target reaches it alone.
//
// Errors : InvalidArgument that repeats nothing of what the client wrote but the name of a query key.
// Threads: pure functions.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace palimpsest::http {

// "/v1/documents?name=a%20b" or the same with "http://HOST" before it. A zero byte, a broken %XX and a query
// key that stands twice are errors; '+' in a query is a space.
absl::Status DecodeTarget(std::string_view target, std::string& path,
                          std::map<std::string, std::string>& query);

// 1 to 128 of [A-Za-z0-9_.-].
bool IsRequestId(std::string_view text);
// "req-" and 24 hex digits that no one can guess.
std::string NewRequestId();

}  // namespace palimpsest::http
