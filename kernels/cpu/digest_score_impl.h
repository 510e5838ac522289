// Scores of exact keys and of boxes, over the vectors of a simd_*.h that is included before this file.
#pragma once

#include "kernels/cpu/digest_score.h"
#include "kernels/cpu/kernels_impl.h"

namespace {

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
    alignas(64) float out[64];
    ClearBest(out);
    int64_t row = 0;
    for (; row + kGemmRows <= t.rows; row += kGemmRows) {
      ScoreExactRows<kGemmRows, kStream>(t, row, keys, ahead, out);
    }
    if constexpr (kGemmRows > 3) {
      for (; row + 3 <= t.rows; row += 3) ScoreExactRows<3, kStream>(t, row, keys, ahead, out);
    }
    for (; row < t.rows; ++row) ScoreExactRows<1, kStream>(t, row, keys, ahead, out);
    KeepSlices(t, i, t.slots[i], out);
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
    alignas(64) float out[64];
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
    KeepSlices(t, i, SlotsOf(t, i), out);
  }
}

}  // namespace
