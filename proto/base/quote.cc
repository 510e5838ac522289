#include "proto/base/quote.h"

#include <fmt/format.h>

#include <cstdint>

namespace palimpsest {
namespace {

// Bytes of the UTF-8 character at the head of `text`; 0 if there is none, or if it is a control character
// (C0, DEL, C1).
size_t PrintableLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto continues = [&](size_t count) {
    if (text.size() <= count) return false;
    for (size_t i = 1; i <= count; ++i) {
      if ((byte(i) & 0xC0) != 0x80) return false;
    }
    return true;
  };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7F ? 1 : 0;
  if (lead >= 0xC2 && lead < 0xE0) return continues(1) && !(lead == 0xC2 && byte(1) < 0xA0) ? 2 : 0;
  if (lead >= 0xE0 && lead < 0xF0) {
    const bool overlong = lead == 0xE0 && text.size() > 1 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && text.size() > 1 && byte(1) >= 0xA0;
    return continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (lead >= 0xF0 && lead < 0xF5) {
    const bool overlong = lead == 0xF0 && text.size() > 1 && byte(1) < 0x90;
    const bool beyond = lead == 0xF4 && text.size() > 1 && byte(1) >= 0x90;
    return continues(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string OneLine(std::string_view text, size_t bytes_max) {
  std::string line;
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = PrintableLength(text.substr(at));
    if (at + (length == 0 ? 1 : length) > bytes_max) return line + "...";
    if (length == 0) {
      line += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[at]));
    } else if (text[at] == '\\') {
      line += "\\\\";
    } else {
      line += text.substr(at, length);
    }
    at += length == 0 ? 1 : length;
  }
  return line;
}

bool IsPlainText(std::string_view text) {
  while (!text.empty()) {
    const size_t length = PrintableLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string Quoted(std::string_view text, size_t bytes_max) {
  return fmt::format("'{}'", OneLine(text, bytes_max));
}

}  // namespace palimpsest
