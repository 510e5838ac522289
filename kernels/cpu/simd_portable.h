// Sixteen floats as an array: any compiler, any processor. Slow and plain; the yardstick of the other two in
// tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kGemmRows = 2;
constexpr int kGemmVectors = 1;

struct F32x16 {
  float v[16];
};
struct Pairs {
  F32x16 even, odd;
};
struct PairOfOne {
  float even, odd;
};

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

inline Pairs LoadPairs(const uint16_t* p) {
  return {Each([&](int i) { return FromBits(static_cast<uint32_t>(p[2 * i]) << 16); }),
          Each([&](int i) { return FromBits(static_cast<uint32_t>(p[2 * i + 1]) << 16); })};
}
inline PairOfOne BroadcastPair(const uint16_t* p) {
  return {FromBits(static_cast<uint32_t>(p[0]) << 16), FromBits(static_cast<uint32_t>(p[1]) << 16)};
}
inline F32x16 Dot(const F32x16& acc, const PairOfOne& a, const Pairs& b) {
  return Each([&](int i) { return acc.v[i] + a.even * b.even.v[i] + a.odd * b.odd.v[i]; });
}
inline void StoreBf16(uint16_t* p, const F32x16& x) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = ToBits(x.v[i]);
    p[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}
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
