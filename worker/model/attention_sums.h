// How much all queries of some stretch of one session attended to each token, summed while its rows run: for
// policies that weigh tokens by every query, where keeping the queries would take more than the keys.
//
// Kept   : float32, by layer (heads, stride), a column for each slot of the layer's tiles in their order, as
//          attention adds them up (ColumnSums in kernels/ops.h): a token of a layer takes 8 bytes for each
//          query head, and 16 with squares.
// Memory : grows by halves with the tiles, not with each row.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace palimpsest {

class AttentionSums {
 public:
  // Nothing has been seen from now on; rows begin at token `first`, and some `tiles` tiles are expected.
  void Begin(int64_t layers, int64_t heads, int64_t first, int64_t tiles, bool squares);
  bool begun() const { return !layers_.empty(); }
  void Clear() { layers_.clear(); }
  int64_t first() const { return first_; }

  // Where a step adds to, with a column for each slot of so many tiles of the layer.
  ColumnSums Of(int64_t layer, int64_t tiles);
  // All layers of a step have taken in so many rows.
  void Joined(int64_t rows) { rows_ += rows; }

  // out = the columns of one query head from slot 0 on, or of squared attention.
  void Read(int64_t layer, int64_t head, bool squares, std::span<float> out) const;
  // The same of these columns.
  void ReadAt(int64_t layer, int64_t head, bool squares, std::span<const int32_t> columns, float* out) const;

  // These columns begin with `values`, before any row.
  void SetAt(int64_t layer, int64_t head, bool squares, std::span<const int32_t> columns,
             const float* values);
  // Column `to` becomes what `from` was, which is nothing from now on.
  void Move(int64_t layer, int64_t head, int64_t from, int64_t to);
  // The next row is the first of all: what fewer than kSumTokens rows said before it is forgotten then.
  void Restart() { rows_ = 0; }

 private:
  struct Layer {
    int64_t stride = 0;
    std::vector<float> sums, open, squares, open_squares;  // (heads, stride); the last two maybe empty
  };
  // What a column is the sum of.
  std::pair<const std::vector<float>*, const std::vector<float>*> PartsOf(int64_t layer, bool squares) const {
    const Layer& at = layers_[static_cast<size_t>(layer)];
    return squares ? std::pair(&at.squares, &at.open_squares) : std::pair(&at.sums, &at.open);
  }
  int64_t heads_ = 0, first_ = 0, rows_ = 0;
  bool squares_ = false;
  std::vector<Layer> layers_;
};

}  // namespace palimpsest
