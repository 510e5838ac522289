// How much a token's value can move the output of its layer: the L1 norm of W_o v, mean over the query heads
// that share the KV head, each with its own columns of W_o.
//
// Numbers: of products in the weights' format, as the layer itself computes them; sums in float32. A row's
// bits
//          do not depend on the rows beside it.
// Memory : rows x hidden of a chunk, and one head's columns of W_o.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"

namespace palimpsest {

class OutputNorms {
 public:
  OutputNorms(Backend* backend, int64_t head_size, int64_t group)
      : backend_(backend), head_size_(head_size), group_(group) {}

  // values (norms.size(), D) of KV head `kv_head`; `output` (hidden, heads * D).
  void Of(const PackedWeights& output, int64_t kv_head, const float* values, std::span<float> norms);

 private:
  const PackedWeights& ColumnsOf(const PackedWeights& output, int64_t head);
  void Add(const PackedWeights& weights, int64_t column, const float* values, std::span<float> norms);

  Backend* const backend_;
  const int64_t head_size_, group_;
  PackedWeights columns_;     // of one query head
  AlignedBuffer<Bf16> rows_;  // (chunk, inputs of the weights)
  AlignedBuffer<float> out_;  // (chunk, hidden)
};

}  // namespace palimpsest
