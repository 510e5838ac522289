#include "worker/compression/output_norms.h"

#include <algorithm>
#include <cmath>

namespace palimpsest {
namespace {

constexpr int64_t kChunkRows = 256;  // x 576 outputs is what a cache holds

// Columns [first, first + count) of each panel, which lie together: `each` elements for one input and output.
template <typename T>
void CopyColumns(const AlignedBuffer<T>& from, int64_t panels, int64_t inputs, int64_t first, int64_t count,
                 AlignedBuffer<T>* to) {
  to->Reserve(panels * count * kPanelColumns);
  for (int64_t panel = 0; panel < panels; ++panel) {
    std::copy_n(from.data() + (panel * inputs + first) * kPanelColumns, count * kPanelColumns,
                to->data() + panel * count * kPanelColumns);
  }
}

}  // namespace

// Inputs of one head alone; int8 weights are scaled by groups of 64 inputs, which must be the head's own.
const PackedWeights& OutputNorms::ColumnsOf(const PackedWeights& output, int64_t head) {
  constexpr int64_t kGroup = 64;
  const bool int8 = output.format == WeightFormat::kInt8;
  if (int8 && head_size_ % kGroup != 0) return output;
  const int64_t first = head * head_size_;
  columns_.format = output.format;
  columns_.n = output.n;
  columns_.k = head_size_;
  columns_.n_padded = output.n_padded;
  if (!int8) {
    CopyColumns(output.bf16, output.panels(), output.k, first, head_size_, &columns_.bf16);
    return columns_;
  }
  CopyColumns(output.int8, output.panels(), output.k, first, head_size_, &columns_.int8);
  const int64_t groups = output.k / kGroup;
  CopyColumns(output.scales, output.panels(), groups, first / kGroup, head_size_ / kGroup, &columns_.scales);
  CopyColumns(output.sums, output.panels(), groups, first / kGroup, head_size_ / kGroup, &columns_.sums);
  return columns_;
}

void OutputNorms::Add(const PackedWeights& weights, int64_t column, const float* values,
                      std::span<float> norms) {
  const int64_t inputs = weights.k;
  rows_.Reserve(kChunkRows * inputs);
  out_.Reserve(kChunkRows * weights.n);
  for (int64_t first = 0; first < std::ssize(norms); first += kChunkRows) {
    const int64_t rows = std::min(kChunkRows, std::ssize(norms) - first);
    std::fill_n(rows_.data(), rows * inputs, Bf16{0});
    for (int64_t r = 0; r < rows; ++r) {
      const float* const value = values + (first + r) * head_size_;
      std::transform(value, value + head_size_, rows_.data() + r * inputs + column, FloatToBf16);
    }
    backend_->MatMul({.a = {rows_.data(), rows, inputs, inputs},
                      .weights = &weights,
                      .output = MatMulOutput::kStore,
                      .out = {out_.data(), rows, weights.n, weights.n},
                      .gated = {}});
    backend_->pool().ParallelFor(rows, [&](int64_t r, int) {
      const float* const row = out_.data() + r * weights.n;
      float sums[16] = {};  // a plain sum would be one chain of additions
      int64_t i = 0;
      for (; i + 16 <= weights.n; i += 16) {
        for (int lane = 0; lane < 16; ++lane) sums[lane] += std::abs(row[i + lane]);
      }
      for (; i < weights.n; ++i) sums[0] += std::abs(row[i]);
      float sum = 0;
      for (const float lane : sums) sum += lane;
      norms[static_cast<size_t>(first + r)] += sum;
    });
  }
}

void OutputNorms::Of(const PackedWeights& output, int64_t kv_head, const float* values,
                     std::span<float> norms) {
  std::fill(norms.begin(), norms.end(), 0.0f);
  for (int64_t g = 0; g < group_; ++g) {
    const int64_t head = kv_head * group_ + g;
    const PackedWeights& weights = ColumnsOf(output, head);
    Add(weights, weights.k == head_size_ ? 0 : head * head_size_, values, norms);
  }
  for (float& norm : norms) norm /= static_cast<float>(group_);
}

}  // namespace palimpsest
