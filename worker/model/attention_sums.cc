#include "worker/model/attention_sums.h"

#include <algorithm>

#include "kernels/ops.h"

namespace palimpsest {
namespace {

void Widen(int64_t heads, int64_t from, int64_t to, std::vector<float>* rows) {
  std::vector<float> wide(static_cast<size_t>(heads * to), 0.0f);
  for (int64_t h = 0; h < heads; ++h) {
    std::copy_n(rows->begin() + h * from, from, wide.begin() + h * to);
  }
  *rows = std::move(wide);
}

}  // namespace

void AttentionSums::Begin(int64_t layers, int64_t heads, int64_t first, int64_t tiles, bool squares) {
  heads_ = heads;
  first_ = first;
  squares_ = squares;
  layers_.resize(static_cast<size_t>(layers));
  for (Layer& layer : layers_) {
    layer.stride = tiles * kTileSlots;
    layer.sums.assign(static_cast<size_t>(heads * layer.stride), 0.0f);
    layer.squares.assign(squares ? static_cast<size_t>(heads * layer.stride) : 0, 0.0f);
  }
}

void AttentionSums::Reserve(int64_t layer, int64_t tiles) {
  Layer& at = layers_[static_cast<size_t>(layer)];
  if (tiles * kTileSlots <= at.stride) return;
  const int64_t stride = std::max(tiles, at.stride / kTileSlots * 3 / 2) * kTileSlots;
  Widen(heads_, at.stride, stride, &at.sums);
  if (squares_) Widen(heads_, at.stride, stride, &at.squares);
  at.stride = stride;
}

}  // namespace palimpsest
