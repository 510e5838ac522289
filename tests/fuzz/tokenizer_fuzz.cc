// Byte-level BPE over fuzzed texts, ids and vocabularies.
//
// Input: one byte chooses the split (low 2 bits) and what is fuzzed (bits 2-3: a text, ids, a vocabulary);
// the rest is that. What must hold: a text that is UTF-8 comes back, ids stream as their bytes with U+FFFD
// for what is no UTF-8, and a vocabulary gives a tokenizer or an error.
#include <cstddef>
#include <cstdint>

#include "proto/base/status.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

namespace palimpsest {
namespace {

constexpr const char* kSplits[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
using Special = Tokenizer::Special;

// All 256 bytes, some merges that compete, some special tokens that begin alike.
TokenizerData BuiltInData(const char* split) {
  TokenizerData data;
  data.pre = split;
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.push_back(AlphabetOfBytes(std::string(1, static_cast<char>(byte))));
  }
  constexpr std::pair<const char*, const char*> kMerges[] = {
      {"a", "b"}, {"b", "a"},       {"ab", "ab"},         {"a", "a"},  {"aa", "aa"},
      {" ", "a"}, {" ", " "},       {"  ", "  "},         {" ", "ab"}, {"\n", "\n"},
      {"'", "s"}, {"\xe4", "\xbd"}, {"\xe4\xbd", "\xa0"}, {"1", "2"}};
  for (const auto& [left, right] : kMerges) {
    data.merges.push_back(AlphabetOfBytes(left) + " " + AlphabetOfBytes(right));
    data.tokens.push_back(AlphabetOfBytes(std::string(left) + right));
  }
  data.types.assign(data.tokens.size(), 1);
  for (const auto& [text, type] : {std::pair("<e>", 3), {"<e>a", 4}, {"<e", 3}, {"<|im_end|>", 3}}) {
    data.tokens.push_back(text);
    data.types.push_back(type);
  }
  return data;
}

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
  const bool valid = CheckUtf8(text).ok();
  for (const Special special : {Special::kParse, Special::kAsText}) {
    const auto ids = tokenizer.Encode(text, special);
    PALIMPSEST_CHECK(ids.ok() == valid);
    if (!valid) continue;
    PALIMPSEST_CHECK(tokenizer.Decode(*ids, true) == text);
    if (special == Special::kParse) continue;
    for (int32_t id : *ids) PALIMPSEST_CHECK(!tokenizer.IsSpecial(id));
  }
}

// U+FFFD for each part that is no UTF-8; what Detokenizer must give whatever the cuts.
std::string Repaired(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const Utf8Step step = NextUtf8(bytes);
    text += step.kind == Utf8Step::Kind::kCharacter ? bytes.substr(0, step.bytes) : "\xef\xbf\xbd";
    bytes.remove_prefix(step.bytes);
  }
  return text;
}

void CheckIds(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view input) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < input.size();
       ++i) {  // bytes below 0xf8 are themselves, the others and their next any id
    const auto byte = static_cast<uint8_t>(input[i]);
    const bool wide = byte >= 0xf8 && i + 1 < input.size();
    ids.push_back(wide ? (byte - 0xf9) * 256 + static_cast<uint8_t>(input[++i]) : byte);
  }
  Detokenizer detokenizer(tokenizer);
  std::string streamed;
  for (int32_t id : ids) {
    const std::string part = detokenizer.Push(id);
    PALIMPSEST_CHECK(CheckUtf8(part).ok());
    streamed += part;
  }
  streamed += detokenizer.Finish();
  PALIMPSEST_CHECK(streamed == Repaired(tokenizer->Decode(ids, false)));
}

// Lines "t<type>TEXT" are tokens, "m..." merges, "b", "s", "e" and a character bos, eos and end tokens; "="
// ends them and the rest is a text.
void CheckVocabulary(const char* split, std::string_view input) {
  TokenizerData data;
  data.pre = split;
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    if (line == "=") break;
    if (line.size() < 2) continue;
    const int32_t id = line[1] - '0';
    switch (line[0]) {
      case 't':
        data.tokens.emplace_back(line.substr(2));
        data.types.push_back(id);
        break;
      case 'm':
        data.merges.emplace_back(line.substr(1));
        break;
      case 'b':
        data.bos = id;
        break;
      case 's':
        data.eos = id;
        break;
      case 'e':
        data.end_tokens.push_back(id);
        break;
    }
  }
  const auto tokenizer = Tokenizer::Create(data);
  if (!tokenizer.ok()) return;
  const auto ids = (*tokenizer)->Encode(input, Special::kParse);
  PALIMPSEST_CHECK(ids.ok() == CheckUtf8(input).ok());
  if (!ids.ok()) return;
  PALIMPSEST_CHECK((*tokenizer)->Decode(*ids, true).size() <= input.size(),
                   "bytes without a token are left out");
  for (int32_t id = -1; id <= static_cast<int32_t>(data.tokens.size()); ++id) {
    PALIMPSEST_CHECK((*tokenizer)->TokenText(id) == (*tokenizer)->Decode(std::span(&id, 1), true));
    if ((*tokenizer)->IsEnd(id)) PALIMPSEST_CHECK(id >= 0 && id < (*tokenizer)->vocabulary_size());
  }
}

}  // namespace
}  // namespace palimpsest

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace palimpsest;
  static const auto* const tokenizers = [] {
    auto* all = new std::vector<std::shared_ptr<const Tokenizer>>;
    for (const char* split : kSplits) all->push_back(Tokenizer::Create(BuiltInData(split)).value());
    return all;
  }();
  if (size == 0) return 0;
  const int split = data[0] & 3;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] >> 2 & 3) {
    case 0:
      CheckText(*(*tokenizers)[split], rest);
      break;
    case 1:
      CheckIds((*tokenizers)[split], rest);
      break;
    default:
      CheckVocabulary(kSplits[split], rest);
      break;
  }
  return 0;
}
