#include "worker/answer_text.h"

#include <algorithm>
#include <utility>

namespace palimpsest {

AnswerText::AnswerText(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops)
    : detokenizer_(std::move(tokenizer)), stops_(std::move(stops)) {}

std::string AnswerText::Push(int32_t token) {
  if (stopped_) return "";
  held_ += detokenizer_.Push(token);
  return Release(/*at_end=*/false);
}

std::string AnswerText::Finish() {
  if (stopped_) return "";
  held_ += detokenizer_.Finish();
  return Release(/*at_end=*/true);
}

std::string AnswerText::Release(bool at_end) {
  // The stop string that is complete first: the same one, however the text is cut into tokens. Of two that
  // end together the longer.
  size_t first = std::string::npos, end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos || at + stop.size() > end) continue;
    first = at + stop.size() < end ? at : std::min(first, at);
    end = at + stop.size();
  }
  if (first != std::string::npos) {
    stopped_ = true;
    held_.resize(first);
    return std::exchange(held_, "");
  }
  size_t keep = 0;  // the longest end of held_ that begins some stop string
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep && !at_end; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return text;
}

}  // namespace palimpsest
