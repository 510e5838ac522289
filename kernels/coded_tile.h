// A tile in 2 bits, a fifth of its bytes: 64 tokens of one layer and KV head, their numbers in groups of 32
// that share a lowest number and a step. A token that is written so stays so: the exact one goes.
//
// Layout : the tile's elements (kernels/ops.h) in their order, in runs of 64. A run's even elements are one
//          group and its odd ones another, which is of K one channel of 32 tokens and of V 32 channels of
//          one token.
// Numbers: a number comes back as bf16(low + code * step). low is the group's lowest, step a third of its
//          span rounded to bf16; so it is off by at most step / 2, and 2^-8 of itself for the last rounding.
//          Equal numbers come back as they were. A group with a number that is not finite comes back as NaN.
// Padding: channels beyond the head size take part in no group; what comes back for them is finite.
// Source : Liu et al. 2024 (KIVI), arXiv 2402.02750: keys by channel, values by token, both after rotation.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace palimpsest {

struct CodedRun {
  Bf16 low[2], step[2];  // of the even elements, of the odd ones
  uint8_t codes[16];     // byte i: of elements 2i, 2i + 1, 32 + 2i and 33 + 2i, from its lowest bits up
};
inline constexpr int64_t kCodedRunElements = 64;
static_assert(sizeof(CodedRun) == 24);

// How many stand where one tile in bf16 would.
inline constexpr int64_t kCodedPerTile = kCodedRunElements * sizeof(Bf16) / sizeof(CodedRun);

// Part `part` < kCodedPerTile of a tile of the pool.
struct CodedTile {
  int32_t tile, part;
};

}  // namespace palimpsest
