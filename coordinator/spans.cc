#include "coordinator/spans.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// How good a place is to end a span, worst first.
enum class End { kInsideCharacter, kCharacter, kWord, kSentence, kLine, kParagraph };

constexpr size_t kBytesBefore = 8;  // that tell how the text before a place ends

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool EndsBlankLine(std::string_view text) {
  if (!text.ends_with('\n')) return false;
  text.remove_suffix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) {
    text.remove_suffix(1);
  }
  return text.ends_with('\n');
}

bool EndsSentence(std::string_view text, char next) {
  constexpr std::array<std::string_view, 3> kWide = {"\u3002", "\uff01", "\uff1f"};  // no space follows these
  for (const std::string_view mark : kWide) {
    if (text.ends_with(mark)) return true;
  }
  if (!IsSpace(next)) return false;
  constexpr std::array<std::string_view, 6> kClosers = {"\"", "'", ")", "]", "\u201d", "\u2019"};
  for (const std::string_view closer : kClosers) {
    if (!text.ends_with(closer)) continue;
    text.remove_suffix(closer.size());
    break;
  }
  return text.ends_with('.') || text.ends_with('!') || text.ends_with('?');
}

// Of the place before tokens[at]; 0 < at < tokens.size().
End EndAt(std::span<const int32_t> tokens, size_t at, const Tokenizer& tokenizer) {
  std::string before;
  for (size_t i = at; i-- > 0 && before.size() < kBytesBefore;) {
    before.insert(0, tokenizer.TokenText(tokens[i]));
  }
  const std::string_view after = tokenizer.TokenText(tokens[at]);
  const char next = after.empty() ? '\0' : after.front();
  if ((static_cast<unsigned char>(next) & 0xc0U) == 0x80U) return End::kInsideCharacter;
  if (next != '\n' && next != '\r') {  // a run of line ends is not torn
    if (EndsBlankLine(before)) return End::kParagraph;
    if (before.ends_with('\n')) return End::kLine;
  }
  if (EndsSentence(before, next)) return End::kSentence;
  return IsSpace(next) ? End::kWord : End::kCharacter;
}

// The last of the best places in (from, to].
size_t BestEnd(std::span<const int32_t> tokens, size_t from, size_t to, const Tokenizer& tokenizer) {
  size_t best = to;
  End kind = EndAt(tokens, to, tokenizer);
  for (size_t at = to - 1; at > from && kind != End::kParagraph; --at) {
    const End here = EndAt(tokens, at, tokenizer);
    if (here <= kind) continue;
    kind = here;
    best = at;
  }
  return best;
}

}  // namespace

std::vector<size_t> CutSpans(std::span<const int32_t> tokens, int64_t most, const Tokenizer& tokenizer) {
  PALIMPSEST_CHECK(most >= 1, "spans of {} tokens", most);
  const auto longest = static_cast<size_t>(most), tail = static_cast<size_t>(kSpanTail);
  std::vector<size_t> ends;
  size_t begin = 0;
  while (tokens.size() - begin > longest) {
    const size_t left = tokens.size() - begin;
    size_t length = longest;  // at most, of this span
    // The tail takes tokens from the span before it, but never more than half.
    if (left < longest + tail) length = std::min(longest, left - std::min(tail, left / 2));
    const size_t search = std::min(length - 1, longest / 8);
    const size_t end = BestEnd(tokens, begin + length - search - 1, begin + length, tokenizer);
    ends.push_back(end);
    begin = end;
  }
  if (begin < tokens.size()) ends.push_back(tokens.size());
  return ends;
}

}  // namespace palimpsest
