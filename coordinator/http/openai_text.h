// Bytes of tokens as text that JSON can carry.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace palimpsest::http {

// `bytes` with U+FFFD for what is not UTF-8.
std::string ValidText(std::string_view bytes);
// Of valid UTF-8.
int64_t CountCharacters(std::string_view text);

}  // namespace palimpsest::http
