#include "coordinator/http/openai_text.h"

#include <algorithm>

#include "text/utf8.h"

namespace palimpsest::http {

std::string ValidText(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = NextUtf8(bytes);
    const auto length = static_cast<size_t>(step.bytes);
    text += step.kind == Utf8Step::Kind::kCharacter ? bytes.substr(0, length) : "\uFFFD";
    bytes.remove_prefix(length);
  }
  return text;
}

int64_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace palimpsest::http
