#include "worker/model/query_capture.h"

#include <algorithm>

namespace palimpsest {

void QueryCapture::Begin(int64_t layers, int64_t columns, int64_t first, int64_t count) {
  layers_ = layers;
  columns_ = columns;
  first_ = first;
  count_ = count;
  taken_ = 0;
  positions_.assign(static_cast<size_t>(count), 0);
  queries_.Reserve(layers * count * columns);
}

void QueryCapture::Take(int64_t layer, int64_t first_token, std::span<const int64_t> positions,
                        Rows<const float> q) {
  const int64_t begin = std::max(first_, first_token),
                end = std::min(first_ + count_, first_token + static_cast<int64_t>(positions.size()));
  for (int64_t token = begin; token < end; ++token) {
    const int64_t row = token - first_token, kept = token - first_;
    std::copy_n(q.row(row), columns_, queries_.data() + (layer * count_ + kept) * columns_);
    positions_[static_cast<size_t>(kept)] = positions[static_cast<size_t>(row)];
  }
  if (layer + 1 == layers_) taken_ += std::max<int64_t>(0, end - begin);
}

}  // namespace palimpsest
