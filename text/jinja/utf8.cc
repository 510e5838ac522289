#include "text/jinja/utf8.h"

#include <algorithm>
#include <iterator>

#include "proto/base/status.h"

namespace palimpsest::jinja {
namespace {

struct CaseRange {
  uint32_t first, last;
  int32_t stride, delta;
};
#include "text/jinja/case_table.inc"

template <size_t N>
char32_t MapCase(const CaseRange (&table)[N], char32_t c) {
  auto range = std::upper_bound(std::begin(table), std::end(table), static_cast<uint32_t>(c),
                                [](uint32_t value, const CaseRange& r) { return value < r.first; });
  // Ranges of stride 2 may interleave with single characters, so look back over a few.
  for (int back = 0; back < 3 && range != std::begin(table); ++back) {
    --range;
    if (c <= range->last && (c - range->first) % range->stride == 0) return c + range->delta;
  }
  return c;
}

char32_t Upper(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return MapCase(kUpper, c);
}
char32_t Lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return MapCase(kLower, c);
}

absl::StatusOr<std::string> Map(std::string_view text, char32_t (*mapping)(char32_t)) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = NextCodePoint(text, &i);
    if (c >= 0x80 &&
        std::binary_search(std::begin(kSpecialCase), std::end(kSpecialCase), static_cast<uint32_t>(c))) {
      return InvalidArgument("changing the case of U+{:04X} is not supported", static_cast<uint32_t>(c));
    }
    AppendCodePoint(mapping(c), &out);
  }
  return out;
}

}  // namespace

char32_t NextCodePoint(std::string_view text, size_t* position) {
  const auto lead = static_cast<unsigned char>(text[*position]);
  const int length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t c = length == 1 ? lead : lead & (0x7F >> length);
  for (int k = 1; k < length && *position + k < text.size(); ++k) {
    c = c << 6 | (static_cast<unsigned char>(text[*position + k]) & 0x3F);
  }
  *position = std::min(*position + length, text.size());
  return c;
}

void AppendCodePoint(char32_t c, std::string* out) {
  auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

int64_t CountCodePoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

size_t OffsetOfCodePoint(std::string_view text, int64_t index) {
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) != 0x80 && index-- == 0) return i;
  }
  return text.size();
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string_view TrimLeft(std::string_view text) {
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); begin = i) {
    if (!IsSpace(NextCodePoint(text, &i))) break;
  }
  return text.substr(begin);
}

std::string_view TrimRight(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && (text[start] & 0xC0) == 0x80) --start;
    size_t i = start;
    if (!IsSpace(NextCodePoint(text, &i))) break;
    end = start;
  }
  return text.substr(0, end);
}

absl::StatusOr<std::string> ToUpper(std::string_view text) { return Map(text, Upper); }
absl::StatusOr<std::string> ToLower(std::string_view text) { return Map(text, Lower); }
bool IsUpper(char32_t c) { return Lower(c) != c; }
bool IsLower(char32_t c) { return Upper(c) != c; }

}  // namespace palimpsest::jinja
