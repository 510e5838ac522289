// The queries of some tokens of one session, kept while their rows run: the observers of a compression.
//
// Kept   : before rotation, float32, (layers, count, heads * D), with the positions of their rows.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.h"

namespace palimpsest {

class QueryCapture {
 public:
  // From now on: `count` tokens from index `first` on, in a numbering of the caller's.
  void Begin(int64_t layers, int64_t columns, int64_t first, int64_t count);
  // One layer's rows of a step, the first of them token `first_token`; those that are wanted are kept.
  void Take(int64_t layer, int64_t first_token, std::span<const int64_t> positions, Rows<const float> q);

  int64_t first() const { return first_; }
  int64_t count() const { return count_; }
  bool complete() const { return taken_ == count_; }  // the last layer has been seen of all
  std::span<const int64_t> positions() const { return positions_; }
  // (count, columns) of one layer, from column `column` on.
  Rows<const float> Queries(int64_t layer, int64_t column, int64_t columns) const {
    return {queries_.data() + layer * count_ * columns_ + column, count_, columns, columns_};
  }

 private:
  int64_t layers_ = 0, columns_ = 0, first_ = 0, count_ = 0, taken_ = 0;
  std::vector<int64_t> positions_;
  AlignedBuffer<float> queries_;
};

}  // namespace palimpsest
