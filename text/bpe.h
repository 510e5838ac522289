// Byte-pair merging: a word's bytes, joined pair by pair in the order in which training joined them.
//
// The pair with the best rank is joined first, the leftmost of equals, one at a time, until none is left.
// Threads: const methods from any thread.
// Source : Sennrich et al. 2016.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace palimpsest {

class Bpe {
 public:
  Bpe() { byte_ids_.fill(-1); }

  // The token that is `byte` alone. Bytes without one give no id and are never joined.
  void SetByte(uint8_t byte, int32_t id) { byte_ids_[byte] = id; }

  // `left` `right` may be joined to `result`; later calls have worse rank. A pair that is there keeps its
  // rank.
  void AddMerge(int32_t left, int32_t right, int32_t result);

  // Appends the ids of `word`. O(n log n) for n bytes. REQUIRES: n < 2^31.
  void Encode(std::string_view word, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t result;
  };
  static constexpr uint32_t kNoMerge = UINT32_MAX;  // rank of a pair that is not joined

  Merge Find(int32_t left, int32_t right) const;
  void EncodeShort(std::string_view word, std::vector<int32_t>* ids) const;
  void EncodeLong(std::string_view word, std::vector<int32_t>* ids) const;

  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // left << 32 | right
  uint32_t next_rank_ = 0;
};

}  // namespace palimpsest
