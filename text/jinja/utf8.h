// UTF-8 text as Python's str sees it: counted, cut and cased by code point.
//
// Input  : valid UTF-8 (FirstInvalidByte checks it once, at the door); positions are byte offsets unless said
// otherwise. Source : the Unicode Character Database through case_table.inc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest::jinja {

// The code point that begins at text[*position]; moves *position behind it.
char32_t NextCodePoint(std::string_view text, size_t* position);
void AppendCodePoint(char32_t c, std::string* out);

int64_t CountCodePoints(std::string_view text);
// Byte offset where code point `index` begins; text.size() if there are not so many.
size_t OffsetOfCodePoint(std::string_view text, int64_t index);

bool IsSpace(char32_t c);  // Python's str.isspace
std::string_view TrimLeft(std::string_view text);
std::string_view TrimRight(std::string_view text);

// Case mappings. InvalidArgument for characters that change length or depend on their neighbours (such as
// U+00DF).
absl::StatusOr<std::string> ToUpper(std::string_view text);
absl::StatusOr<std::string> ToLower(std::string_view text);
bool IsUpper(char32_t c);
bool IsLower(char32_t c);

}  // namespace palimpsest::jinja
