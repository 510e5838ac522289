#include "text/utf8.h"

#include <cstdint>
#include <cstring>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// What may follow a lead byte: the length of the character and the range of its second byte (later
// ones: 80..BF).
struct Lead {
  int bytes;  // 0: no lead byte
  uint8_t second_min, second_max;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};  // continuation bytes; C0 and C1 would be overlong
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};  // below A0: overlong
  if (byte == 0xed) return {3, 0x80, 0x9f};  // above 9F: surrogates
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};  // below 90: overlong
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};  // above 8F: beyond U+10FFFF
  return {0, 0, 0};
}

bool IsAscii8(const char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

}  // namespace

Utf8Step NextUtf8(std::string_view text) {
  const Lead lead = LeadOf(static_cast<uint8_t>(text[0]));
  if (lead.bytes == 0) return {Utf8Step::Kind::kInvalid, 1};
  for (int i = 1; i < lead.bytes; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {Utf8Step::Kind::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t min = i == 1 ? lead.second_min : 0x80, max = i == 1 ? lead.second_max : 0xbf;
    if (byte < min || byte > max) return {Utf8Step::Kind::kInvalid, i};
  }
  return {Utf8Step::Kind::kCharacter, lead.bytes};
}

absl::Status CheckUtf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (at + 8 <= text.size() && IsAscii8(text.data() + at)) {
      at += 8;
      continue;
    }
    const Utf8Step step = NextUtf8(text.substr(at));
    switch (step.kind) {
      case Utf8Step::Kind::kCharacter:
        at += step.bytes;
        break;
      case Utf8Step::Kind::kIncomplete:
        return InvalidArgument(
            "text of {} bytes ends inside a UTF-8 character that begins at byte {}: send whole characters",
            text.size(), at);
      case Utf8Step::Kind::kInvalid:
        return InvalidArgument("text of {} bytes is not UTF-8 at byte {}: convert it to UTF-8", text.size(),
                               at);
    }
  }
  return absl::OkStatus();
}

}  // namespace palimpsest
