// Scores of digests, over the vectors of a simd_*.h and the integers of a codes_*.h that are included before
// this file. A row's score is its own whatever the rows beside it, and each slot keeps the best of all rows:
// neither the cut of rows nor that of tiles shows in the result.
#pragma once

#include "kernels/cpu/digest_build_impl.h"  // the layout
#include "kernels/cpu/kernels_impl.h"

namespace {

using palimpsest::cpu::DigestBlock;

// A query of codes in bytes: 64 quads of 2 channels of at most 3 * 85 stay within 16 bits.
constexpr float kCodeQueryTop = 85;
static_assert(64 * 2 * 3 * kCodeQueryTop <= 0x7fff);
constexpr int64_t kTilesAhead = 2;  // fetched while a tile is worked on

inline uint64_t SlotsOf(const uint8_t* digest, int32_t count) {
  uint64_t slots;
  __builtin_memcpy(&slots, digest, 8);
  return count >= 64 ? slots : slots & ((uint64_t{1} << count) - 1);
}
// Minus infinity where a bit of `slots` is not set.
inline void KeepSlots(uint64_t slots, float* out) {
  if (~slots == 0) return;
  for (int64_t s = 0; s < 64; ++s) out[s] = slots >> s & 1 ? out[s] : -__builtin_inff();
}
inline float WidenOne(const uint8_t* bf16) {
  uint16_t half;
  __builtin_memcpy(&half, bf16, 2);
  const uint32_t bits = uint32_t{half} << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
inline void ClearBest(float* out) {
  for (int64_t s = 0; s < 64; s += 16) Store(out + s, Set1(-__builtin_inff()));
}
// Max takes its second operand when the first is not a number.
inline void KeepBest(float* out, F32x16 score) { Store(out, Max(score, Load(out))); }

// Scores too: a store that waits for memory holds up all those behind it.
inline void FetchDigest(const DigestBlock& t, int64_t tile, int64_t first, int64_t last) {
  if (tile >= t.tile_count) return;
  for (int64_t s = 0; s < 64; s += 16) PrefetchStream(t.out + tile * 64 + s);
  for (int64_t i = first; i < last; i += 64) PrefetchStream(t.tiles[tile] + i);
}

// Queries against one run of a 2-bit digest: q times the steps, in bytes with one factor for all channels, so
// that all sums are integers, exact in any order.
//   score = factor * sum of q * code + constant
constexpr int64_t kFoldRows = 24;  // a multiple of 4
struct FoldedRun {
  alignas(64) int8_t q[kFoldRows * 256];  // (rows, head_size)
  float factors[kFoldRows], constants[kFoldRows];
};

inline int64_t RunBytes(const DigestBlock& t) { return t.head_size * (2 + kRunSlots / 4); }
inline const uint8_t* RunOf(const DigestBlock& t, int64_t tile, int64_t run) {
  return t.tiles[tile] + kDigestHeader + run * RunBytes(t);
}

// d is t.head_size, and known to the compiler where it can be: most of the work here is in loops of d / 16.
__attribute__((always_inline)) inline void FoldRun(const DigestBlock& t, int64_t row, int64_t rows, int64_t d,
                                                   int64_t tile, int64_t run, FoldedRun* out) {
  RunScales scales;
  OpenRun(RunOf(t, tile, run), d, &scales);
  scales.zero_scale = WidenOne(t.tiles[tile] + 8 + run * 2);
  scales.step_scale = WidenOne(t.tiles[tile] + 12 + run * 2);
  const int16_t* q = t.q_fixed + row * d;
  const float* units = t.q_units + row;
  int64_t r = 0;
  const auto fold = [&]<int R>() {
    FoldQueries<R>(q + r * d, units + r, scales, d, kCodeQueryTop, out->q + r * d, out->factors + r,
                   out->constants + r);
    r += R;
  };
  while (r + 4 <= rows) fold.template operator()<4>();
  if (rows - r == 3) return fold.template operator()<3>();
  if (rows - r == 2) return fold.template operator()<2>();
  if (rows - r == 1) return fold.template operator()<1>();
}

template <int R>
inline void ScoreRun(const FoldedRun& folded, int64_t row, int64_t d, const uint8_t* codes,
                     const uint8_t* ahead, float* out) {
  alignas(64) int32_t sums[R][kRunSlots];
  MultiplyCodes<R>(codes, folded.q + row * d, d, ahead, sums);
  for (int64_t s = 0; s < kRunSlots; s += 16) {
    F32x16 best = Load(out + s);
    for (int r = 0; r < R; ++r) {
      const F32x16 factor = Set1(folded.factors[row + r]), constant = Set1(folded.constants[row + r]);
      best = Max(Add(Mul(FloatsOf(sums[r] + s), factor), constant), best);
    }
    Store(out + s, best);
  }
}

inline int64_t RunsOf(const DigestBlock& t, int64_t tile) {
  return t.counts[tile] <= 0 ? 0 : t.counts[tile] <= kRunSlots ? 1 : 2;
}

inline void FoldTile(const DigestBlock& t, int64_t row, int64_t rows, int64_t tile, FoldedRun* out) {
  for (int64_t run = 0; run < RunsOf(t, tile); ++run) {
    if (t.head_size == 64) {
      FoldRun(t, row, rows, 64, tile, run, out + run);
    } else if (t.head_size == 128) {
      FoldRun(t, row, rows, 128, tile, run, out + run);
    } else {
      FoldRun(t, row, rows, t.head_size, tile, run, out + run);
    }
  }
}

inline void ScoreTile(const DigestBlock& t, int64_t rows, int64_t tile, const FoldedRun* folded) {
  const int64_t d = t.head_size;
  for (int64_t run = 0; run < RunsOf(t, tile); ++run) {
    const uint8_t* codes = RunOf(t, tile, run) + 2 * d;
    const uint8_t* ahead =
        RunOf(t, tile + kTilesAhead < t.tile_count ? tile + kTilesAhead : tile, run) + 2 * d;
    FetchDigest(t, tile + kTilesAhead, run * RunBytes(t), kDigestHeader + run * RunBytes(t) + 2 * d);
    float* out = t.out + tile * 64 + run * kRunSlots;
    int64_t row = 0;
    for (; rows - row >= 3 && rows - row != 4; row += 3) ScoreRun<3>(folded[run], row, d, codes, ahead, out);
    for (; rows - row >= 2; row += 2) ScoreRun<2>(folded[run], row, d, codes, ahead, out);
    if (rows - row == 1) ScoreRun<1>(folded[run], row, d, codes, ahead, out);
  }
}

// Rows [row, row + rows) against tiles [first, last). Folding is a chain of few operations, products are many
// that wait for none: the next tile is folded before this one is multiplied, so that the processor does both.
inline void ScoreCodes(const DigestBlock& t, int64_t row, int64_t rows, int64_t first, int64_t last,
                       FoldedRun (&folded)[2][2]) {
  FoldTile(t, row, rows, first, folded[first % 2]);
  for (int64_t i = first; i < last; ++i) {
    if (i + 1 < last) FoldTile(t, row, rows, i + 1, folded[(i + 1) % 2]);
    if (row == 0) ClearBest(t.out + i * 64);
    ScoreTile(t, rows, i, folded[i % 2]);
    if (row + rows == t.rows) KeepSlots(SlotsOf(t.tiles[i], t.counts[i]), t.out + i * 64);
  }
}

// So many tiles stay in the cache for all rows.
constexpr int64_t kTilesTogether = 64;

void ScoreQ2(const DigestBlock& t) {
  FoldedRun folded[2][2];
  if (t.rows == 0) {
    for (int64_t i = 0; i < t.tile_count; ++i) ClearBest(t.out + i * 64);
  }
  for (int64_t first = 0; first < t.tile_count; first += kTilesTogether) {
    const int64_t last = first + kTilesTogether < t.tile_count ? first + kTilesTogether : t.tile_count;
    for (int64_t row = 0; row < t.rows; row += kFoldRows) {
      ScoreCodes(t, row, t.rows - row < kFoldRows ? t.rows - row : kFoldRows, first, last, folded);
    }
  }
}

template <int MR, bool kStream>
inline void ScoreExactRows(const DigestBlock& t, int64_t row, const uint16_t* keys, int64_t ahead,
                           float* out) {
  alignas(64) float scores[MR][64];
  MultiplyKeys<MR, kStream>(LeftOf(t.q, t.q_wide) + row * t.head_size, keys, t.head_size, ahead, scores);
  for (int r = 0; r < MR; ++r) {
    for (int64_t s = 0; s < 64; s += 16) KeepBest(out + s, Mul(Load(scores[r] + s), Set1(t.scale)));
  }
}

template <bool kStream>
inline void ScoreExactTiles(const DigestBlock& t) {
  for (int64_t i = 0; i < t.tile_count; ++i) {
    const uint16_t* keys = reinterpret_cast<const uint16_t*>(t.tiles[i]);
    const int64_t ahead = i + 1 < t.tile_count ? reinterpret_cast<const uint16_t*>(t.tiles[i + 1]) - keys : 0;
    float* out = t.out + i * 64;
    ClearBest(out);
    int64_t row = 0;
    for (; row + kGemmRows <= t.rows; row += kGemmRows) {
      ScoreExactRows<kGemmRows, kStream>(t, row, keys, ahead, out);
    }
    if constexpr (kGemmRows > 3) {
      for (; row + 3 <= t.rows; row += 3) ScoreExactRows<3, kStream>(t, row, keys, ahead, out);
    }
    for (; row < t.rows; ++row) ScoreExactRows<1, kStream>(t, row, keys, ahead, out);
    KeepSlots(t.counts[i] >= 64 ? ~uint64_t{0} : (uint64_t{1} << t.counts[i]) - 1, out);
  }
}

void ScoreExact(const DigestBlock& t) {
  if (t.rows <= 12) return ScoreExactTiles<true>(t);
  ScoreExactTiles<false>(t);
}

// R rows against the two numbers of each channel of a box: a product of 2 D terms.
template <int R>
inline void ScoreBox(const DigestBlock& t, int64_t row, const uint16_t* box, float* best) {
  const int64_t d = t.head_size;
  F32x16 sums[R];
  for (int r = 0; r < R; ++r) sums[r] = Zero();
  for (int64_t i = 0; i < 2 * d; i += 16) {
    const F32x16 x = LoadBf16(box + i);
    for (int r = 0; r < R; ++r) sums[r] = Fma(Load(t.q_wide + (row + r) * 2 * d + i), x, sums[r]);
  }
  for (int r = 0; r < R; ++r) {
    const float score = ReduceAdd(sums[r]) * t.scale;
    *best = score > *best ? score : *best;
  }
}

void ScoreBoxes(const DigestBlock& t) {
  const int64_t box_bytes = t.head_size * 4;
  for (int64_t i = 0; i < t.tile_count; ++i) {
    float* out = t.out + i * 64;
    for (int64_t box = 0; box < 64 / kBoxSlots; ++box) {
      const uint8_t* numbers = t.tiles[i] + kDigestHeader + box * box_bytes;
      FetchDigest(t, i + kTilesAhead, box * box_bytes, (box + 1) * box_bytes);
      float best = -__builtin_inff();
      int64_t row = 0;
      for (; row + 4 <= t.rows; row += 4)
        ScoreBox<4>(t, row, reinterpret_cast<const uint16_t*>(numbers), &best);
      for (; row < t.rows; ++row) ScoreBox<1>(t, row, reinterpret_cast<const uint16_t*>(numbers), &best);
      for (int64_t s = 0; s < kBoxSlots; s += 16) Store(out + box * kBoxSlots + s, Set1(best));
    }
    KeepSlots(SlotsOf(t.tiles[i], t.counts[i]), out);
  }
}

}  // namespace
