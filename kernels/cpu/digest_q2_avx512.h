// Scores of 2-bit digests in AVX-512's registers. Both runs of a tile go through each step together, side by
// side in every pair of numbers: so no sums are added up across a register. codes_portable.h says the same in
// plain loops: results are equal, not only near.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/digest_q2_score.h"

namespace {

struct FoldedTile {
  alignas(64) int8_t q[kFoldRows * 512];     // (rows, head_size / 4, run, 4)
  alignas(64) float factors[kFoldRows * 2];  // (rows, run)
  alignas(64) float constants[kFoldRows * 2];
};

// Two numbers over and over.
inline __m512i TwoOf(const void* p) {
  int64_t two;
  __builtin_memcpy(&two, p, 8);
  return _mm512_set1_epi64(two);
}
// Two bf16 numbers over and over, as floats.
inline __m256 TwoWide(const uint8_t* bf16) {
  uint32_t two;
  __builtin_memcpy(&two, bf16, 4);
  return _mm256_castsi256_ps(_mm256_set1_epi64x(int64_t{two << 16} | int64_t{two & 0xffff0000} << 32));
}

// The largest of each of eight rows' 32 numbers >= 0, as whole numbers.
inline __m256i LargestOf(const __m512i (&x)[8]) {
  __m512i a[4], b[2];
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_max_epi16(_mm512_unpacklo_epi16(x[2 * i], x[2 * i + 1]),
                            _mm512_unpackhi_epi16(x[2 * i], x[2 * i + 1]));
  }
  for (int i = 0; i < 2; ++i) {
    b[i] = _mm512_max_epi16(_mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]),
                            _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
  }
  const __m512i c = _mm512_max_epi16(_mm512_unpacklo_epi64(b[0], b[1]), _mm512_unpackhi_epi64(b[0], b[1]));
  const __m256i d = _mm256_max_epi16(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
  return _mm256_cvtepu16_epi32(_mm_max_epi16(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1)));
}
// The sum of each of eight rows' 16 numbers.
inline __m256i SumsOf(const __m512i (&x)[8]) {
  __m512i a[4], b[2];
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]),
                            _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]));
  }
  for (int i = 0; i < 2; ++i) {
    b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                            _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
  }
  const __m512i c =
      _mm512_add_epi32(_mm512_shuffle_i64x2(b[0], b[1], 0x88), _mm512_shuffle_i64x2(b[0], b[1], 0xdd));
  return _mm512_castsi512_si256(
      _mm512_add_epi32(_mm512_shuffle_i64x2(c, c, 0x08), _mm512_shuffle_i64x2(c, c, 0x0d)));
}

