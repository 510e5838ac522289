// The kernels, written once over the sixteen-float vector of a simd_*.h that is included before this file.
// Everything is in an unnamed namespace: each instruction set compiles its own copy.
#pragma once

#include "kernels/cpu/isa_kernels.h"

namespace {

using palimpsest::cpu::AttendBlock;
using palimpsest::cpu::GemmBlock;
using palimpsest::cpu::kEmptyMax;

constexpr float kLog2E = 1.44269504088896340736f;

// c[MR][NV] += rows of A times columns of one panel, in the order of k whatever MR and NV are: a row's bits
// do not depend on its neighbours. b is at the first of NV * 16 columns of a panel 64 wide. When b comes from
// memory (kStream), what lies `ahead` elements further is fetched meanwhile.
template <int MR, int NV, bool kStream>
inline void MultiplyTile(const Left* a, int64_t lda, const uint16_t* b, int64_t pairs, int64_t ahead,
                         F32x16 (&c)[MR][NV]) {
  for (int64_t p = 0; p < pairs; ++p) {
    if constexpr (kStream) {
      for (int v = 0; v < NV; ++v) PrefetchStream(b + ahead + v * 32);
    }
    MultiplyPair(a + 2 * p, lda, b, c);
    b += 128;
  }
}
constexpr int64_t kWeightsAhead = 2048;  // 4 KiB

inline F32x16 Sigmoid(F32x16 x) { return Div(Set1(1.0f), Add(Set1(1.0f), Exp2(Mul(Neg(x), Set1(kLog2E))))); }

// 2^x is defined for x <= 1 only where scalef is not; silu of large negative x needs 2^(+large): bounded
// here.
inline F32x16 Silu(F32x16 x) {
  const F32x16 bounded = Max(x, Set1(-80.0f));  // silu(-80) is -1e-33: below bf16's use
  return Mul(bounded, Sigmoid(bounded));
}

// One row of 16 * NV finished sums to its output. `c` holds NV vectors.
template <int NV>
inline void StoreRow(const GemmBlock& g, int64_t row, int64_t first, const F32x16* c) {
  if (g.output == 2) {
    for (int v = 0; v + 1 < NV && first + v * 16 < g.valid_columns; v += 2) {  // n is a multiple of 32
      StoreBf16(g.gated + row * g.ldg + first / 2 + v * 8, Mul(Silu(c[v]), c[v + 1]));
    }
    return;
  }
  float* out = g.out + row * g.ldo + first;
  if (first + 16 * NV <= g.valid_columns) {
    for (int v = 0; v < NV; ++v) Store(out + v * 16, g.output == 1 ? Add(Load(out + v * 16), c[v]) : c[v]);
    return;
  }
  float edge[16 * NV];
  for (int v = 0; v < NV; ++v) Store(edge + v * 16, c[v]);
  for (int64_t i = 0; first + i < g.valid_columns; ++i) out[i] = g.output == 1 ? out[i] + edge[i] : edge[i];
}

// MR rows of A against `columns` columns, NV vectors at a time; silu-gate needs pairs of vectors together.
template <int MR, int kMost, bool kStream>
inline void GemmRows(const GemmBlock& g, int64_t row) {
  constexpr int NV = kVectors<MR> < kMost ? kVectors<MR> : kMost, kTogether = NV < 2 ? 2 : NV;
  const Left* a = LeftOf(g.a, g.a_wide);
  const int64_t lda = g.a_wide == nullptr ? g.lda : g.k;
  for (int64_t first = 0; first < g.columns; first += 16 * kTogether) {
    F32x16 sums[MR][kTogether];
    for (int part = 0; part < kTogether; part += NV) {
      F32x16 c[MR][NV];
      for (int r = 0; r < MR; ++r) {
        for (int v = 0; v < NV; ++v) c[r][v] = Zero();
      }
      const uint16_t* b = g.b + (g.column + first + part * 16) * 2;
      MultiplyTile<MR, NV, kStream>(a + row * lda, lda, b, g.k / 2, kWeightsAhead, c);
      for (int r = 0; r < MR; ++r) {
        for (int v = 0; v < NV; ++v) sums[r][part + v] = c[r][v];
      }
    }
    for (int r = 0; r < MR; ++r) StoreRow<kTogether>(g, row + r, first, sums[r]);
  }
}

template <int kMost, bool kStream>
inline void GemmAllRows(const GemmBlock& g) {
  int64_t row = 0;
  for (; row + kGemmRows <= g.rows; row += kGemmRows) GemmRows<kGemmRows, kMost, kStream>(g, row);
  if constexpr (kGemmRows > 3) {
    for (; row + 3 <= g.rows; row += 3) GemmRows<3, kMost, kStream>(g, row);
  }
  for (; row < g.rows; ++row) GemmRows<1, kMost, kStream>(g, row);
}

void GemmBf16(const GemmBlock& g) {
  if (g.columns == 64 && g.stream) return GemmAllRows<4, true>(g);
  if (g.columns == 64) return GemmAllRows<4, false>(g);
  if (g.stream) return GemmAllRows<2, true>(g);
  return GemmAllRows<2, false>(g);
}

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t n, uint16_t* out) {
  F32x16 squares = Zero();
  for (int64_t i = 0; i < n; i += 16) squares = Fma(Load(x + i), Load(x + i), squares);
  const float scale = 1.0f / __builtin_sqrtf(ReduceAdd(squares) / static_cast<float>(n) + epsilon);
  const F32x16 s = Set1(scale);
  for (int64_t i = 0; i < n; i += 16) StoreBf16(out + i, Mul(Mul(Load(x + i), s), Load(weight + i)));
}

