// Numbers as users write and read them: sizes in bytes, counts of tokens, plain integers and reals.
//
// Sizes take KiB, MiB, GiB, TiB; counts take K and M; all are 1024-based ("4K" tokens are 4,096). The text
// must match to its last character: no sign, no space, no fraction ("1536MiB", not "1.5GiB").
//
// Errors: InvalidArgument that quotes the text and says what is accepted; the caller puts the option's name
// before it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest {

absl::StatusOr<int64_t> ParseBytes(std::string_view text);  // >= 0
absl::StatusOr<int64_t> ParseCount(std::string_view text);  // >= 0
absl::StatusOr<int64_t> ParseInteger(std::string_view text);
absl::StatusOr<double> ParseReal(std::string_view text);  // finite

// Exact, in the largest unit that divides: "1536MiB", "1000". Parse gives the same number back.
std::string FormatBytes(int64_t bytes);
std::string FormatCount(int64_t count);

// For people, three digits: "1.46 GiB", "12.0 KiB", "17 B".
std::string ApproximateBytes(double bytes);

}  // namespace palimpsest