// Rows of queries as they meet both runs of a tile (codes_portable.h says it plainly): R rows at once, since
// one after the other each would wait for its own chain of divisions. d is a multiple of 16: the last 32
// channels may be half.
template <int R>
__attribute__((always_inline)) inline void FoldRows(const int16_t* q, const float* units,
                                                    const uint8_t* digest, int64_t d, int64_t row,
                                                    FoldedTile* out) {
  static_assert(R <= 4);
  alignas(64) int16_t products[2 * R][256];
  __m512i most[8] = {}, sums[8] = {};
  for (int64_t i = 0; i < d; i += 32) {
    const __mmask32 some = d - i >= 32 ? 0xffffffff : 0xffff;
    __m512i x[R];
    for (int r = 0; r < R; ++r) x[r] = _mm512_maskz_loadu_epi16(some, q + r * d + i);
    for (int run = 0; run < 2; ++run) {
      const uint8_t* bytes = digest + kDigestHeader + run * d * (2 + kRunSlots / 4) + i;
      const __m512i zeros = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, bytes));
      const __m512i steps =
          _mm512_slli_epi16(_mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(some, bytes + d)), 7);
      for (int r = 0; r < R; ++r) {
        const int at = 2 * r + run;
        const __m512i product = _mm512_mulhrs_epi16(x[r], steps);
        _mm512_store_si512(products[at] + i, product);
        most[at] = _mm512_max_epi16(most[at], _mm512_abs_epi16(product));
        sums[at] = _mm512_dpwssd_epi32(sums[at], x[r], zeros);
      }
    }
  }
  const __m256 unit = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(units)),
                                               _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  const __m256 dot = _mm256_cvtepi32_ps(SumsOf(sums));
  _mm256_storeu_ps(out->constants + 2 * row, _mm256_mul_ps(_mm256_mul_ps(unit, TwoWide(digest + 8)), dot));

  const __m256 ratio =
      _mm256_div_ps(_mm256_set1_ps(kCodeQueryTop * 0x1p15f), _mm256_cvtepi32_ps(LargestOf(most)));
  const __m256i whole = _mm256_cvttps_epi32(_mm256_min_ps(ratio, _mm256_set1_ps(32767.0f)));
  const __m256 step = _mm256_mul_ps(TwoWide(digest + 12), _mm256_set1_ps(0x1p23f));
  _mm256_storeu_ps(out->factors + 2 * row,
                   _mm256_div_ps(_mm256_mul_ps(unit, step), _mm256_cvtepi32_ps(whole)));

  alignas(32) int32_t twice[8];  // each in both halves
  _mm256_store_si256(reinterpret_cast<__m256i*>(twice), _mm256_or_si256(whole, _mm256_slli_epi32(whole, 16)));
  for (int r = 0; r < R; ++r) {
    int8_t* bytes = out->q + (row + r) * 2 * d;
    const __m512i first = _mm512_set1_epi32(twice[2 * r]), second = _mm512_set1_epi32(twice[2 * r + 1]);
    for (int64_t i = 0; i < d; i += 32) {
      const __m512i a = _mm512_mulhrs_epi16(_mm512_load_si512(products[2 * r] + i), first);
      const __m512i b = _mm512_mulhrs_epi16(_mm512_load_si512(products[2 * r + 1] + i), second);
      // Eight channels of one run, the same of the other; then by fours.
      _mm512_storeu_si512(bytes + 2 * i, _mm512_shuffle_epi32(_mm512_packs_epi16(a, b), _MM_PERM_DBCA));
    }
  }
}

template <int R>
inline void FoldRowsOf(const DigestBlock& t, int64_t row, int64_t tile, int64_t at, FoldedTile* out) {
  const int64_t d = t.head_size;
  const int16_t* q = t.q_fixed + (row + at) * d;
  const float* units = t.q_units + row + at;
  // Known to the compiler where it can be: most of the work is in loops of d / 32.
  if (d == 64) return FoldRows<R>(q, units, t.tiles[tile], 64, at, out);
  if (d == 128) return FoldRows<R>(q, units, t.tiles[tile], 128, at, out);
  FoldRows<R>(q, units, t.tiles[tile], d, at, out);
}

inline void FoldTile(const DigestBlock& t, int64_t row, int64_t rows, int64_t tile, FoldedTile* out) {
  int64_t at = 0;
  for (; rows - at >= 4; at += 4) FoldRowsOf<4>(t, row, tile, at, out);
  if (rows - at == 3) FoldRowsOf<3>(t, row, tile, at, out);
  if (rows - at == 2) FoldRowsOf<2>(t, row, tile, at, out);
  if (rows - at == 1) FoldRowsOf<1>(t, row, tile, at, out);
}

// Four quads, two of each run: v[r][c] of slots 8 c to 8 c + 7 of both runs. Codes stay where they are in
// their byte, which makes sums 4^c times too large.
template <int R>
inline void AddQuads(const uint8_t* first, const uint8_t* second, const int8_t* q, int64_t row_bytes,
                     __m512i (&v)[R][4]) {
  const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  for (int half = 0; half < 2; ++half) {
    const __m512i codes = _mm512_permutex2var_epi32(a, half == 0 ? low : high, b);
    __m512i x[R];
    for (int r = 0; r < R; ++r) x[r] = TwoOf(q + r * row_bytes + half * 8);
    for (int c = 0; c < 4; ++c) {
      const __m512i some = _mm512_and_si512(codes, _mm512_set1_epi8(static_cast<char>(3 << 2 * c)));
      for (int r = 0; r < R; ++r) v[r][c] = _mm512_dpbusd_epi32(v[r][c], some, x[r]);
    }
  }
}

