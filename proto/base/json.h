// JSON as commands print it: one line, numbers as people write them. Boost.JSON stays in the .cc files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace boost::json {
class value;
}

namespace palimpsest {

// Shortest decimals that give the same double back ("0.25", "3.0"); what is no number is null.
std::string PrintJson(const boost::json::value& value);

// A JSON array of whole numbers that fit 32 bits. InvalidArgument says what is wrong; `name` is for errors.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view json, std::string_view name);

}  // namespace palimpsest
