// Finds special tokens ("<|im_end|>") in raw text: the leftmost, and of those that begin there the longest.
//
// Threads: const methods from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace palimpsest {

class SpecialTokens {
 public:
  struct Match {
    size_t begin;   // text.size() if there is none
    size_t length;  // bytes
    int32_t id;     // -1 if there is none
  };

  // `text` is not empty and outlives this object.
  void Add(std::string_view text, int32_t id);
  // The first at or behind `from`.
  Match Find(std::string_view text, size_t from) const;

 private:
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  std::array<std::vector<size_t>, 256> lengths_;  // by first byte, longest first, each once
};

}  // namespace palimpsest
