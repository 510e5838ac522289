// Operands and outputs of one product, and its reference with bounds.
#pragma once

#include <algorithm>
#include <vector>

#include "tests/kernels/backend_fixture.h"

namespace palimpsest {

// What `output` leaves behind: floats or gated numbers.
struct ProductOutputs {
  Guarded<float> out;
  Guarded<Bf16> gated;
  bool SameBits(const ProductOutputs& other) const {
    return out.SameBits(other.out) && gated.SameBits(other.gated);
  }
};

class Product {
 public:
  Product(RngSequence& rng, int64_t rows, int64_t n, int64_t k)
      : rows_(rows),
        n_(n),
        k_(k),
        a_(RandomBf16(rng, rows, k, 2, 2.0)),
        w_(RandomFloats(rng, n * k, 1.0)),
        residual_(RandomFloats(rng, rows * n, 3.0)) {}

  PackedWeights Pack(Backend& backend, WeightFormat format) const {
    return backend.Pack(n_, k_, format,
                        [this](int64_t row, float* out) { std::copy_n(w_.data() + row * k_, k_, out); });
  }

  ProductOutputs FreshOutputs() const {
    ProductOutputs outputs{Guarded<float>(rows_, n_, 3), Guarded<Bf16>(rows_, n_ / 2, 5)};
    for (int64_t t = 0; t < rows_; ++t) {
      for (int64_t j = 0; j < n_; ++j) outputs.out(t, j) = residual_[static_cast<size_t>(t * n_ + j)];
    }
    return outputs;
  }

  // Rows cuts[i] to cuts[i + 1] in a call of their own.
  ProductOutputs Run(Backend& backend, const PackedWeights& weights, MatMulOutput output,
                     const std::vector<int64_t>& cuts) const {
    ProductOutputs outputs = FreshOutputs();
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const int64_t first = cuts[i], count = cuts[i + 1] - cuts[i];
      backend.MatMul({.a = a_.PartConst(first, count),
                      .weights = &weights,
                      .output = output,
                      .out = outputs.out.Part(first, count),
                      .gated = outputs.gated.Part(first, count)});
    }
    return outputs;
  }
  ProductOutputs Run(Backend& backend, const PackedWeights& weights, MatMulOutput output) const {
    return Run(backend, weights, output, {0, rows_});
  }

  void CheckAgainstReference(const ProductOutputs& outputs, WeightFormat format, MatMulOutput output) const;

  int64_t rows() const { return rows_; }

 private:
  reference::Matrix Weights(WeightFormat format) const {
    const reference::Matrix w = ToMatrix(w_, n_);
    return format == WeightFormat::kBf16 ? reference::RoundToBf16(w) : w;
  }
  reference::Matrix SumBound(WeightFormat format) const;
  void CheckSums(const Guarded<float>& out, const reference::Matrix& exact, const reference::Matrix& bound,
                 bool add) const;
  void CheckGated(const Guarded<Bf16>& gated, const reference::Matrix& exact,
                  const reference::Matrix& bound) const;

  int64_t rows_, n_, k_;
  Guarded<Bf16> a_;              // (rows, k)
  std::vector<float> w_;         // (n, k)
  std::vector<float> residual_;  // (rows, n): what is in `out` before
};

// How far silu(g) * u in bf16 may be from exact when g and u are off by dg and du.
//   silu: |silu'| <= 1.1, so 1.1 dg |u| + (|silu(g)| + 1.1 dg) du from the operands. In float, exp(-g) is
//   2^(-g log2 e): log2 e, the product and exp2's own 2^-22 leave a relative error below |g| 2^-23 + 2^-22;
//   then 1 + e, 1/x, two products: 4 * 2^-24. Together less than (|g| + 4) 2^-22, of the result. Below g =
//   -80 the kernels take g = -80: off by at most 80 exp(-80) |u| < 2e-33 |u|. The result rounds to 8 bits:
//   2^-8 of itself; zero below 2^-126.
inline double GatedBound(double g, double u, double dg, double du) {
  const double exact = std::abs(reference::Silu(g) * u);
  const double before = 1.1 * dg * std::abs(u) + (std::abs(reference::Silu(g)) + 1.1 * dg) * du +
                        (std::abs(g) + 4) * 0x1p-22 * exact + 2e-33 * std::abs(u);
  return 1.01 * (before + 0x1p-8 * (exact + before)) + 0x1p-126;
}

}  // namespace palimpsest