void Rotate(const float* x, const float* rope, int64_t head_size, uint16_t* out) {
  for (int64_t i = 0; i < head_size; i += 16) {
    const F32x16 v = Load(x + i);
    StoreBf16(out + i, Fma(SwapPairs(v), Load(rope + head_size + i), Mul(v, Load(rope + i))));
  }
}

void Round(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += 16) StoreBf16(out + i, Load(x + i));
}

void Widen(const uint16_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) Store(out + i, LoadBf16(x + i));
}

// Scores of MR rows of queries against the 64 keys of a tile.
template <int MR, bool kStream>
inline void MultiplyKeys(const Left* q, const uint16_t* k, int64_t head_size, int64_t ahead,
                         float (&scores)[MR][64]) {
  constexpr int NV = kVectors<MR>;
  for (int part = 0; part < 4; part += NV) {
    F32x16 c[MR][NV];
    for (int r = 0; r < MR; ++r) {
      for (int i = 0; i < NV; ++i) c[r][i] = Zero();
    }
    MultiplyTile<MR, NV, kStream>(q, head_size, k + part * 32, head_size / 2, ahead, c);
    for (int r = 0; r < MR; ++r) {
      for (int i = 0; i < NV; ++i) Store(scores[r] + (part + i) * 16, c[r][i]);
    }
  }
}

inline int32_t VisibleUpTo(int64_t position) {
  return position < 0x7ffffffe ? static_cast<int32_t>(position) : 0x7ffffffe;
}

// Positions of a tile's slots; those that hold nothing or were dropped get one that nobody reaches.
inline void VisiblePositions(const int32_t* slots, int32_t start, int32_t count, int32_t (&visible)[64]) {
  for (int32_t i = 0; i < 64; ++i) visible[i] = i >= start && i < count ? slots[i] : 0x7fffffff;
}

