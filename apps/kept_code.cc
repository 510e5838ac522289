#include "apps/kept_code.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace palimpsest {
namespace {

constexpr char kRuns = 0, kBits = 1, kOfCandidates = 2;

using Places = std::vector<int64_t>;

void AppendNumber(int64_t number, std::string* out) {
  auto rest = static_cast<uint64_t>(number);
  for (; rest >= 128; rest /= 128) *out += static_cast<char>(128 + rest % 128);
  *out += static_cast<char>(rest);
}

std::string Runs(char form, const Places& places) {
  std::string content;
  int64_t numbers = 0, next = 0;
  for (size_t i = 0; i < places.size();) {
    size_t end = i + 1;
    while (end < places.size() && places[end] == places[end - 1] + 1) ++end;
    AppendNumber(places[i] - next, &content);
    AppendNumber(static_cast<int64_t>(end - i), &content);
    next = places[end - 1] + 1;
    numbers += 2;
    i = end;
  }
  std::string code(1, static_cast<char>(kRuns | form));
  AppendNumber(numbers, &code);
  return code + content;
}

std::string Bits(char form, const Places& places) {
  const int64_t bytes = places.empty() ? 0 : places.back() / 8 + 1;
  std::string content(static_cast<size_t>(bytes), '\0');
  for (const int64_t place : places) {
    char& byte = content[static_cast<size_t>(place / 8)];
    byte = static_cast<char>(static_cast<unsigned char>(byte) | (1U << (place % 8)));
  }
  std::string code(1, static_cast<char>(kBits | form));
  AppendNumber(bytes, &code);
  return code + content;
}

std::string Shorter(std::string a, std::string b) {
  if (b.size() < a.size()) return b;
  return a;
}

std::string Shortest(char form, const Places& places) {
  return Shorter(Runs(form, places), Bits(form, places));
}

// Nothing if some token is no candidate.
std::optional<Places> PlacesOf(const std::vector<int32_t>& tokens, const std::vector<int32_t>& before,
                               int64_t read) {
  Places places;
  places.reserve(tokens.size());
  for (const int32_t token : tokens) {
    if (token >= read) {
      places.push_back(static_cast<int64_t>(before.size()) + token - read);
      continue;
    }
    const auto found = std::lower_bound(before.begin(), before.end(), token);
    if (found == before.end() || *found != token) return std::nullopt;
    places.push_back(found - before.begin());
  }
  return places;
}

}  // namespace

std::string KeptCoder::Encode(const Outcome::Kept& kept) {
  std::string code;
  for (size_t layer = 0; layer < kept.size(); ++layer) {
    for (size_t head = 0; head < kept[layer].size(); ++head) {
      const std::vector<int32_t>& tokens = kept[layer][head];
      std::string best = Shortest(0, Places(tokens.begin(), tokens.end()));
      if (!before_.empty()) {
        const auto places = PlacesOf(tokens, before_[layer][head], read_);
        if (places.has_value()) best = Shorter(std::move(best), Shortest(kOfCandidates, *places));
      }
      code += best;
    }
  }
  for (const auto& heads : kept) {
    for (const auto& tokens : heads) {
      if (!tokens.empty()) read_ = std::max<int64_t>(read_, tokens.back() + 1);
    }
  }
  before_ = kept;
  return code;
}

std::string Base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t there = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (j < there ? static_cast<uint8_t>(bytes[i + j]) : 0U);
    for (size_t j = 0; j < 4; ++j) text += j <= there ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

}  // namespace palimpsest
