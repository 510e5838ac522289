// Sixteen floats in two AVX2 registers; bf16 products by widening and fused multiply-add.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int kGemmRows = 4;  // 4 rows x 16 columns: 8 accumulators, 4 weights, 2 activations
constexpr int kGemmVectors = 1;

struct F32x16 {
  __m256 lo, hi;
};
struct Pairs {
  __m256 even_lo, even_hi, odd_lo, odd_hi;
};
struct PairOfOne {
  __m256 even, odd;
};

inline F32x16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F32x16 Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void Store(float* p, F32x16 x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline F32x16 Add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F32x16 Mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 Max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32x16 Div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F32x16 Neg(F32x16 a) {
  return {_mm256_sub_ps(_mm256_setzero_ps(), a.lo), _mm256_sub_ps(_mm256_setzero_ps(), a.hi)};
}
inline float ReduceMax(F32x16 a) {
  const __m256 m = _mm256_max_ps(a.lo, a.hi);
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
inline float ReduceAdd(F32x16 a) {
  const __m256 s = _mm256_add_ps(a.lo, a.hi);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}

inline __m256 EvenHalf(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline __m256 OddHalf(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
inline Pairs LoadPairs(const uint16_t* p) {
  const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  return {EvenHalf(lo), EvenHalf(hi), OddHalf(lo), OddHalf(hi)};
}
inline PairOfOne BroadcastPair(const uint16_t* p) {
  int32_t bits;
  __builtin_memcpy(&bits, p, 4);
  const __m256i pair = _mm256_set1_epi32(bits);
  return {EvenHalf(pair), OddHalf(pair)};
}
inline F32x16 Dot(F32x16 acc, PairOfOne a, Pairs b) {
  acc.lo = _mm256_fmadd_ps(a.odd, b.odd_lo, _mm256_fmadd_ps(a.even, b.even_lo, acc.lo));
  acc.hi = _mm256_fmadd_ps(a.odd, b.odd_hi, _mm256_fmadd_ps(a.even, b.even_hi, acc.hi));
  return acc;
}

// Round to nearest even on the upper halves; our numbers are finite.
inline __m256i RoundBf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
inline void StoreBf16(uint16_t* p, F32x16 x) {
  const __m256i packed = _mm256_packus_epi32(RoundBf16(x.lo), RoundBf16(x.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xD8));
}
inline __m256 WidenBf16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline F32x16 LoadBf16(const uint16_t* p) {
  return {WidenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          WidenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline F32x16 SwapPairs(F32x16 x) { return {_mm256_permute_ps(x.lo, 0xB1), _mm256_permute_ps(x.hi, 0xB1)}; }

inline __m256 KeepHalf(__m256 score, const int32_t* positions, __m256i limit) {
  const __m256i drop =
      _mm256_cmpgt_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(positions)), limit);
  return _mm256_blendv_ps(score, _mm256_set1_ps(-__builtin_inff()), _mm256_castsi256_ps(drop));
}
inline F32x16 KeepUpTo(F32x16 score, const int32_t* positions, int32_t limit) {
  const __m256i bound = _mm256_set1_epi32(limit);
  return {KeepHalf(score.lo, positions, bound), KeepHalf(score.hi, positions + 8, bound)};
}

inline __m256 Exp2Half(__m256 x) {
  const __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_GE_OQ);
  const __m256 bounded = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
  const __m256 n = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 f = _mm256_sub_ps(bounded, n);
  __m256 p = _mm256_set1_ps(1.32647273e-3f);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.67151299e-3f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.55073358e-2f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.40222424e-1f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.93147004e-1f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  const __m256i scale =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(normal, _mm256_mul_ps(p, _mm256_castsi256_ps(scale)));
}
inline F32x16 Exp2(F32x16 x) { return {Exp2Half(x.lo), Exp2Half(x.hi)}; }

inline void PrefetchStream(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
