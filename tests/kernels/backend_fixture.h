// What the tests of the Backend seam share: the backends by name, numbers, and guarded matrices.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "tests/testing/reference.h"

namespace palimpsest {

// Runs over every dispatch path we build; those that this machine lacks skip with the backend's own reason.
class BackendTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto backend = MakeTestBackend(2);
    if (backend.status().code() == absl::StatusCode::kFailedPrecondition) {
      GTEST_SKIP() << Message(backend.status());
    }
    ASSERT_TRUE(backend.ok()) << Message(backend.status());
    backend_ = std::move(backend).value();
  }
  static absl::StatusOr<std::unique_ptr<Backend>> MakeTestBackend(int threads) {
    return MakeBackend({.isa = GetParam(), .threads = {.threads = threads, .pin = false, .spin_us = 20}});
  }
  // Those that this backend has for weights of k inputs: int8 wants whole groups of 64.
  std::vector<WeightFormat> Formats(int64_t k) const {
    std::vector<WeightFormat> formats = {WeightFormat::kBf16};
    if (k % 64 == 0 && backend_->Supports(WeightFormat::kInt8)) formats.push_back(WeightFormat::kInt8);
    return formats;
  }
  std::unique_ptr<Backend> backend_;
};

#define PALIMPSEST_OVER_ALL_ISAS(Suite)                                                  \
  INSTANTIATE_TEST_SUITE_P(Isas, Suite, ::testing::Values("avx512", "avx2", "portable"), \
                           [](const ::testing::TestParamInfo<std::string>& isa) { return isa.param; })

// Uniform in (-scale, scale).
inline float RandomFloat(RngSequence& rng, double scale) {
  return static_cast<float>((2.0 * rng.Uniform() - 1.0) * scale);
}
inline std::vector<float> RandomFloats(RngSequence& rng, int64_t count, double scale) {
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = RandomFloat(rng, scale);
  return x;
}
inline reference::Matrix ToMatrix(const std::vector<float>& x, int64_t rows) {
  reference::Matrix out(rows, static_cast<int64_t>(x.size()) / rows);
  for (size_t i = 0; i < x.size(); ++i) out.data[i] = static_cast<double>(x[i]);
  return out;
}

// Rows of numbers with guards after each row and after the last: an operation that writes outside of its rows
// is found out.
template <typename T>
class Guarded {
 public:
  // stride = columns + pad; pad > 0. Everything holds the sentinel.
  Guarded(int64_t rows, int64_t columns, int64_t pad)
      : rows_(rows), columns_(columns), stride_(columns + pad) {
    data_.assign(static_cast<size_t>((rows + 1) * stride_), Sentinel());
  }
  Rows<T> All() { return Part(0, rows_); }
  Rows<T> Part(int64_t first, int64_t count) {
    return {.data = data_.data() + first * stride_, .rows = count, .columns = columns_, .stride = stride_};
  }
  Rows<const T> AllConst() const { return PartConst(0, rows_); }
  Rows<const T> PartConst(int64_t first, int64_t count) const {
    return {.data = data_.data() + first * stride_, .rows = count, .columns = columns_, .stride = stride_};
  }
  T& operator()(int64_t r, int64_t c) { return data_[static_cast<size_t>(r * stride_ + c)]; }
  T operator()(int64_t r, int64_t c) const { return data_[static_cast<size_t>(r * stride_ + c)]; }
  double Value(int64_t r, int64_t c) const {
    if constexpr (sizeof(T) == 2) return static_cast<double>(Bf16ToFloat((*this)(r, c)));
    return static_cast<double>((*this)(r, c));
  }
  reference::Matrix Values() const {
    reference::Matrix m(rows_, columns_);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) m(r, c) = Value(r, c);
    }
    return m;
  }
  bool GuardsIntact() const {
    for (int64_t r = 0; r <= rows_; ++r) {
      for (int64_t c = r < rows_ ? columns_ : 0; c < stride_; ++c) {
        if ((*this)(r, c) != Sentinel()) return false;
      }
    }
    return true;
  }
  // The same bits everywhere, guards too.
  bool SameBits(const Guarded& other) const {
    return data_.size() == other.data_.size() &&
           std::memcmp(data_.data(), other.data_.data(), data_.size() * sizeof(T)) == 0;
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 private:
  static T Sentinel() { return static_cast<T>(12345); }
  int64_t rows_, columns_, stride_;
  std::vector<T> data_;
};

inline Guarded<Bf16> RandomBf16(RngSequence& rng, int64_t rows, int64_t columns, int64_t pad, double scale) {
  Guarded<Bf16> x(rows, columns, pad);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) x(r, c) = FloatToBf16(RandomFloat(rng, scale));
  }
  return x;
}

// Every element within its bound, which is positive; reports the worst one in units of the bound.
template <typename T>
void ExpectWithin(const Guarded<T>& got, const reference::Matrix& want, const reference::Matrix& bound) {
  ASSERT_EQ(got.rows(), want.rows);
  ASSERT_EQ(got.columns(), want.columns);
  double worst = 0;
  int64_t at_row = 0, at_column = 0;
  for (int64_t r = 0; r < want.rows; ++r) {
    for (int64_t c = 0; c < want.columns; ++c) {
      const double error = std::abs(got.Value(r, c) - want(r, c));
      const double ratio = std::isnan(error) ? HUGE_VAL : error / bound(r, c);
      if (ratio <= worst) continue;
      worst = ratio;
      at_row = r;
      at_column = c;
    }
  }
  EXPECT_LE(worst, 1.0) << "at row " << at_row << " column " << at_column << ": "
                        << got.Value(at_row, at_column) << " instead of " << want(at_row, at_column) << " +- "
                        << bound(at_row, at_column);
}

inline void ExpectWithin(const reference::Matrix& got, const reference::Matrix& want,
                         const reference::Matrix& bound) {
  ASSERT_EQ(got.data.size(), want.data.size());
  for (size_t i = 0; i < want.data.size(); ++i) {
    ASSERT_LE(std::abs(got.data[i] - want.data[i]), bound.data[i])
        << "at " << i << ": " << got.data[i] << " instead of " << want.data[i];
  }
}

// Random cuts of [0, rows): the starts of the parts and `rows` at the end.
inline std::vector<int64_t> RandomCuts(RngSequence& rng, int64_t rows) {
  std::vector<int64_t> cuts = {0};
  while (cuts.back() < rows) {
    const uint64_t longest = rng.Below(3) == 0 ? 2 : rng.Below(2) == 0 ? 12 : 150;
    cuts.push_back(std::min(rows, cuts.back() + 1 + static_cast<int64_t>(rng.Below(longest))));
  }
  return cuts;
}

}  // namespace palimpsest
