// Sixteen floats as a vector of the compiler's own: any processor, in whatever registers it has. Plain; the
// yardstick of the other two in tests.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

static_assert(std::endian::native == std::endian::little, "the first of a pair is the lower half of a word");

constexpr int kGemmRows = 2;
template <int MR>
constexpr int kVectors = 1;

using F32x16 = float __attribute__((vector_size(64)));
using U32x16 = uint32_t __attribute__((vector_size(64)));
using I32x16 = int32_t __attribute__((vector_size(64)));
using U16x16 = uint16_t __attribute__((vector_size(32)));
using Left = uint16_t;  // an element of a product's left operand: bf16
inline const Left* LeftOf(const uint16_t* narrow, const float*) { return narrow; }

// Sixteen elements from anywhere.
template <typename Vector>
inline Vector LoadAs(const void* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename F>
inline F32x16 Each(F f) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r[i] = f(i);
  return r;
}

inline F32x16 Set1(float x) {
  return Each([&](int) { return x; });
}
inline F32x16 Zero() { return F32x16{}; }
inline F32x16 Load(const float* p) { return LoadAs<F32x16>(p); }
inline void Store(float* p, const F32x16& x) { std::memcpy(p, &x, sizeof x); }
inline F32x16 Add(const F32x16& a, const F32x16& b) { return a + b; }
inline F32x16 Mul(const F32x16& a, const F32x16& b) { return a * b; }
inline F32x16 Fma(const F32x16& a, const F32x16& b, const F32x16& c) { return a * b + c; }
inline F32x16 Max(const F32x16& a, const F32x16& b) { return a > b ? a : b; }
inline F32x16 Div(const F32x16& a, const F32x16& b) { return a / b; }
inline F32x16 Neg(const F32x16& a) { return -a; }
inline float ReduceMax(const F32x16& a) {
  float m = a[0];
  for (int i = 1; i < 16; ++i) m = a[i] > m ? a[i] : m;
  return m;
}
inline float ReduceAdd(const F32x16& a) {
  float s = 0;
  for (int i = 0; i < 16; ++i) s += a[i];
  return s;
}

inline float Widened(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
// c[r][v] += a[r][0] * b[v][even] + a[r][1] * b[v][odd], in this order.
template <int MR, int NV>
inline void MultiplyPair(const Left* a, int64_t lda, const uint16_t* b, F32x16 (&c)[MR][NV]) {
  for (int v = 0; v < NV; ++v) {
    const U32x16 pairs = LoadAs<U32x16>(b + v * 32);
    const F32x16 even = std::bit_cast<F32x16>(pairs << 16);
    const F32x16 odd = std::bit_cast<F32x16>(pairs & 0xffff0000u);
    for (int r = 0; r < MR; ++r) {
      c[r][v] = c[r][v] + Widened(a[r * lda]) * even + Widened(a[r * lda + 1]) * odd;
    }
  }
}
// The multiply-adds of one pair, and nothing else.
inline F32x16 PeakPair(const F32x16& acc, const F32x16& x) { return acc + x * x + x * x; }

inline void StoreBf16(uint16_t* p, const F32x16& x) {
  const U32x16 bits = std::bit_cast<U32x16>(x);
  const U16x16 rounded = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, U16x16);
  std::memcpy(p, &rounded, sizeof rounded);
}
inline void StoreLeft(Left* p, const F32x16& x) { StoreBf16(p, x); }
inline F32x16 LoadBf16(const uint16_t* p) {
  return std::bit_cast<F32x16>(__builtin_convertvector(LoadAs<U16x16>(p), U32x16) << 16);
}
inline F32x16 SwapPairs(const F32x16& x) {
  return Each([&](int i) { return x[i ^ 1]; });
}
inline F32x16 KeepUpTo(const F32x16& score, const int32_t* positions, int32_t limit) {
  return LoadAs<I32x16>(positions) <= limit ? score : Set1(-__builtin_inff());
}
inline F32x16 Exp2(const F32x16& x) {
  return Each([&](int i) { return x[i] >= -126.0f ? std::exp2(x[i]) : 0.0f; });
}
inline F32x16 FloatsOf(const int32_t* p) { return __builtin_convertvector(LoadAs<I32x16>(p), F32x16); }
// Two numbers in bf16, each in all lanes of its own.
inline void LoadPair(const uint8_t* p, F32x16& first, F32x16& second) {
  uint16_t both[2];
  std::memcpy(both, p, 4);
  first = Set1(Widened(both[0]));
  second = Set1(Widened(both[1]));
}
// out[2i], out[2i + 1] = bf16 of even[c], odd[c], c being the low half of code i; the high halves give 32
// elements more.
inline void LookUpPairs(const F32x16& even, const F32x16& odd, const uint8_t* codes, uint16_t* out) {
  uint16_t firsts[16], seconds[16];
  StoreBf16(firsts, even);
  StoreBf16(seconds, odd);
  for (int i = 0; i < 16; ++i, out += 2) {
    out[0] = firsts[codes[i] & 15];
    out[1] = seconds[codes[i] & 15];
    out[32] = firsts[codes[i] >> 4];
    out[33] = seconds[codes[i] >> 4];
  }
}
inline void PrefetchStream(const void*) {}

}  // namespace
