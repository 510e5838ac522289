// Cuts text into words, within which byte pairs are merged; how is fixed by the model (`tokenizer.ggml.pre`).
//
// Known names: smollm, gpt-2, llama-bpe, qwen2. Patterns are ours and fixed, never from a file.
// Errors : Unimplemented for another name. ResourceExhausted if a text needs more matching steps than is
//          proportional.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace palimpsest {

class PreTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<const PreTokenizer>> Create(std::string_view name);
  virtual ~PreTokenizer() = default;

  // Fills `ends` with the offset behind each word of `text`; words are not empty and together are all of it.
  // REQUIRES: `text` is UTF-8 and shorter than 2^32 bytes.
  virtual absl::Status Split(std::string_view text, std::vector<uint32_t>* ends) const = 0;

  // The model takes a word that is in the vocabulary as it is and merges only the others (llama-bpe).
  virtual bool whole_words_first() const = 0;
};

}  // namespace palimpsest
