// Integer arithmetic that remembers an overflow: the one type for all size math on numbers that a file or
// peer sent.
//
//   CheckedSize bytes = CheckedSize(rows) * columns / block_elements * block_bytes;
//   if (!bytes.AtMost(bytes_left)) return InvalidArgument(...);
//
// A result that the type cannot hold (overflow, below zero for CheckedSize, division by zero, a pad to a bad
// alignment) is lost for good: every number computed from it is not ok() either. So a formula is written
// once, as in the paper, and asked once at its end. There is no implicit way out: value() of a lost number is
// our own bug and aborts.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {

template <typename T>
class Checked {
  static_assert(std::is_same_v<T, int64_t> || std::is_same_v<T, uint64_t>, "size math is done in 64 bits");

 public:
  constexpr Checked() = default;  // 0
  // From any integer; lost if T cannot hold it (a negative number as a CheckedSize).
  template <typename U>
  requires(std::is_integral_v<U> && !std::is_same_v<U, bool> && !std::is_same_v<U, char>) constexpr Checked(
      U value)  // NOLINT(google-explicit-constructor): so that formulas mix it with plain integers
      : value_(static_cast<T>(value)), ok_(std::in_range<T>(value)) {}

  constexpr bool ok() const { return ok_; }
  // REQUIRES: ok().
  constexpr T value() const {
    PALIMPSEST_CHECK(ok_, "value() of a size that overflowed");
    return value_;
  }
  // False also for a lost number, so that "does it fit" is one question.
  constexpr bool AtMost(T limit) const { return ok_ && value_ <= limit; }

  friend constexpr Checked operator+(Checked a, Checked b) {
    T sum = 0;
    const bool overflow = __builtin_add_overflow(a.value_, b.value_, &sum);
    return Checked(sum, a.ok_ && b.ok_ && !overflow);
  }
  friend constexpr Checked operator-(Checked a, Checked b) {
    T difference = 0;
    const bool overflow = __builtin_sub_overflow(a.value_, b.value_, &difference);
    return Checked(difference, a.ok_ && b.ok_ && !overflow);
  }
  friend constexpr Checked operator*(Checked a, Checked b) {
    T product = 0;
    const bool overflow = __builtin_mul_overflow(a.value_, b.value_, &product);
    return Checked(product, a.ok_ && b.ok_ && !overflow);
  }
  // Rounds towards zero.
  friend constexpr Checked operator/(Checked a, Checked b) {
    if (!a.ok_ || !b.Divides()) return Checked(0, false);
    if (std::is_signed_v<T> && b.value_ == static_cast<T>(-1)) return Checked(0) - a;  // INT64_MIN / -1
    return Checked(a.value_ / b.value_, true);
  }
  friend constexpr Checked operator%(Checked a, Checked b) {
    if (!a.ok_ || !b.Divides()) return Checked(0, false);
    if (std::is_signed_v<T> && b.value_ == static_cast<T>(-1)) return Checked(0);
    return Checked(a.value_ % b.value_, true);
  }
  Checked& operator+=(Checked b) { return *this = *this + b; }
  Checked& operator-=(Checked b) { return *this = *this - b; }
  Checked& operator*=(Checked b) { return *this = *this * b; }

  // The next multiple of `alignment`, at least this number. Lost unless the alignment is a power of two and
  // this >= 0.
  constexpr Checked PadTo(Checked alignment) const {
    const T a = alignment.value_;
    if (!ok_ || !alignment.ok_ || value_ < 0 || a <= 0 || (a & (a - 1)) != 0) return Checked(0, false);
    const Checked bumped = *this + static_cast<T>(a - 1);
    return Checked(static_cast<T>(bumped.value_ & ~(a - 1)), bumped.ok_);
  }

 private:
  constexpr Checked(T value, bool ok) : value_(ok ? value : 0), ok_(ok) {}
  constexpr bool Divides() const { return ok_ && value_ != 0; }

  T value_ = 0;  // 0 when lost
  bool ok_ = true;
};

using CheckedSize = Checked<uint64_t>;  // bytes, file offsets
using CheckedCount = Checked<int64_t>;  // elements, positions, differences

}  // namespace palimpsest
