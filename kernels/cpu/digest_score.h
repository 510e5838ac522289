// What all scores of digests share, over the vectors of a simd_*.h that is included before this file. A row's
// score is its own whatever the rows beside it, and each slot keeps the best of all rows: neither the cut of
// rows nor that of tiles shows in the result.
#pragma once

#include "kernels/cpu/digest_build_impl.h"  // the layout

namespace {

using palimpsest::cpu::DigestBlock;

constexpr int64_t kTilesAhead = 4;  // fetched while a tile is worked on

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

// A store that waits for memory holds up all those behind it.
inline void FetchScores(const DigestBlock& t, int64_t tile) {
  if (tile >= t.tile_count) return;
  for (int64_t s = 0; s < 64; s += 16) PrefetchStream(t.out + tile * 64 + s);
}
inline void FetchDigest(const DigestBlock& t, int64_t tile, int64_t first, int64_t last) {
  if (tile >= t.tile_count) return;
  FetchScores(t, tile);
  for (int64_t i = first; i < last; i += 64) PrefetchStream(t.tiles[tile] + i);
}

}  // namespace
