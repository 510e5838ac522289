// Sixteen floats in two AVX2 registers; bf16 products by widening and fused multiply-add. Left operands come
// widened (wide_left), so that inside the product only the right one's halves are taken apart: 4 instructions
// beside 24 multiply-adds for a pair of 6 rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int kGemmRows = 6;  // 6 rows x 16 columns: 12 accumulators, 2 weights, 1 activation, 1 mask
// Vectors of 16 columns beside so many rows: what is left of the registers, in chains that hide latency.
template <int MR>
constexpr int kVectors = MR == 1   ? 4
                         : MR <= 3 ? 2
                                   : 1;

struct F32x16 {
  __m256 lo, hi;
};
using Left = float;  // an element of a product's left operand: a bf16 number
inline const Left* LeftOf(const uint16_t*, const float* wide) { return wide; }

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

// The product's inner steps, in the order in which they are written: 12 accumulators, 2 weights, 1 activation
// and the mask are all 16 registers, and a compiler that moves one load ahead keeps an accumulator in memory,
// which costs a third of the speed.

// Eight pairs of bf16, anywhere.
inline const __m256i_u& EightPairs(const uint16_t* p) { return *reinterpret_cast<const __m256i_u*>(p); }
inline void LoadEven(const uint16_t* pairs, __m256& w) {
  asm volatile("vmovdqu %1, %0\n\tvpslld $16, %0, %0" : "=x"(w) : "m"(EightPairs(pairs)));
}
inline void LoadOdd(const uint16_t* pairs, __m256i mask, __m256& w) {
  asm volatile("vpand %1, %2, %0" : "=x"(w) : "m"(EightPairs(pairs)), "x"(mask));
}
inline void AddProduct(F32x16& acc, const Left& one, __m256 lo, __m256 hi) {
  __m256 x;
  asm volatile("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
               : "+x"(acc.lo), "+x"(acc.hi), "=&x"(x)
               : "m"(one), "x"(lo), "x"(hi));
}
// c[r][v] += a[r][0] * b[v][even] + a[r][1] * b[v][odd], in this order.
template <int MR, int NV>
inline void MultiplyPair(const Left* a, int64_t lda, const uint16_t* b, F32x16 (&c)[MR][NV]) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
  for (int v = 0; v < NV; ++v) {
    __m256 lo, hi;  // no F32x16: that would be written to the stack
    LoadEven(b + v * 32, lo);
    LoadEven(b + v * 32 + 16, hi);
    for (int r = 0; r < MR; ++r) AddProduct(c[r][v], a[r * lda], lo, hi);
  }
  for (int v = 0; v < NV; ++v) {
    __m256 lo, hi;
    LoadOdd(b + v * 32, mask, lo);
    LoadOdd(b + v * 32 + 16, mask, hi);
    for (int r = 0; r < MR; ++r) AddProduct(c[r][v], a[r * lda + 1], lo, hi);
  }
}
// The multiply-adds of one pair, and nothing else.
inline F32x16 PeakPair(F32x16 acc, F32x16 x) { return Fma(x, x, Fma(x, x, acc)); }

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
inline __m256 RoundedHalf(__m256 x) { return _mm256_castsi256_ps(_mm256_slli_epi32(RoundBf16(x), 16)); }
inline void StoreLeft(Left* p, F32x16 x) { Store(p, {RoundedHalf(x.lo), RoundedHalf(x.hi)}); }
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

// Sums of products of unsigned 2-bit codes with four signed bytes, of eight slots: in 16 bits for two
// channels each until WholeSums adds the two. Written in order as above: 12 sums, 2 queries, the codes and a
// product are all 16 registers; the mask and the third query stay in memory.
template <int shift>
inline void TakeCodes(const uint8_t* codes, const __m256i& low, __m256i& some) {
  const __m256i_u& four = *reinterpret_cast<const __m256i_u*>(codes);
  if constexpr (shift == 0) {
    asm volatile("vmovdqu %1, %0\n\tvpand %2, %0, %0" : "=x"(some) : "m"(four), "m"(low));
  } else {
    asm volatile("vmovdqu %1, %0\n\tvpsrlw %3, %0, %0\n\tvpand %2, %0, %0"
                 : "=x"(some)
                 : "m"(four), "m"(low), "n"(shift));
  }
}
inline void LoadQuery(const int8_t* query, __m256i& x) {
  asm volatile("vpbroadcastd %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const int32_t*>(query)));
}
inline void AddCodes(__m256i& sum, __m256i codes, __m256i query) {
  __m256i x;
  asm volatile("vpmaddubsw %2, %3, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(x) : "x"(query), "x"(codes));
}
inline void AddCodes(__m256i& sum, __m256i codes, const int8_t* query) {
  __m256i x;
  asm volatile("vpbroadcastd %2, %1\n\tvpmaddubsw %1, %3, %1\n\tvpaddw %1, %0, %0"
               : "+x"(sum), "=&x"(x)
               : "m"(*reinterpret_cast<const int32_t*>(query)), "x"(codes));
}
inline __m256i WholeSums(__m256i sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
inline F32x16 FloatsOf(const int32_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
          _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))};
}

// Two numbers in bf16, each in all lanes of its own.
inline void LoadPair(const uint8_t* p, F32x16& first, F32x16& second) {
  int32_t both;
  __builtin_memcpy(&both, p, 4);
  const __m256i x = _mm256_set1_epi32(both);
  first.lo = first.hi = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
  second.lo = second.hi =
      _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
// out[2i], out[2i + 1] = bf16 of even[c], odd[c], c being the low half of code i; the high halves give 32
// elements more.
inline void LookUpPairs(F32x16 even, F32x16 odd, const uint8_t* codes, uint16_t* out) {
  const auto zipped = [](__m256 a, __m256 b) {
    return _mm256_or_si256(RoundBf16(a), _mm256_slli_epi32(RoundBf16(b), 16));
  };
  const __m256i low = zipped(even.lo, odd.lo),
                high = zipped(even.hi, odd.hi);  // eight of the sixteen pairs each
  for (int half = 0; half < 2; ++half) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + half * 8));
    __m256i pairs = _mm256_cvtepu8_epi32(eight);
    for (int side = 0; side < 2; ++side, pairs = _mm256_srli_epi32(pairs, 4)) {
      const __m256 a = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(low, pairs));  // looks at 3 bits
      const __m256 b = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(high, pairs));
      const __m256 fourth = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 28));
      _mm256_storeu_ps(reinterpret_cast<float*>(out + side * 32 + half * 16), _mm256_blendv_ps(a, b, fourth));
    }
  }
}

inline void PrefetchStream(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
