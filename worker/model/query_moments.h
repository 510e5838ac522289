// Mean and covariance of the queries of a session's tokens, summed while their rows run: what a policy
// expects of queries to come.
//
// Kept   : before rotation, for each layer and query head D + D (D + 1) / 2 numbers in float64, whatever the
//          length: an 8B model's take 67 MB.
// Numbers: tokens are added one by one in their order, so that sums do not depend on how a prompt was cut.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.h"
#include "kernels/thread_pool.h"

namespace palimpsest {

class QueryMoments {
 public:
  // From now on: tokens from index `first` on, in a numbering of the caller's.
  void Begin(int64_t layers, int64_t heads, int64_t head_size, int64_t first);
  // One layer's rows of a step, the first of them token `first_token`.
  void Take(ThreadPool& pool, int64_t layer, int64_t first_token, Rows<const float> q);

  int64_t first() const { return first_; }
  int64_t count() const { return count_; }  // tokens of which the last layer was seen
  int64_t bytes() const { return static_cast<int64_t>(sums_.size() * sizeof(double)); }
  // mean (D), covariance (D, D) of one query head, divided by the count; 0 of no tokens.
  void Mean(int64_t layer, int64_t head, std::span<float> mean) const;
  void Covariance(int64_t layer, int64_t head, std::span<float> covariance) const;

 private:
  int64_t part() const { return head_size_ + head_size_ * (head_size_ + 1) / 2; }
  const double* Sums(int64_t layer, int64_t head) const {
    return sums_.data() + (layer * heads_ + head) * part();
  }

  int64_t layers_ = 0, heads_ = 0, head_size_ = 0, first_ = -1, count_ = 0;
  // (layers, heads): sums of q, then of q_i q_j for j <= i, row by row.
  std::vector<double> sums_;
};

}  // namespace palimpsest
