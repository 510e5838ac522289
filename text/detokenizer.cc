// Detokenizer of text/tokenizer.h.
#include <span>
#include <utility>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

}  // namespace

std::string Detokenizer::Push(int32_t id) {
  pending_ += tokenizer_->Decode(std::span(&id, 1), /*with_special=*/false);
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = NextUtf8(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    text += step.kind == Utf8Step::Kind::kCharacter ? rest.substr(0, step.bytes) : kReplacement;
    rest.remove_prefix(step.bytes);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

std::string Detokenizer::Finish() {
  // What waits is the beginning of one character (else Push had seen it), so one U+FFFD stands for all of it.
  if (std::exchange(pending_, {}).empty()) return "";
  return std::string(kReplacement);
}

}  // namespace palimpsest
