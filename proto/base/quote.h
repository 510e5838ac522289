// Text that came from outside (a key, a path, a name), made fit for one line of an error or a log.
#pragma once

#include <string>
#include <string_view>

namespace palimpsest {

// `text` without anything that could break a line or fool a terminal: control characters and bytes that are
// no UTF-8 become \xNN, a backslash \\. Past `bytes_max` bytes of input it ends in "...".
std::string OneLine(std::string_view text, size_t bytes_max = 256);

// Whether OneLine would have nothing to escape but backslashes: UTF-8 without control characters.
bool IsPlainText(std::string_view text);

// OneLine between single quotes, for errors: 'device.arena_byte'.
std::string Quoted(std::string_view text, size_t bytes_max = 64);

}  // namespace palimpsest
