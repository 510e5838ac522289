#include "tests/kernels/product.h"

#include <cmath>

namespace palimpsest {
namespace {

using reference::Matrix;

// The largest |x| of each row and group of 64 columns, over 127: the scale of an int8 number there.
Matrix Int8Scales(const Matrix& x) {
  Matrix scales(x.rows, (x.columns + 63) / 64);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < x.columns; ++i) {
      scales(r, i / 64) = std::max(scales(r, i / 64), std::abs(x(r, i)) / 127.0);
    }
  }
  return scales;
}

// int8 class: a weight is off by up to half of its scale sw/2, an activation by sa/2, so a product a w by
// |a| sw/2 + |w| sa/2 + sa sw/4. Float dust of the scales is far below the 1% on top.
Matrix QuantizationBound(const Matrix& a, const Matrix& w) {
  const Matrix sa = Int8Scales(a), sw = Int8Scales(w);
  Matrix bound(a.rows, w.rows);
  for (int64_t t = 0; t < a.rows; ++t) {
    for (int64_t j = 0; j < w.rows; ++j) {
      for (int64_t i = 0; i < a.columns; ++i) {
        const double da = sa(t, i / 64) / 2, dw = sw(j, i / 64) / 2;
        bound(t, j) += 1.01 * (std::abs(a(t, i)) * dw + std::abs(w(j, i)) * da + da * dw);
      }
    }
  }
  return bound;
}

}  // namespace

// A sum of k products in float. Products of two bf16 numbers have 16 significant bits: exact. Each of the k
// additions rounds by 2^-24 of a partial sum, which is at most M = sum of |a w|: k 2^-24 M in first order, 1%
// for the rest. vdpbf16ps takes numbers below 2^-126 for zero: k 2^-126. The int8 class adds its
// quantisation, and rounds fewer sums.
Matrix Product::SumBound(WeightFormat format) const {
  const Matrix a = a_.Values(), w = Weights(format);
  Matrix bound = reference::MatMul(reference::Abs(a), reference::Abs(w));
  const double k = static_cast<double>(k_);
  for (double& x : bound.data) x = 1.01 * k * 0x1p-24 * x + k * 0x1p-126;
  if (format == WeightFormat::kInt8) {
    const Matrix quantization = QuantizationBound(a, w);
    for (size_t i = 0; i < bound.data.size(); ++i) bound.data[i] += quantization.data[i];
  }
  return bound;
}

void Product::CheckSums(const Guarded<float>& out, const Matrix& exact, const Matrix& bound, bool add) const {
  Matrix want = exact, within = bound;
  for (size_t i = 0; add && i < want.data.size(); ++i) {
    want.data[i] += static_cast<double>(residual_[i]);
    within.data[i] += 0x1p-24 * (std::abs(want.data[i]) + bound.data[i]);  // the last addition
  }
  ExpectWithin(out, want, within);
  EXPECT_TRUE(out.GuardsIntact());
}

void Product::CheckGated(const Guarded<Bf16>& gated, const Matrix& exact, const Matrix& bound) const {
  const Matrix want = reference::SiluGate(exact);
  Matrix within(want.rows, want.columns);
  for (int64_t t = 0; t < want.rows; ++t) {
    for (int64_t j = 0; j < want.columns; ++j) {
      const int64_t gate = j / 16 * 32 + j % 16, up = gate + 16;
      within(t, j) = GatedBound(exact(t, gate), exact(t, up), bound(t, gate), bound(t, up));
    }
  }
  ExpectWithin(gated, want, within);
  EXPECT_TRUE(gated.GuardsIntact());
}

void Product::CheckAgainstReference(const ProductOutputs& outputs, WeightFormat format,
                                    MatMulOutput output) const {
  const Matrix exact = reference::MatMul(a_.Values(), Weights(format)), bound = SumBound(format);
  const ProductOutputs untouched = FreshOutputs();
  if (output == MatMulOutput::kSiluGate) {
    CheckGated(outputs.gated, exact, bound);
    EXPECT_TRUE(outputs.out.SameBits(untouched.out));
    return;
  }
  CheckSums(outputs.out, exact, bound, output == MatMulOutput::kAdd);
  EXPECT_TRUE(outputs.gated.SameBits(untouched.gated));
}

}  // namespace palimpsest
