// Rotary position embedding of adjacent pairs (2i, 2i+1), the convention of GGUF `llama` models.
//
// A row of the table holds, for one position, 2 * head_size floats: first cos duplicated per pair (c0 c0 c1
// c1 ...), then sin with the sign of the swap (-s0 s0 -s1 s1 ...), so that rotated = x * cos + swap(x) * sin.
// Angles are computed in double.
//
// Threads: Row from any thread.
// Source : Su et al. 2021 (RoFormer), section 3.4.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace palimpsest {

class RopeTable {
 public:
  // frequency(i) = theta^(-2i/rope_size) / factors[i]; dimensions from rope_size on are not rotated.
  // Positions below `cached` come from memory (512 bytes each at head size 64), others are computed at each
  // call.
  RopeTable(int64_t head_size, int64_t rope_size, double theta, std::vector<double> factors, int64_t cached);

  int64_t row_floats() const { return 2 * head_size_; }
  // The row of `position` >= 0: a view of the table, or of `scratch` (row_floats() floats) filled now.
  const float* Row(int64_t position, float* scratch) const {
    if (position < cached_) return table_.data() + position * row_floats();
    Fill(position, scratch);
    return scratch;
  }

 private:
  void Fill(int64_t position, float* row) const;
  int64_t head_size_;
  std::vector<double> frequency_;  // one per pair; 0 where nothing rotates
  int64_t cached_;
  AlignedBuffer<float> table_;  // (cached, 2, head_size)
};

}  // namespace palimpsest
