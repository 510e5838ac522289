// Integers of 2-bit digests in plain loops: the same results as codes_avx2.h, which explains itself less.
#pragma once

#include <cstdint>

#include "kernels/cpu/codes.h"

namespace {

// x / 2^15 to the nearest, halves upward, of a product of two 16-bit numbers.
inline int16_t UpperHalf(int32_t x) { return static_cast<int16_t>((x + 0x4000) >> 15); }

inline int16_t Signed(uint8_t byte) { return static_cast<int16_t>((byte ^ 0x80) - 0x80); }

inline void OpenRun(const uint8_t* bytes, int64_t d, RunScales* out) {
  for (int64_t i = 0; i < d; ++i) {
    out->zeros[i] = Signed(bytes[i]);
    out->steps[i] = static_cast<int16_t>(bytes[d + i] << 7);
  }
}

// Queries of R rows for one run: out = q * steps in bytes of magnitude <= top, by the largest whole factor
// that keeps them there. Both products are taken 15 bits down, so that
//   unit * sum of q * (step_scale * step * code + zero_scale * zero) = factor * sum of out * code + constant.
template <int R>
inline void FoldQueries(const int16_t* q, const float* units, const RunScales& run, int64_t d, float top,
                        int8_t* out, float* factors, float* constants) {
  for (int r = 0; r < R; ++r, q += d, out += d) {
    int16_t products[256];
    int32_t largest = 0, dot = 0;
    for (int64_t i = 0; i < d; ++i) {
      products[i] = UpperHalf(q[i] * run.steps[i]);
      const int32_t magnitude = products[i] < 0 ? -products[i] : products[i];
      largest = magnitude > largest ? magnitude : largest;
      dot += q[i] * run.zeros[i];
    }
    constants[r] = units[r] * run.zero_scale * static_cast<float>(dot);
    const float ratio = largest > 0 ? top * 0x1p15f / static_cast<float>(largest) : 32767.0f;
    const int32_t whole = static_cast<int32_t>(ratio < 32767.0f ? ratio : 32767.0f);
    factors[r] = units[r] * (run.step_scale * 0x1p23f) / static_cast<float>(whole);
    for (int64_t i = 0; i < d; ++i) out[i] = static_cast<int8_t>(UpperHalf(products[i] * whole));
  }
}

// sums[r][slot] = sum over channels of code * q[r * d + channel], for the 32 slots of a run.
template <int R>
inline void MultiplyCodes(const uint8_t* codes, const int8_t* q, int64_t d, const uint8_t*,
                          int32_t (&sums)[R][32]) {
  for (int r = 0; r < R; ++r) {
    alignas(64) int16_t parts[4][32] = {};  // of each channel of the quads: added up at the end
    for (int64_t quad = 0; quad < d / 4; ++quad) {
      alignas(64) int16_t four[32];
      for (int i = 0; i < 32; ++i) four[i] = Signed(static_cast<uint8_t>(q[r * d + quad * 4 + i % 4]));
      for (int v = 0; v < 4; ++v) {
        for (int i = 0; i < 32; ++i) {
          parts[v][i] = static_cast<int16_t>(parts[v][i] + (codes[quad * 32 + i] >> 2 * v & 3) * four[i]);
        }
      }
    }
    for (int slot = 0; slot < 32; ++slot) {
      sums[r][slot] = 0;
      for (int e = 0; e < 4; ++e) sums[r][slot] += parts[slot / 8][slot % 8 * 4 + e];
    }
  }
}

}  // namespace
