// Sixteen floats in one AVX-512 register; bf16 products by vdpbf16ps.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int kGemmRows = 6;  // rows of the register tile
template <int MR>
constexpr int kVectors = 4;  // of 16 columns: 24 accumulators, 4 weights, 1 activation

using F32x16 = __m512;
using Left = uint16_t;  // an element of a product's left operand: bf16
inline const Left* LeftOf(const uint16_t* narrow, const float*) { return narrow; }

inline F32x16 Zero() { return _mm512_setzero_ps(); }
inline F32x16 Set1(float x) { return _mm512_set1_ps(x); }
inline F32x16 Load(const float* p) { return _mm512_loadu_ps(p); }
inline void Store(float* p, F32x16 x) { _mm512_storeu_ps(p, x); }
inline F32x16 Add(F32x16 a, F32x16 b) { return _mm512_add_ps(a, b); }
inline F32x16 Mul(F32x16 a, F32x16 b) { return _mm512_mul_ps(a, b); }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F32x16 Max(F32x16 a, F32x16 b) { return _mm512_max_ps(a, b); }
inline F32x16 Div(F32x16 a, F32x16 b) { return _mm512_div_ps(a, b); }
inline F32x16 Neg(F32x16 a) { return _mm512_sub_ps(_mm512_setzero_ps(), a); }
inline float ReduceMax(F32x16 a) { return _mm512_reduce_max_ps(a); }
inline float ReduceAdd(F32x16 a) { return _mm512_reduce_add_ps(a); }

// c[r][v] += a[r][0] * b[v][even] + a[r][1] * b[v][odd].
template <int MR, int NV>
inline void MultiplyPair(const Left* a, int64_t lda, const uint16_t* b, F32x16 (&c)[MR][NV]) {
  __m512i w[NV];
  for (int v = 0; v < NV; ++v) w[v] = _mm512_loadu_si512(b + v * 32);
  for (int r = 0; r < MR; ++r) {
    int32_t pair;
    __builtin_memcpy(&pair, a + r * lda, 4);
    const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
    for (int v = 0; v < NV; ++v) c[r][v] = _mm512_dpbf16_ps(c[r][v], x, (__m512bh)w[v]);
  }
}
// The multiply-adds of one pair, and nothing else.
inline F32x16 PeakPair(F32x16 acc, F32x16 x) { return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)x); }
inline void StoreBf16(uint16_t* p, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
}
inline void StoreLeft(Left* p, F32x16 x) { StoreBf16(p, x); }
inline F32x16 LoadBf16(const uint16_t* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
// (x1, x0, x3, x2, ...)
inline F32x16 SwapPairs(F32x16 x) { return _mm512_permute_ps(x, 0xB1); }

// score where position <= limit, else minus infinity
inline F32x16 KeepUpTo(F32x16 score, const int32_t* positions, int32_t limit) {
  const __mmask16 keep = _mm512_cmple_epi32_mask(_mm512_loadu_si512(positions), _mm512_set1_epi32(limit));
  return _mm512_mask_blend_ps(keep, _mm512_set1_ps(-__builtin_inff()), score);
}

// 2^x; 0 below -126 (also for minus infinity), exactly 1 at 0. Relative error < 2^-22: minimax coefficients
// of degree 5 with p(0) = 1, which leave 2^-23.4 on [-1/2, 1/2], and float rounding.
inline F32x16 Exp2(F32x16 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_GE_OQ);
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.32647273e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.67151299e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55073358e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40222424e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147004e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(normal, p, n);
}

// Two numbers in bf16, each in all lanes of its own.
inline void LoadPair(const uint8_t* p, F32x16& first, F32x16& second) {
  int32_t both;
  __builtin_memcpy(&both, p, 4);
  const __m512i x = _mm512_set1_epi32(both);
  first = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
  second = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
// out[2i], out[2i + 1] = bf16 of even[c], odd[c], c being the low half of code i; the high halves give 32
// elements more.
inline void LookUpPairs(F32x16 even, F32x16 odd, const uint8_t* codes, uint16_t* out) {
  alignas(64) static constexpr uint16_t kZip[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                    21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                    11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  const __m512i table = _mm512_permutexvar_epi16(_mm512_load_si512(kZip), both);
  const __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(pairs, table));  // looks at 4 bits of an index
  _mm512_storeu_si512(out + 32, _mm512_permutexvar_epi32(_mm512_srli_epi32(pairs, 4), table));
}

inline void PrefetchStream(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
