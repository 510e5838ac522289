// Scores of 2-bit digests, run by run, over the integers of a codes_*.h that is included before this file.
#pragma once

#include "kernels/cpu/digest_q2_score.h"

namespace {

static_assert(64 * 2 * 3 * kCodeQueryTop <= 0x7fff);  // 64 quads of 2 channels stay within 16 bits

struct FoldedRun {
  alignas(64) int8_t q[kFoldRows * 256];  // (rows, head_size)
  float factors[kFoldRows], constants[kFoldRows];
};
struct FoldedTile {
  FoldedRun runs[2];
};

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
  return t.slots[tile] == 0 ? 0 : t.slots[tile] >> kRunSlots == 0 ? 1 : 2;
}

inline void FoldTile(const DigestBlock& t, int64_t row, int64_t rows, int64_t tile, FoldedTile* out) {
  for (int64_t run = 0; run < RunsOf(t, tile); ++run) {
    if (t.head_size == 64) {
      FoldRun(t, row, rows, 64, tile, run, out->runs + run);
    } else if (t.head_size == 128) {
      FoldRun(t, row, rows, 128, tile, run, out->runs + run);
    } else {
      FoldRun(t, row, rows, t.head_size, tile, run, out->runs + run);
    }
  }
}

inline void ScoreTile(const DigestBlock& t, int64_t rows, int64_t tile, const FoldedTile& folded,
                      float* scores) {
  const int64_t d = t.head_size;
  for (int64_t run = 0; run < RunsOf(t, tile); ++run) {
    const uint8_t* codes = RunOf(t, tile, run) + 2 * d;
    const uint8_t* ahead =
        RunOf(t, tile + kTilesAhead < t.tile_count ? tile + kTilesAhead : tile, run) + 2 * d;
    FetchDigest(t, tile + kTilesAhead, run * RunBytes(t), kDigestHeader + run * RunBytes(t) + 2 * d);
    float* out = scores + run * kRunSlots;
    int64_t row = 0;
    for (; rows - row >= 3 && rows - row != 4; row += 3)
      ScoreRun<3>(folded.runs[run], row, d, codes, ahead, out);
    for (; rows - row >= 2; row += 2) ScoreRun<2>(folded.runs[run], row, d, codes, ahead, out);
    if (rows - row == 1) ScoreRun<1>(folded.runs[run], row, d, codes, ahead, out);
  }
}

void ScoreQ2(const DigestBlock& t) { ScoreTiles<FoldedTile>(t); }

}  // namespace
