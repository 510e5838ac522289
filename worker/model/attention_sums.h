// How much all queries of some stretch of one session attended to each token, summed while its rows run: for
// policies that weigh tokens by every query, where keeping the queries would take more than the keys.
//
// Kept   : float32, by layer (heads, stride), a column for each slot of the layer's tiles in their order;
// also
//          of squared attention, if wanted. A token of a layer takes 4 or 8 bytes for each query head.
// Memory : grows by halves with the tiles, not with each row.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace palimpsest {

class AttentionSums {
 public:
  // Nothing has been seen from now on; rows begin at token `first`, and some `tiles` tiles are expected.
  void Begin(int64_t layers, int64_t heads, int64_t first, int64_t tiles, bool squares);
  // So that the layer's rows have a column for each slot of so many tiles; what is there stays.
  void Reserve(int64_t layer, int64_t tiles);

  int64_t first() const { return first_; }
  float* sums(int64_t layer) { return layers_[static_cast<size_t>(layer)].sums.data(); }
  const float* sums(int64_t layer) const { return layers_[static_cast<size_t>(layer)].sums.data(); }
  // Null: not wanted.
  float* squares(int64_t layer) {
    return squares_ ? layers_[static_cast<size_t>(layer)].squares.data() : nullptr;
  }
  const float* squares(int64_t layer) const {
    return squares_ ? layers_[static_cast<size_t>(layer)].squares.data() : nullptr;
  }
  int64_t stride(int64_t layer) const { return layers_[static_cast<size_t>(layer)].stride; }
  bool begun() const { return !layers_.empty(); }
  void Clear() { layers_.clear(); }

 private:
  struct Layer {
    int64_t stride = 0;
    std::vector<float> sums, squares;  // (heads, stride)
  };
  int64_t heads_ = 0, first_ = 0;
  bool squares_ = false;
  std::vector<Layer> layers_;
};

}  // namespace palimpsest
