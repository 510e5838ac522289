// Integers of 2-bit digests in AVX2's registers; TakeCodes, LoadQuery, AddCodes and WholeSums come
// from simd_avx2.h, which is included before this file. codes_portable.h says the same in plain loops:
// results are equal, not only near.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/codes.h"

namespace {

inline __m256i Load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// d is a multiple of 16, here and below.
inline void OpenRun(const uint8_t* bytes, int64_t d, RunScales* out) {
  for (int64_t i = 0; i < d; i += 16) {
    const __m128i* const zeros = reinterpret_cast<const __m128i*>(bytes + i);
    const __m128i* const steps = reinterpret_cast<const __m128i*>(bytes + d + i);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out->zeros + i),
                       _mm256_cvtepi8_epi16(_mm_loadu_si128(zeros)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out->steps + i),
                       _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(steps)), 7));
  }
}

// The largest of each of four rows' sixteen numbers >= 0, as whole numbers.
inline __m128i LargestOf(const __m256i (&rows)[4]) {
  __m128i x[4];
  for (int r = 0; r < 4; ++r) {
    x[r] = _mm_max_epi16(_mm256_castsi256_si128(rows[r]), _mm256_extracti128_si256(rows[r], 1));
  }
  const __m128i a = _mm_max_epi16(_mm_unpacklo_epi16(x[0], x[1]), _mm_unpackhi_epi16(x[0], x[1]));
  const __m128i b = _mm_max_epi16(_mm_unpacklo_epi16(x[2], x[3]), _mm_unpackhi_epi16(x[2], x[3]));
  const __m128i all = _mm_max_epi16(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
  return _mm_cvtepu16_epi32(_mm_max_epi16(all, _mm_unpackhi_epi64(all, all)));
}
inline __m128i SumsOf(const __m256i (&rows)[4]) {
  __m128i x[4];
  for (int r = 0; r < 4; ++r) {
    x[r] = _mm_add_epi32(_mm256_castsi256_si128(rows[r]), _mm256_extracti128_si256(rows[r], 1));
  }
  return _mm_hadd_epi32(_mm_hadd_epi32(x[0], x[1]), _mm_hadd_epi32(x[2], x[3]));
}

// out[i] = products[i] * scale / 2^15, rounded, in bytes.
inline void PutBytes(const int16_t* products, __m256i scale, int64_t d, int8_t* out) {
  int64_t i = 0;
  for (; i + 32 <= d; i += 32) {
    const __m256i a = _mm256_mulhrs_epi16(Load256(products + i), scale);
    const __m256i b = _mm256_mulhrs_epi16(Load256(products + i + 16), scale);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8));
  }
  if (i == d) return;
  const __m256i x = _mm256_mulhrs_epi16(Load256(products + i), scale);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                   _mm_packs_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}

// Queries of R rows for one run (codes_portable.h says it plainly). Rows go through each step together, and
// in vector registers: one after the other, each would wait for its own chain of divisions.
template <int R>
inline void FoldQueries(const int16_t* q, const float* units, const RunScales& run, int64_t d, float top,
                        int8_t* out, float* factors, float* constants) {
  static_assert(R <= 4);
  alignas(32) int16_t products[R][256];
  __m256i most[4] = {}, sums[4] = {};
  for (int r = 0; r < R; ++r) {
    for (int64_t i = 0; i < d; i += 16) {
      const __m256i x = Load256(q + r * d + i), product = _mm256_mulhrs_epi16(x, Load256(run.steps + i));
      _mm256_store_si256(reinterpret_cast<__m256i*>(products[r] + i), product);
      most[r] = _mm256_max_epi16(most[r], _mm256_abs_epi16(product));
      sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(x, Load256(run.zeros + i)));
    }
  }
  const __m128 unit = _mm_loadu_ps(units);
  const __m128 dot = _mm_cvtepi32_ps(SumsOf(sums));
  _mm_storeu_ps(constants, _mm_mul_ps(_mm_mul_ps(unit, _mm_set1_ps(run.zero_scale)), dot));

  const __m128 ratio = _mm_div_ps(_mm_set1_ps(top * 0x1p15f), _mm_cvtepi32_ps(LargestOf(most)));
  __m128i whole = _mm_cvttps_epi32(_mm_min_ps(ratio, _mm_set1_ps(32767.0f)));
  const __m128 step_unit = _mm_mul_ps(unit, _mm_set1_ps(run.step_scale * 0x1p23f));
  _mm_storeu_ps(factors, _mm_div_ps(step_unit, _mm_cvtepi32_ps(whole)));
  for (int r = 0; r < R; ++r) {
    PutBytes(products[r], _mm256_broadcastw_epi16(whole), d, out + r * d);
    whole = _mm_srli_si128(whole, 4);
  }
}

// Sums of the 32 slots of a run with one row of queries. Members and no array: an array would stay in memory.
struct RowSums {
  __m256i v0 = _mm256_setzero_si256(), v1 = v0, v2 = v0, v3 = v0;

  void StoreTo(int32_t* out) const {
    __m256i* const to = reinterpret_cast<__m256i*>(out);
    _mm256_store_si256(to, WholeSums(v0));
    _mm256_store_si256(to + 1, WholeSums(v1));
    _mm256_store_si256(to + 2, WholeSums(v2));
    _mm256_store_si256(to + 3, WholeSums(v3));
  }
};

// One of the four codes in each byte (shift / 2) times R rows of queries, of which two are in registers.
template <int R, int shift, __m256i RowSums::*v>
inline void AddQuad(const uint8_t* codes, const __m256i& low, __m256i first, __m256i second,
                    const int8_t* third, RowSums& a, RowSums& b, RowSums& c) {
  __m256i some;
  TakeCodes<shift>(codes, low, some);
  AddCodes(a.*v, some, first);
  if constexpr (R > 1) AddCodes(b.*v, some, second);
  if constexpr (R > 2) AddCodes(c.*v, some, third);
}

// sums[r][slot] = sum over channels of code * q[r * d + channel], for the 32 slots of a run. Not inlined:
// what is around it would take its registers.
template <int R>
__attribute__((noinline)) void MultiplyCodes(const uint8_t* codes, const int8_t* q, int64_t d,
                                             const uint8_t* ahead, int32_t (&sums)[R][32]) {
  static_assert(R <= 3);
  RowSums a, b, c;
  alignas(32) const __m256i low = _mm256_set1_epi8(3);
  for (int64_t i = 0; i < d; i += 4, codes += 32, ahead += 32) {
    PrefetchStream(ahead);
    __m256i first, second;
    const int8_t* const third = q + 2 * d + i;
    LoadQuery(q + i, first);
    LoadQuery(R > 1 ? q + d + i : q + i, second);
    AddQuad<R, 0, &RowSums::v0>(codes, low, first, second, third, a, b, c);
    AddQuad<R, 2, &RowSums::v1>(codes, low, first, second, third, a, b, c);
    AddQuad<R, 4, &RowSums::v2>(codes, low, first, second, third, a, b, c);
    AddQuad<R, 6, &RowSums::v3>(codes, low, first, second, third, a, b, c);
  }
  a.StoreTo(sums[0]);
  if constexpr (R > 1) b.StoreTo(sums[1]);
  if constexpr (R > 2) c.StoreTo(sums[2]);
}

}  // namespace
