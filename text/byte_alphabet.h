// GPT-2's alphabet: each of the 256 bytes is written as one printable character, so that a vocabulary is
// plain text.
//
// The 188 bytes that print in Latin-1 stand for themselves; the other 68, in order, are U+0100, U+0101, ...
// (a space is U+0120, a newline U+010A). Source : Radford et al. 2019.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace palimpsest {

// The bytes that `token` writes; nullopt if it has a character outside of the alphabet or is not UTF-8.
std::optional<std::string> BytesOfAlphabet(std::string_view token);

// `bytes` written in the alphabet, as UTF-8.
std::string AlphabetOfBytes(std::string_view bytes);

}  // namespace palimpsest