// Scores of MR rows against a tile, softmax update, product with V. Rows see slots whose position is <=
// theirs.
// `ahead`: elements from this tile to the next one, which few rows fetch meanwhile (kStream): they are bound
// by memory.
// kKeep: the weights stay where the block says, as those of tile number `index`.
template <int MR, bool kStream, bool kKeep>
inline void AttendRows(const AttendBlock& t, int64_t row, int64_t index, int64_t ahead, bool masked) {
  const int32_t tile = t.tiles[index];
  const uint16_t* k = t.pool + tile * t.tile_elements;
  const uint16_t* v = k + t.head_size * 64;
  alignas(64) float scores[MR][64];
  constexpr int NV = kVectors<MR>;
  MultiplyKeys<MR, kStream>(LeftOf(t.q, t.q_wide) + row * t.head_size, k, t.head_size, ahead, scores);

  alignas(64) Left own[MR][64];  // where the block keeps none
  const int64_t stride = kKeep ? t.weights_stride : 64;
  Left* const weights = kKeep ? static_cast<Left*>(t.weights) + row * t.weights_stride + index * 64 : own[0];
  alignas(64) int32_t visible[64];
  if (masked) {
    VisiblePositions(t.slot_positions + int64_t{tile} * 64, t.starts[tile], t.counts[tile], visible);
  }
  for (int r = 0; r < MR; ++r) {
    F32x16 s[4];
    for (int i = 0; i < 4; ++i) s[i] = Load(scores[r] + i * 16);
    if (masked) {
      const int32_t limit = VisibleUpTo(t.positions[row + r]);
      for (int i = 0; i < 4; ++i) s[i] = KeepUpTo(s[i], visible + i * 16, limit);
    }
    float* m = t.m + row + r;
    float* l = t.l + (row + r) * 16;
    const float top = ReduceMax(Max(Max(s[0], s[1]), Max(s[2], s[3]))) * t.scale_log2;
    const float m_new = top > *m ? top : *m;
    const F32x16 shift = Set1(-m_new), scale = Set1(t.scale_log2);
    F32x16 sum = Load(l);
    if (m_new != *m) {  // when it stays, the factor would be exactly 1
      const F32x16 factor = Exp2(Set1(*m - m_new));
      sum = Mul(sum, factor);
      float* o = t.o + (row + r) * t.o_stride;
      for (int64_t i = 0; i < t.o_stride; i += 16) Store(o + i, Mul(Load(o + i), factor));
      *m = m_new;
    }
    for (int i = 0; i < 4; ++i) {
      const F32x16 p = Exp2(Fma(s[i], scale, shift));
      sum = Add(sum, p);
      StoreLeft(weights + r * stride + i * 16, p);
    }
    if constexpr (kKeep) t.tops[(row + r) * t.tops_stride + index] = m_new;
    Store(l, sum);
  }

  for (int64_t panel = 0; panel < t.o_stride; panel += 64) {
    for (int part = 0; part < 4; part += NV) {
      F32x16 c[MR][NV];
      float* o = t.o + row * t.o_stride + panel + part * 16;
      for (int r = 0; r < MR; ++r) {
        for (int i = 0; i < NV; ++i) c[r][i] = Load(o + r * t.o_stride + i * 16);
      }
      MultiplyTile<MR, NV, kStream>(weights, stride, v + panel * 64 + part * 32, 32, ahead, c);
      for (int r = 0; r < MR; ++r) {
        for (int i = 0; i < NV; ++i) Store(o + r * t.o_stride + i * 16, c[r][i]);
      }
    }
  }
}

enum class Visible { kNone, kSome, kAll };

// How much of a tile MR rows see, which is little work beside any product with it. Block: AttendBlock or
// ScoreBlock.
template <int MR, typename Block>
inline Visible VisibleOf(const Block& t, int64_t row, int32_t tile) {
  int64_t lowest = t.positions[row], highest = lowest;
  for (int r = 1; r < MR; ++r) {
    const int64_t p = t.positions[row + r];
    lowest = p < lowest ? p : lowest;
    highest = p > highest ? p : highest;
  }
  const int32_t count = t.counts[tile], start = t.starts[tile];
  const int32_t* slots = t.slot_positions + int64_t{tile} * 64;
  if (count <= start || slots[start] > highest) return Visible::kNone;
  return start > 0 || count < 64 || slots[count - 1] > lowest ? Visible::kSome : Visible::kAll;
}

template <int MR, bool kStream, bool kKeep>
inline void AttendGroup(const AttendBlock& t, int64_t row, int64_t index, int64_t ahead) {
  const Visible visible = VisibleOf<MR>(t, row, t.tiles[index]);
  if (visible == Visible::kNone) return;  // the state would not change
  AttendRows<MR, kStream, kKeep>(t, row, index, ahead, visible == Visible::kSome);
}

template <bool kStream, bool kKeep>
inline void AttendAllRows(const AttendBlock& t) {
  for (int64_t i = 0; i < t.tile_count; ++i) {
    const int64_t ahead = i + 1 < t.tile_count ? (int64_t{t.tiles[i + 1]} - t.tiles[i]) * t.tile_elements : 0;
    int64_t row = 0;
    for (; row + kGemmRows <= t.rows; row += kGemmRows) {
      AttendGroup<kGemmRows, kStream, kKeep>(t, row, i, ahead);
    }
    if constexpr (kGemmRows > 3) {
      for (; row + 3 <= t.rows; row += 3) AttendGroup<3, kStream, kKeep>(t, row, i, ahead);
    }
    for (; row < t.rows; ++row) AttendGroup<1, kStream, kKeep>(t, row, i, ahead);
  }
}