// Not inlined: among what is folded beside it the compiler runs out of registers. kHeadSize: 0 if it is
// another.
template <int R, int64_t kHeadSize>
__attribute__((noinline)) void ScoreRowsOf(const DigestBlock& t, int64_t tile, const FoldedTile& folded,
                                           int64_t row, float* out) {
  const int64_t d = kHeadSize > 0 ? kHeadSize : t.head_size;
  const uint8_t *first = t.tiles[tile] + kDigestHeader + 2 * d, *second = first + d * (2 + kRunSlots / 4);
  const uint8_t* ahead = t.tiles[tile + kTilesAhead < t.tile_count ? tile + kTilesAhead : tile];
  const int8_t* q = folded.q + row * 2 * d;
  __m512i v[R][4];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < 4; ++c) v[r][c] = _mm512_setzero_si512();
  }
  for (int64_t i = 0; i < d; i += 8) {
    // Two runs of ten bytes a channel: little by little, for a burst waits for itself.
    for (int64_t line = 0; line < 192; line += 64) PrefetchStream(ahead + i * 20 + line);
    AddQuads<R>(first + i * 8, second + i * 8, q + i * 2, 2 * d, v);
  }
  __m512 best[4];
  for (int c = 0; c < 4; ++c) {
    best[c] = Set1(-__builtin_inff());
    for (int r = 0; r < R; ++r) {
      const __m512 factor = _mm512_mul_ps(_mm512_castsi512_ps(TwoOf(folded.factors + 2 * (row + r))),
                                          Set1(1.0f / static_cast<float>(1 << 2 * c)));
      const __m512 constant = _mm512_castsi512_ps(TwoOf(folded.constants + 2 * (row + r)));
      best[c] = Max(Add(Mul(_mm512_cvtepi32_ps(v[r][c]), factor), constant), best[c]);
    }
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  KeepBest(out, _mm512_permutex2var_ps(best[0], even, best[1]));
  KeepBest(out + 16, _mm512_permutex2var_ps(best[2], even, best[3]));
  KeepBest(out + 32, _mm512_permutex2var_ps(best[0], odd, best[1]));
  KeepBest(out + 48, _mm512_permutex2var_ps(best[2], odd, best[3]));
}

template <int64_t kHeadSize>
inline void ScoreTileOf(const DigestBlock& t, int64_t rows, int64_t tile, const FoldedTile& folded,
                        float* scores) {
  int64_t row = 0;
  for (; rows - row >= 4; row += 4) ScoreRowsOf<4, kHeadSize>(t, tile, folded, row, scores);
  if (rows - row == 3) ScoreRowsOf<3, kHeadSize>(t, tile, folded, row, scores);
  if (rows - row == 2) ScoreRowsOf<2, kHeadSize>(t, tile, folded, row, scores);
  if (rows - row == 1) ScoreRowsOf<1, kHeadSize>(t, tile, folded, row, scores);
}

inline void ScoreTile(const DigestBlock& t, int64_t rows, int64_t tile, const FoldedTile& folded,
                      float* scores) {
  if (t.head_size == 64) return ScoreTileOf<64>(t, rows, tile, folded, scores);
  if (t.head_size == 128) return ScoreTileOf<128>(t, rows, tile, folded, scores);
  ScoreTileOf<0>(t, rows, tile, folded, scores);
}

void ScoreQ2(const DigestBlock& t) { ScoreTiles<FoldedTile>(t); }

}  // namespace
