#include "text/special_tokens.h"

#include <algorithm>
#include <functional>

namespace palimpsest {

void SpecialTokens::Add(std::string_view text, int32_t id) {
  ids_.emplace(text, id);
  std::vector<size_t>& lengths = lengths_[static_cast<uint8_t>(text[0])];
  const auto at = std::lower_bound(lengths.begin(), lengths.end(), text.size(), std::greater<>());
  if (at == lengths.end() || *at != text.size()) lengths.insert(at, text.size());
}

SpecialTokens::Match SpecialTokens::Find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    for (size_t length : lengths_[static_cast<uint8_t>(text[begin])]) {
      if (length > text.size() - begin) continue;
      const auto found = ids_.find(text.substr(begin, length));
      if (found != ids_.end()) return {begin, length, found->second};
    }
  }
  return {text.size(), 0, -1};
}

}  // namespace palimpsest
