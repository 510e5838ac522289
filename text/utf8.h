// UTF-8 one character at a time, strict: no surrogates, no overlong forms, nothing above U+10FFFF.
//
// Threads: any thread.
// Source : The Unicode Standard, table 3-7 (well-formed byte sequences) and section 3.9 (maximal subparts).
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace palimpsest {

struct Utf8Step {
  enum class Kind {
    kCharacter,   // `bytes` bytes are one character
    kIncomplete,  // all that is left, `bytes` bytes, begins a character that further bytes could finish
    kInvalid,     // the first `bytes` bytes can never be part of a character: one U+FFFD stands for them
  };
  Kind kind;
  int bytes;  // 1..4
};

// What `text` begins with. REQUIRES: not empty.
Utf8Step NextUtf8(std::string_view text);

// InvalidArgument with the offset of the first byte that is not UTF-8.
absl::Status CheckUtf8(std::string_view text);

}  // namespace palimpsest