void Attend(const AttendBlock& t) {
  if (t.weights != nullptr) return AttendAllRows<false, true>(t);
  if (t.rows <= 12) return AttendAllRows<true, false>(t);
  AttendAllRows<false, false>(t);
}

// Of a pair of elements there are sixteen kinds, so that a run is a table and a look into it for each pair. A
// code times a step is exact: every instruction set has the same bits.
void DecodeTile(const uint8_t* coded, int64_t runs, uint16_t* out) {
  alignas(64) static constexpr float kEven[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
  alignas(64) static constexpr float kOdd[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const F32x16 even_codes = Load(kEven), odd_codes = Load(kOdd);
  for (int64_t r = 0; r < runs; ++r, coded += 24, out += 64) {
    F32x16 even_low, odd_low, even_step, odd_step;
    LoadPair(coded, even_low, odd_low);
    LoadPair(coded + 4, even_step, odd_step);
    LookUpPairs(Fma(even_codes, even_step, even_low), Fma(odd_codes, odd_step, odd_low), coded + 8, out);
  }
}

void Merge(int64_t rows, int64_t o_stride, float* m, float* l, float* o, const float* m_b, const float* l_b,
           const float* o_b) {
  for (int64_t r = 0; r < rows; ++r) {
    const float top = m[r] > m_b[r] ? m[r] : m_b[r];
    const F32x16 fa = Exp2(Set1(m[r] - top)), fb = Exp2(Set1(m_b[r] - top));
    m[r] = top;
    Store(l + r * 16, Fma(Load(l_b + r * 16), fb, Mul(Load(l + r * 16), fa)));
    float* a = o + r * o_stride;
    const float* b = o_b + r * o_stride;
    for (int64_t i = 0; i < o_stride; i += 16) Store(a + i, Fma(Load(b + i), fb, Mul(Load(a + i), fa)));
  }
}

void Finish(int64_t rows, int64_t head_size, const float* l, const float* o, int64_t o_stride,
            uint16_t* const* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const F32x16 scale = Set1(1.0f / ReduceAdd(Load(l + r * 16)));
    for (int64_t i = 0; i < head_size; i += 16) StoreBf16(out[r] + i, Mul(Load(o + r * o_stride + i), scale));
  }
}

void PeakBf16(int64_t rounds) {
  constexpr int MR = kGemmRows, NV = kVectors<MR>, kRepeat = 24 / (MR * NV);
  F32x16 c[MR][NV];
  for (int r = 0; r < MR; ++r) {
    for (int v = 0; v < NV; ++v) c[r][v] = Set1(static_cast<float>(r + v));
  }
  const F32x16 x = Set1(0.007f);
  for (int64_t i = 0; i < rounds * 16 * kRepeat; ++i) {
    for (int r = 0; r < MR; ++r) {
      for (int v = 0; v < NV; ++v) c[r][v] = PeakPair(c[r][v], x);
    }
  }
  F32x16 sum = Zero();
  for (int r = 0; r < MR; ++r) {
    for (int v = 0; v < NV; ++v) sum = Add(sum, c[r][v]);
  }
  volatile float keep = ReduceAdd(sum);
  (void)keep;
}

void ReadAll(const void* data, int64_t bytes) {
  const float* p = static_cast<const float*>(data);
  F32x16 sum[4] = {Zero(), Zero(), Zero(), Zero()};
  for (int64_t i = 0; i + 64 <= bytes / 4; i += 64) {
    PrefetchStream(p + i + 1024);
    PrefetchStream(p + i + 1040);
    PrefetchStream(p + i + 1056);
    PrefetchStream(p + i + 1072);
    for (int v = 0; v < 4; ++v) sum[v] = Add(sum[v], Load(p + i + v * 16));
  }
  volatile float keep = ReduceAdd(Add(Add(sum[0], sum[1]), Add(sum[2], sum[3])));
  (void)keep;
}

}  // namespace
