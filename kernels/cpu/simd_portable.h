// Sixteen floats as an array: any compiler, any processor. Slow and plain; the yardstick of the other two in
// tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kGemmRows = 2;
template <int MR>
constexpr int kVectors = 1;

struct F32x16 {
  float v[16];
};
using Left = uint16_t;  // an element of a product's left operand: bf16
inline const Left* LeftOf(const uint16_t* narrow, const float*) { return narrow; }

inline float FromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t ToBits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

template <typename F>
inline F32x16 Each(F f) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}
inline F32x16 Set1(float x) {
  return Each([&](int) { return x; });
}
inline F32x16 Zero() { return Set1(0.0f); }
inline F32x16 Load(const float* p) {
  return Each([&](int i) { return p[i]; });
}
inline void Store(float* p, const F32x16& x) { std::memcpy(p, x.v, sizeof x.v); }
inline F32x16 Add(const F32x16& a, const F32x16& b) {
  return Each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 Mul(const F32x16& a, const F32x16& b) {
  return Each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 Fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return Each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline F32x16 Max(const F32x16& a, const F32x16& b) {
  return Each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 Div(const F32x16& a, const F32x16& b) {
  return Each([&](int i) { return a.v[i] / b.v[i]; });
}
inline F32x16 Neg(const F32x16& a) {
  return Each([&](int i) { return -a.v[i]; });
}
inline float ReduceMax(const F32x16& a) {
  float m = a.v[0];
  for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline float ReduceAdd(const F32x16& a) {
  float s = 0;
  for (int i = 0; i < 16; ++i) s += a.v[i];
  return s;
}

inline float Widened(uint16_t bits) { return FromBits(static_cast<uint32_t>(bits) << 16); }
// c[r][v] += a[r][0] * b[v][even] + a[r][1] * b[v][odd], in this order.
template <int MR, int NV>
inline void MultiplyPair(const Left* a, int64_t lda, const uint16_t* b, F32x16 (&c)[MR][NV]) {
  for (int v = 0; v < NV; ++v) {
    const uint16_t* w = b + v * 32;
    const F32x16 even = Each([&](int i) { return Widened(w[2 * i]); });
    const F32x16 odd = Each([&](int i) { return Widened(w[2 * i + 1]); });
    for (int r = 0; r < MR; ++r) {
      const float x = Widened(a[r * lda]), y = Widened(a[r * lda + 1]);
      c[r][v] = Each([&](int i) { return c[r][v].v[i] + x * even.v[i] + y * odd.v[i]; });
    }
  }
}
// The multiply-adds of one pair, and nothing else.
inline F32x16 PeakPair(const F32x16& acc, const F32x16& x) {
  return Each([&](int i) { return acc.v[i] + x.v[i] * x.v[i] + x.v[i] * x.v[i]; });
}
inline void StoreBf16(uint16_t* p, const F32x16& x) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = ToBits(x.v[i]);
    p[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}
inline void StoreLeft(Left* p, const F32x16& x) { StoreBf16(p, x); }
inline F32x16 LoadBf16(const uint16_t* p) {
  return Each([&](int i) { return FromBits(static_cast<uint32_t>(p[i]) << 16); });
}
inline F32x16 SwapPairs(const F32x16& x) {
  return Each([&](int i) { return x.v[i ^ 1]; });
}
inline F32x16 KeepUpTo(const F32x16& score, const int32_t* positions, int32_t limit) {
  return Each([&](int i) { return positions[i] <= limit ? score.v[i] : -__builtin_inff(); });
}
inline F32x16 Exp2(const F32x16& x) {
  return Each([&](int i) { return x.v[i] >= -126.0f ? std::exp2(x.v[i]) : 0.0f; });
}
inline void PrefetchStream(const void*) {}

}  // namespace
