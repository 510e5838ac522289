// Digests of rotated keys, over the vectors of a simd_*.h that is included before this file. No multiply-add
// is fused: equal keys give equal digests on all instruction sets.
#pragma once

#include "kernels/cpu/kernels_impl.h"

namespace {

using palimpsest::cpu::DigestKeys;
using palimpsest::cpu::kBoxSlots;
using palimpsest::cpu::kDigestHeader;
using palimpsest::cpu::kRunSlots;

inline F32x16 Min(F32x16 a, F32x16 b) { return Neg(Max(Neg(a), Neg(b))); }
inline bool TakesPart(const DigestKeys& t, int64_t slot) {
  return slot < t.rows && (t.slots >> slot & 1) != 0;
}

// Least and greatest of each of 16 channels from `channel`, over the slots [first, first + count) that take
// part; false if none does.
inline bool RangeOf(const DigestKeys& t, int64_t first, int64_t count, int64_t channel, F32x16* least,
                    F32x16* greatest) {
  bool any = false;
  for (int64_t s = first; s < first + count; ++s) {
    if (!TakesPart(t, s)) continue;
    const F32x16 x = LoadBf16(t.keys + s * t.head_size + channel);
    *least = any ? Min(*least, x) : x;
    *greatest = any ? Max(*greatest, x) : x;
    any = true;
  }
  return any;
}

// The least bf16 that is not less than x >= 0.
inline float CeilBf16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  bits = (bits + 0xffff) & 0xffff0000u;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
inline void PutBf16(float x, uint8_t* out) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint16_t half = static_cast<uint16_t>(bits >> 16);
  __builtin_memcpy(out, &half, 2);
}

// x[i] / scale as whole numbers of magnitude <= most; a scale of 0 stands for numbers that are all 0.
inline int32_t Whole(float x, float scale, float most) {
  const float whole = __builtin_nearbyintf(scale > 0 ? x / scale : 0.0f);
  return static_cast<int32_t>(whole > most ? most : whole < -most ? -most : whole);
}

// The scales of one run: zero is the least key of a channel, step a third of its range, each rounded to a
// byte of the largest channel's. Measured against steps that lessen the squared error (a search of narrower
// ranges, refits of zero and step): a third less error, yet on a model's keys 0.905 instead of 0.917 of the
// 32 best tokens among the 64 best found, because the best keys are the extremes that such steps clip.
struct BuiltScales {
  alignas(64) float zero[256], step[256];  // as they are read back
};

inline void ScaleRun(const DigestKeys& t, int64_t run, uint8_t* zeros, uint8_t* header, BuiltScales* out) {
  const int64_t d = t.head_size;
  float zero_top = 0, step_top = 0;
  for (int64_t i = 0; i < d; i += 16) {
    F32x16 least = Zero(), greatest = Zero();
    RangeOf(t, run * kRunSlots, kRunSlots, i, &least, &greatest);
    const F32x16 third = Set1(1.0f / 3);
    const F32x16 step = Add(Mul(greatest, third), Neg(Mul(least, third)));  // no overflow on the way
    Store(out->zero + i, least);
    Store(out->step + i, step);
    const float zero_here = ReduceMax(Max(least, Neg(least))), step_here = ReduceMax(step);
    zero_top = zero_here > zero_top ? zero_here : zero_top;
    step_top = step_here > step_top ? step_here : step_top;
  }
  const float zero_scale = CeilBf16(zero_top / 127), step_scale = CeilBf16(step_top / 255);
  PutBf16(zero_scale, header + 8 + run * 2);
  PutBf16(step_scale, header + 12 + run * 2);
  uint8_t* steps = zeros + d;
  for (int64_t i = 0; i < d; ++i) {
    const int32_t zero = Whole(out->zero[i], zero_scale, 127);
    int32_t step = Whole(out->step[i], step_scale, 255);
    if (step == 0 && out->step[i] > 0) step = 1;  // too coarse is better than none
    zeros[i] = static_cast<uint8_t>(zero);
    steps[i] = static_cast<uint8_t>(step);
    out->zero[i] = static_cast<float>(zero) * zero_scale;
    out->step[i] = static_cast<float>(step) * step_scale;
  }
}

