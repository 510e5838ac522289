#include "worker/model/query_moments.h"

#include <algorithm>

namespace palimpsest {
namespace {

constexpr int64_t kTogether = 8;  // tokens: a sum stays in a register for so many

// sums += q, products += q q', of `tokens` tokens one after the other; q (tokens, D).
template <int64_t kTokens>
void AddTokens(const double* q, int64_t size, double* sums, double* products) {
  for (int64_t i = 0; i < size; ++i) {
    double factors[kTokens];
    double sum = sums[i];
    for (int64_t t = 0; t < kTokens; ++t) {
      factors[t] = q[t * size + i];
      sum += factors[t];
    }
    sums[i] = sum;
    for (int64_t j = 0; j <= i; ++j) {
      double product = products[j];
      for (int64_t t = 0; t < kTokens; ++t) product += factors[t] * q[t * size + j];
      products[j] = product;
    }
    products += i + 1;
  }
}

}  // namespace

void QueryMoments::Begin(int64_t layers, int64_t heads, int64_t head_size, int64_t first) {
  layers_ = layers;
  heads_ = heads;
  head_size_ = head_size;
  first_ = first;
  count_ = 0;
  sums_.assign(static_cast<size_t>(layers * heads * part()), 0.0);
}

void QueryMoments::Take(ThreadPool& pool, int64_t layer, int64_t first_token, Rows<const float> q) {
  const int64_t begin = std::max<int64_t>(0, first_ - first_token), size = head_size_;
  if (begin >= q.rows) return;
  pool.ParallelFor(heads_, [&](int64_t head, int) {
    double* const sums = sums_.data() + (layer * heads_ + head) * part();
    double rows[kTogether * 256];
    for (int64_t first = begin; first < q.rows; first += kTogether) {
      const int64_t count = std::min(kTogether, q.rows - first);
      for (int64_t t = 0; t < count; ++t) {
        const float* const row = q.row(first + t) + head * size;
        std::copy_n(row, size, rows + t * size);
      }
      if (count == kTogether) {
        AddTokens<kTogether>(rows, size, sums, sums + size);
      } else {
        for (int64_t t = 0; t < count; ++t) AddTokens<1>(rows + t * size, size, sums, sums + size);
      }
    }
  });
  if (layer + 1 == layers_) count_ += q.rows - begin;
}

void QueryMoments::Mean(int64_t layer, int64_t head, std::span<float> mean) const {
  const double* const sums = Sums(layer, head);
  const double n = static_cast<double>(std::max<int64_t>(1, count_));
  std::transform(sums, sums + head_size_, mean.begin(),
                 [&](double sum) { return static_cast<float>(sum / n); });
}

void QueryMoments::Covariance(int64_t layer, int64_t head, std::span<float> covariance) const {
  const double* const sums = Sums(layer, head);
  const double* product = sums + head_size_;
  const double n = static_cast<double>(std::max<int64_t>(1, count_));
  for (int64_t i = 0; i < head_size_; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double value = *product++ / n - sums[i] / n * (sums[j] / n);
      covariance[static_cast<size_t>(i * head_size_ + j)] = static_cast<float>(value);
      covariance[static_cast<size_t>(j * head_size_ + i)] = static_cast<float>(value);
    }
  }
}

}  // namespace palimpsest
