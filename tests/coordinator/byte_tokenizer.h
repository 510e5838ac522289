// A tokenizer whose ids are bytes, with two special tokens: prompts of tests can be counted by eye.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "proto/base/status.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

namespace palimpsest::testing {

inline constexpr int32_t kFakeStart = 256, kFakeEnd = 257;  // ids of the special tokens; other ids are bytes

inline std::shared_ptr<const Tokenizer> ByteTokenizer() {
  TokenizerData data;
  data.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.push_back(AlphabetOfBytes(std::string(1, static_cast<char>(byte))));
  }
  data.types.assign(256, 1);
  for (const char* special : {"<start>", "<end>"}) {
    data.tokens.push_back(special);
    data.types.push_back(3);
  }
  data.eos = kFakeEnd;
  data.end_tokens = {kFakeEnd};
  auto tokenizer = Tokenizer::Create(std::move(data));
  PALIMPSEST_CHECK(tokenizer.ok(), "{}", Message(tokenizer.status()));
  return *tokenizer;
}

}  // namespace palimpsest::testing
