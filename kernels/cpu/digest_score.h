// What all scores of digests share, over the vectors of a simd_*.h that is included before this file. A row's
// score is its own whatever the rows beside it, and each slot keeps the best of all rows: neither the cut of
// rows nor that of tiles shows in the result.
#pragma once

#include "kernels/cpu/digest_build_impl.h"  // the layout

namespace {

using palimpsest::cpu::DigestBlock;

constexpr int64_t kTilesAhead = 4;  // fetched while a tile is worked on

// Of the slots asked for, those that the digest holds.
inline uint64_t SlotsOf(const DigestBlock& t, int64_t tile) {
  uint64_t slots;
  __builtin_memcpy(&slots, t.tiles[tile], 8);
  return slots & t.slots[tile];
}
// The scores of a tile's 64 slots end as the best of each slice; a slot that takes no part never wins.
inline void KeepSlices(const DigestBlock& t, int64_t tile, uint64_t slots, float* scores) {
  if (~slots != 0) {
    for (int64_t s = 0; s < 64; ++s) scores[s] = slots >> s & 1 ? scores[s] : -__builtin_inff();
  }
  float* out = t.out + tile * (64 / t.slice);
  for (int64_t first = 0; t.slice >= 16 && first < 64; first += t.slice) {
    F32x16 best = Load(scores + first);
    for (int64_t s = 16; s < t.slice; s += 16) best = Max(best, Load(scores + first + s));
    *out++ = ReduceMax(best);
  }
  for (int64_t first = 0; t.slice < 16 && first < 64; first += t.slice) {
    float best = scores[first];
    for (int64_t s = 1; s < t.slice; ++s) best = scores[first + s] > best ? scores[first + s] : best;
    *out++ = best;
  }
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

inline void FetchDigest(const DigestBlock& t, int64_t tile, int64_t first, int64_t last) {
  if (tile >= t.tile_count) return;
  for (int64_t i = first; i < last; i += 64) PrefetchStream(t.tiles[tile] + i);
}

}  // namespace
