// The kernels that compression adds, over the sixteen-float vector of a simd_*.h that is included before this
// file: weights of keys without values, and sums of exponentials.
#pragma once

#include "kernels/cpu/kernels_impl.h"

namespace {

using palimpsest::cpu::ColumnBlock;
using palimpsest::cpu::MatchBlock;
using palimpsest::cpu::ScoreBlock;

// Max takes its second operand when the first is not a number.
inline F32x16 OrUnseen(F32x16 score) { return Max(score, Set1(-__builtin_inff())); }

// First pass: one row's maximum and sum of weights take in the scores of a tile.
inline void AddToSums(const ScoreBlock& t, int64_t row, const F32x16 (&s)[4]) {
  float* m = t.m + row;
  float* l = t.l + row * 16;
  const float top = ReduceMax(Max(Max(s[0], s[1]), Max(s[2], s[3]))) * t.scale_log2;
  F32x16 sum = Load(l);
  if (top > *m) {
    sum = Mul(sum, Exp2(Set1(*m - top)));
    *m = top;
  }
  const F32x16 shift = Set1(-*m), scale = Set1(t.scale_log2);
  for (int i = 0; i < 4; ++i) sum = Add(sum, Exp2(Fma(s[i], scale, shift)));
  Store(l, sum);
}

// Second pass: one row's weights of a tile join those of the rows before it.
inline void AddToWeights(const ScoreBlock& t, int64_t row, const F32x16 (&s)[4], float* out) {
  const F32x16 shift = Set1(-t.m[row]), scale = Set1(t.scale_log2), inverse = Set1(t.inverse[row]);
  for (int i = 0; i < 4; ++i) {
    const F32x16 p = Exp2(Fma(s[i], scale, shift)), before = Load(out + i * 16);
    Store(out + i * 16, t.largest ? Max(Mul(p, inverse), before) : Fma(p, inverse, before));
  }
}

template <int MR, bool kWeights>
inline void ScoreRows(const ScoreBlock& t, int64_t row, int64_t tile_index) {
  const int32_t tile = t.tiles[tile_index];
  const Visible seen = VisibleOf<MR>(t, row, tile);
  if (seen == Visible::kNone) return;
  alignas(64) float scores[MR][64];
  MultiplyKeys<MR, false>(LeftOf(t.q, t.q_wide) + row * t.head_size, t.pool + tile * t.tile_elements,
                          t.head_size, 0, scores);

  alignas(64) int32_t visible[64];
  if (seen == Visible::kSome) {
    VisiblePositions(t.slot_positions + int64_t{tile} * 64, t.starts[tile], t.counts[tile], visible);
  }
  for (int r = 0; r < MR; ++r) {
    F32x16 s[4];
    for (int i = 0; i < 4; ++i) s[i] = OrUnseen(Load(scores[r] + i * 16));
    if (seen == Visible::kSome) {
      const int32_t limit = VisibleUpTo(t.positions[row + r]);
      for (int i = 0; i < 4; ++i) s[i] = KeepUpTo(s[i], visible + i * 16, limit);
    }
    if constexpr (kWeights) {
      AddToWeights(t, row + r, s, t.out + (row + r) / t.tokens * t.out_stride + tile_index * 64);
    } else {
      AddToSums(t, row + r, s);
    }
  }
}

template <bool kWeights>
inline void ScoreTiles(const ScoreBlock& t) {
  for (int64_t i = 0; i < t.tile_count; ++i) {
    int64_t row = 0;
    for (; row + kGemmRows <= t.rows; row += kGemmRows) ScoreRows<kGemmRows, kWeights>(t, row, i);
    if constexpr (kGemmRows > 3) {
      for (; row + 3 <= t.rows; row += 3) ScoreRows<3, kWeights>(t, row, i);
    }
    for (; row < t.rows; ++row) ScoreRows<1, kWeights>(t, row, i);
  }
}

void Factors(float* tops, int64_t count, float m, float inverse) {
  for (int64_t i = 0; i < count; i += 16) {
    Store(tops + i, Mul(Exp2(Add(Load(tops + i), Set1(-m))), Set1(inverse)));
  }
}

inline F32x16 LoadKept(const Left* p) {
  if constexpr (sizeof(Left) == sizeof(float)) {
    return Load(reinterpret_cast<const float*>(p));
  } else {
    return LoadBf16(reinterpret_cast<const uint16_t*>(p));
  }
}

// One tile's columns stay in registers while all rows join.
template <bool kSquares>
inline void SumTile(const ColumnBlock& c, int64_t tile) {
  F32x16 sums[4], squares[4];
  for (int i = 0; i < 4; ++i) {
    sums[i] = Load(c.sums + tile * 64 + i * 16);
    if constexpr (kSquares) squares[i] = Load(c.squares + tile * 64 + i * 16);
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    const float factor = c.factors[r * c.factors_stride + tile];
    if (factor == 0) continue;  // what is there may be anything
    const Left* const weights = static_cast<const Left*>(c.weights) + r * c.weights_stride + tile * 64;
    for (int i = 0; i < 4; ++i) {
      if constexpr (kSquares) {
        const F32x16 w = Mul(LoadKept(weights + i * 16), Set1(factor));
        sums[i] = Add(w, sums[i]);
        squares[i] = Fma(w, w, squares[i]);
      } else {
        sums[i] = Fma(LoadKept(weights + i * 16), Set1(factor), sums[i]);
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    Store(c.sums + tile * 64 + i * 16, sums[i]);
    if constexpr (kSquares) Store(c.squares + tile * 64 + i * 16, squares[i]);
  }
}

void SumColumns(const ColumnBlock& c) {
  for (int64_t tile = 0; tile < c.tiles; ++tile) {
    c.squares != nullptr ? SumTile<true>(c, tile) : SumTile<false>(c, tile);
  }
}

template <int MR>
inline void MatchRows(const MatchBlock& t, int64_t row) {
  alignas(64) float scores[MR][64];
  MultiplyKeys<MR, false>(LeftOf(t.q, t.q_wide) + row * t.head_size, t.panel, t.head_size, 0, scores);
  for (int r = 0; r < MR; ++r) {
    F32x16 s[4];
    for (int i = 0; i < 4; ++i) {
      s[i] = Fma(Load(scores[r] + i * 16), Load(t.inverse + i * 16), Load(t.bias + i * 16));
    }
    const float top = ReduceMax(Max(Max(s[0], s[1]), Max(s[2], s[3])));
    if (!(top > t.best[row + r])) continue;  // seldom after the first tiles
    t.best[row + r] = top;
    for (int i = 0; i < 4; ++i) Store(scores[r] + i * 16, s[i]);
    int32_t first = 0;
    while (scores[r][first] != top) ++first;
    t.index[row + r] = t.first + first;
  }
}

void Match(const MatchBlock& t) {
  int64_t row = 0;
  for (; row + kGemmRows <= t.rows; row += kGemmRows) MatchRows<kGemmRows>(t, row);
  for (; row < t.rows; ++row) MatchRows<1>(t, row);
}

void ScoreSums(const ScoreBlock& t) { ScoreTiles<false>(t); }
void ScoreWeights(const ScoreBlock& t) { ScoreTiles<true>(t); }

// 64 numbers at a time in four chains; the rest is filled up with what adds nothing.
template <typename F>
inline void EachOfFour(const float* x, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int v = 0; v < 4; ++v) f(v, Load(x + i + v * 16));
  }
  if (i == n) return;
  alignas(64) float rest[64];
  for (int64_t j = 0; j < 64; ++j) rest[j] = i + j < n ? x[i + j] : -__builtin_inff();
  for (int v = 0; v < 4; ++v) f(v, Load(rest + v * 16));
}

void SumExp(const float* x, int64_t n, float* largest, float* sum) {
  F32x16 top[4], sums[4];
  for (int v = 0; v < 4; ++v) {
    top[v] = Set1(-__builtin_inff());
    sums[v] = Zero();
  }
  EachOfFour(x, n, [&](int v, F32x16 numbers) { top[v] = Max(numbers, top[v]); });
  *largest = ReduceMax(Max(Max(top[0], top[1]), Max(top[2], top[3])));
  const F32x16 shift = Set1(-*largest), log2_e = Set1(kLog2E);
  EachOfFour(x, n,
             [&](int v, F32x16 numbers) { sums[v] = Add(sums[v], Exp2(Mul(Add(numbers, shift), log2_e))); });
  *sum = ReduceAdd(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

}  // namespace
