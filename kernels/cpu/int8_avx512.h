// The int8 class: activations as unsigned bytes (value + 128) and weights as signed bytes, both scaled per
// group of 64 inputs, multiplied by vpdpbusd. The 128 is taken back by starting each group's sums at -128
// times the weights' sum.
#pragma once

#include "kernels/cpu/kernels_impl.h"

namespace {

constexpr int kGroup = 64;  // inputs with one scale

// One group: sums[MR][4 vectors] of 64 inputs, exact in int32, then scaled into the float tile.
template <int MR, int NV>
inline void MultiplyGroup(const GemmBlock& g, int64_t row, int64_t group, int64_t first, bool begin,
                          float (*tile)[64]) {
  const int64_t groups = g.k / kGroup;
  const int8_t* b = g.b8 + (group * kGroup / 4 * 64 + g.column + first) * 4;
  const uint8_t* a = g.a8 + row * g.k + group * kGroup;
  __m512i c[MR][NV];
  for (int v = 0; v < NV; ++v) {
    const __m512i start = _mm512_loadu_si512(g.b_sums + group * 64 + g.column + first + v * 16);
    for (int r = 0; r < MR; ++r) c[r][v] = start;
  }
  for (int quad = 0; quad < kGroup / 4; ++quad) {
    __m512i w[NV];
    for (int v = 0; v < NV; ++v) w[v] = _mm512_loadu_si512(b + v * 64);
    if (g.stream) {
      for (int v = 0; v < NV; ++v) PrefetchStream(b + 4096 + v * 64);
    }
    for (int r = 0; r < MR; ++r) {
      int32_t four;
      __builtin_memcpy(&four, a + r * g.k + quad * 4, 4);
      const __m512i x = _mm512_set1_epi32(four);
      for (int v = 0; v < NV; ++v) c[r][v] = _mm512_dpbusd_epi32(c[r][v], x, w[v]);
    }
    b += 256;
  }
  for (int v = 0; v < NV; ++v) {
    const __m512 scale = _mm512_loadu_ps(g.b_scales + group * 64 + g.column + first + v * 16);
    for (int r = 0; r < MR; ++r) {
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(g.a_scales[(row + r) * groups + group]));
      const __m512 before = begin ? _mm512_setzero_ps() : _mm512_load_ps(tile[r] + v * 16);
      _mm512_store_ps(tile[r] + v * 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(c[r][v]), both, before));
    }
  }
}

template <int MR, int NV>
inline void GemmInt8Rows(const GemmBlock& g, int64_t row) {
  alignas(64) float tile[MR][64];
  for (int64_t first = 0; first < g.columns; first += NV * 16) {
    for (int64_t group = 0; group < g.k / kGroup; ++group) {
      MultiplyGroup<MR, NV>(g, row, group, first, group == 0, tile);
    }
    for (int r = 0; r < MR; ++r) {
      F32x16 c[NV];
      for (int v = 0; v < NV; ++v) c[v] = _mm512_load_ps(tile[r] + v * 16);
      StoreRow<NV>(g, row + r, first, c);
    }
  }
}

template <int NV>
inline void GemmInt8AllRows(const GemmBlock& g) {
  int64_t row = 0;
  for (; row + 6 <= g.rows; row += 6) GemmInt8Rows<6, NV>(g, row);
  for (; row + 3 <= g.rows; row += 3) GemmInt8Rows<3, NV>(g, row);
  for (; row < g.rows; ++row) GemmInt8Rows<1, NV>(g, row);
}

void GemmInt8(const GemmBlock& g) {
  if (g.columns == 64) return GemmInt8AllRows<4>(g);
  GemmInt8AllRows<2>(g);
}

void QuantizeRow(const uint16_t* x, int64_t k, uint8_t* out, float* scales) {
  for (int64_t group = 0; group < k / kGroup; ++group) {
    F32x16 v[4];
    F32x16 top = Zero();
    for (int i = 0; i < 4; ++i) {
      v[i] = LoadBf16(x + group * kGroup + i * 16);
      top = Max(top, _mm512_abs_ps(v[i]));
    }
    const float largest = ReduceMax(top);
    scales[group] = largest / 127.0f;
    const F32x16 inverse = Set1(largest > 0 ? 127.0f / largest : 0.0f);
    for (int i = 0; i < 4; ++i) {
      const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(Mul(v[i], inverse)), _mm512_set1_epi32(128));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + group * kGroup + i * 16), _mm512_cvtepi32_epi8(q));
    }
  }
}

void PeakInt8(int64_t rounds) {
  constexpr int MR = 6, NV = 4;  // 24 sums, nested like the product's: they stay in registers
  __m512i c[MR][NV];
  for (int r = 0; r < MR; ++r) {
    for (int v = 0; v < NV; ++v) c[r][v] = _mm512_set1_epi32(r + v);
  }
  const __m512i x = _mm512_set1_epi32(0x01020304), w = _mm512_set1_epi32(0x01ff01ff);
  for (int64_t i = 0; i < rounds * 16; ++i) {
    for (int r = 0; r < MR; ++r) {
      for (int v = 0; v < NV; ++v) c[r][v] = _mm512_dpbusd_epi32(c[r][v], x, w);
    }
  }
  __m512i sum = _mm512_setzero_si512();
  for (int r = 0; r < MR; ++r) {
    for (int v = 0; v < NV; ++v) sum = _mm512_add_epi32(sum, c[r][v]);
  }
  volatile int keep = _mm512_reduce_add_epi32(sum);
  (void)keep;
}

}  // namespace