// The nearest code of each channel of a slot, in the low bits of `codes`.
inline void CodesOf(const DigestKeys& t, int64_t slot, const BuiltScales& scales, const float* inverse,
                    float* codes) {
  const F32x16 whole = Set1(0x1.8p23f);  // adding it leaves whole numbers in the low bits
  for (int64_t i = 0; i < t.head_size; i += 16) {
    const F32x16 x = Add(LoadBf16(t.keys + slot * t.head_size + i), Neg(Load(scales.zero + i)));
    const F32x16 steps = Max(Mul(x, Load(inverse + i)), Zero());  // 0 if not a number
    Store(codes + i, Add(Min(steps, Set1(3.0f)), whole));
  }
}

inline void EncodeRun(const DigestKeys& t, int64_t run, const BuiltScales& scales, uint8_t* out) {
  const int64_t d = t.head_size;
  alignas(64) float inverse[256], codes[4][256];
  for (int64_t i = 0; i < d; ++i) inverse[i] = scales.step[i] > 0 ? 1.0f / scales.step[i] : 0.0f;
  for (int64_t lane = 0; lane < 8; ++lane) {
    alignas(64) uint32_t bytes[256] = {};
    for (int v = 0; v < 4; ++v) {
      const int64_t slot = run * kRunSlots + v * 8 + lane;
      if (!TakesPart(t, slot)) continue;
      CodesOf(t, slot, scales, inverse, codes[v]);
      alignas(64) uint32_t bits[256];
      __builtin_memcpy(bits, codes[v], static_cast<size_t>(d) * 4);
      for (int64_t i = 0; i < d; ++i) bytes[i] |= (bits[i] & 3) << 2 * v;
    }
    for (int64_t i = 0; i < d; ++i) out[i / 4 * 32 + lane * 4 + i % 4] = static_cast<uint8_t>(bytes[i]);
  }
}

void DigestQ2(const DigestKeys& t) {
  __builtin_memcpy(t.out, &t.slots, 8);
  for (int64_t run = 0; run < 64 / kRunSlots; ++run) {
    uint8_t* zeros = t.out + kDigestHeader + run * t.head_size * (2 + kRunSlots / 4);
    BuiltScales scales;
    ScaleRun(t, run, zeros, t.out, &scales);
    EncodeRun(t, run, scales, zeros + 2 * t.head_size);
  }
}

// The middle of a box and the mean distance of its keys from it.
inline void MiddleOf(const DigestKeys& t, int64_t first, int64_t channel, F32x16* a, F32x16* b) {
  const F32x16 half = Set1(0.5f), middle = Add(Mul(*a, half), Mul(*b, half));
  F32x16 distance = Zero();
  float keys = 0;
  for (int64_t s = first; s < first + kBoxSlots; ++s) {
    if (!TakesPart(t, s)) continue;
    const F32x16 x = Add(LoadBf16(t.keys + s * t.head_size + channel), Neg(middle));
    distance = Add(distance, Max(x, Neg(x)));
    ++keys;
  }
  *a = middle;
  *b = Mul(distance, Set1(1.0f / keys));
}

void DigestBoxes(const DigestKeys& t, bool minmax) {
  const int64_t d = t.head_size;
  const uint64_t header[2] = {t.slots, 0};
  __builtin_memcpy(t.out, header, 16);
  for (int64_t box = 0; box < 64 / kBoxSlots; ++box) {
    uint16_t* out = reinterpret_cast<uint16_t*>(t.out + kDigestHeader) + box * 2 * d;
    for (int64_t i = 0; i < d; i += 16) {
      F32x16 greatest = Zero(), least = Zero();
      const bool any = RangeOf(t, box * kBoxSlots, kBoxSlots, i, &least, &greatest);
      if (any && !minmax) MiddleOf(t, box * kBoxSlots, i, &greatest, &least);
      StoreBf16(out + i, greatest);
      StoreBf16(out + d + i, least);
    }
  }
}

}  // namespace
