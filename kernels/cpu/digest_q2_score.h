// Scores of 2-bit digests, tile by tile; FoldedTile, FoldTile and ScoreTile come from a digest_q2_*.h that
// includes this file.
//
// Queries meet a run of slots as q times the run's steps, in bytes with one factor for all channels, so that
// all sums are integers, exact in any order and equal on all instruction sets:
//   score = factor * sum of q * code + constant
#pragma once

#include "kernels/cpu/digest_score.h"

namespace {

constexpr float kCodeQueryTop = 85;  // largest magnitude of those bytes
constexpr int64_t kFoldRows = 24;    // rows folded at once: a multiple of 4
// So many tiles stay in the cache for all rows.
constexpr int64_t kTilesTogether = 64;

inline int64_t RunBytes(const DigestBlock& t) { return t.head_size * (2 + kRunSlots / 4); }
inline const uint8_t* RunOf(const DigestBlock& t, int64_t tile, int64_t run) {
  return t.tiles[tile] + kDigestHeader + run * RunBytes(t);
}

// Rows [row, row + rows) against tiles [first, last), whose slots have `scores`. Folding is a chain of few
// operations, products are many that wait for none: the next tile is folded before this one is multiplied, so
// that the processor does both.
template <typename FoldedTile>
inline void ScoreRows(const DigestBlock& t, int64_t row, int64_t rows, int64_t first, int64_t last,
                      float* scores, FoldedTile (&folded)[2]) {
  FoldTile(t, row, rows, first, folded + first % 2);
  for (int64_t i = first; i < last; ++i) {
    if (i + 1 < last) FoldTile(t, row, rows, i + 1, folded + (i + 1) % 2);
    float* best = scores + (i - first) * 64;
    if (row == 0) ClearBest(best);
    ScoreTile(t, rows, i, folded[i % 2], best);
    if (row + rows == t.rows) KeepSlices(t, i, SlotsOf(t, i), best);
  }
}

template <typename FoldedTile>
inline void ScoreTiles(const DigestBlock& t) {
  FoldedTile folded[2];
  alignas(64) float scores[kTilesTogether * 64];
  if (t.rows == 0) {
    for (int64_t i = 0; i < t.tile_count; ++i) KeepSlices(t, i, 0, scores);
  }
  for (int64_t first = 0; first < t.tile_count; first += kTilesTogether) {
    const int64_t last = first + kTilesTogether < t.tile_count ? first + kTilesTogether : t.tile_count;
    for (int64_t row = 0; row < t.rows; row += kFoldRows) {
      ScoreRows(t, row, t.rows - row < kFoldRows ? t.rows - row : kFoldRows, first, last, scores, folded);
    }
  }
}

}  // namespace
