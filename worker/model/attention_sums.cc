#include "worker/model/attention_sums.h"

#include <algorithm>

#include "proto/base/status.h"

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
  rows_ = 0;
  squares_ = squares;
  layers_.assign(static_cast<size_t>(layers), {});
  for (int64_t layer = 0; layer < layers; ++layer) Of(layer, tiles);
}

ColumnSums AttentionSums::Of(int64_t layer, int64_t tiles) {
  Layer& at = layers_[static_cast<size_t>(layer)];
  if (tiles * kTileSlots > at.stride) {
    const int64_t stride = std::max(tiles, at.stride / kTileSlots * 3 / 2) * kTileSlots;
    for (std::vector<float>* const rows : {&at.sums, &at.open}) Widen(heads_, at.stride, stride, rows);
    if (squares_) {
      for (std::vector<float>* const rows : {&at.squares, &at.open_squares})
        Widen(heads_, at.stride, stride, rows);
    }
    at.stride = stride;
  }
  return {.sums = at.sums.data(),
          .open = at.open.data(),
          .squares = squares_ ? at.squares.data() : nullptr,
          .open_squares = squares_ ? at.open_squares.data() : nullptr,
          .stride = at.stride,
          .rows = rows_};
}

void AttentionSums::Read(int64_t layer, int64_t head, bool squares, std::span<float> out) const {
  const int64_t stride = layers_[static_cast<size_t>(layer)].stride;
  PALIMPSEST_CHECK(static_cast<int64_t>(out.size()) <= stride, "{} columns of {}", out.size(), stride);
  const size_t first = static_cast<size_t>(head * stride);
  const auto [whole, open] = PartsOf(layer, squares);
  for (size_t i = 0; i < out.size(); ++i) out[i] = (*whole)[first + i] + (*open)[first + i];
}

void AttentionSums::ReadAt(int64_t layer, int64_t head, bool squares, std::span<const int32_t> columns,
                           float* out) const {
  const auto [whole, open] = PartsOf(layer, squares);
  const int64_t first = head * layers_[static_cast<size_t>(layer)].stride;
  for (size_t i = 0; i < columns.size(); ++i) {
    const size_t at = static_cast<size_t>(first + columns[i]);
    out[i] = (*whole)[at] + (*open)[at];
  }
}

void AttentionSums::SetAt(int64_t layer, int64_t head, bool squares, std::span<const int32_t> columns,
                          const float* values) {
  Layer& at = layers_[static_cast<size_t>(layer)];
  float* const row = (squares ? at.squares : at.sums).data() + head * at.stride;
  for (size_t i = 0; i < columns.size(); ++i) row[columns[i]] = values[i];
}

void AttentionSums::Move(int64_t layer, int64_t head, int64_t from, int64_t to) {
  Layer& at = layers_[static_cast<size_t>(layer)];
  const size_t first = static_cast<size_t>(head * at.stride);
  for (std::vector<float>* const rows : {&at.sums, &at.open, &at.squares, &at.open_squares}) {
    if (rows->empty()) continue;
    float* const row = rows->data() + first;
    row[to] = row[from];
    row[from] = 0;
  }
}

}  // namespace palimpsest
