// Digests: what is kept of a tile's keys so that queries can rank its tokens without reading them.
//
// Shapes : one digest of the 64 slots of one layer and KV head, D channels; all numbers little-endian.
//   q2       u64 slots that hold a key of finite numbers, bf16 zero scale (2 runs), bf16 step scale (2 runs);
//            then for each run of 32 slots: i8 zero (D), u8 step (D), codes (D/4, 8, 4 channels): a byte
//            holds the codes of slots j, 8 + j, 16 + j and 24 + j of its run, from the low bits up. key ~
//            zero scale * zero + step scale * step * code
//   exact    bf16 (D/2, 64, 2), as a tile's K
//   minmax   u64 slots as above, 8 zeros, then for each box of 16 slots: bf16 largest (D), smallest (D)
//   boxmean  the same with the middle c (D) and the mean distance r from it (D)
// Why 2 bits: measured on SmolLM2-135M at 4,096 tokens, keys of 2 bits hold 0.92 of the 32 best tokens within
//            their 64 best, bounds of boxes of 16 slots, nearly as large, 0.18. Bounds are kept to compare
//            with.
// Source : minmax: Tang et al. 2024 (Quest); boxmean: Chen et al. 2024 (ArkVale).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest {

enum class DigestKind { kQ2, kExact, kMinMax, kBoxMean };

inline constexpr int64_t kDigestRunSlots = 32;  // q2: slots that share a channel's zero and step
inline constexpr int64_t kDigestBoxSlots = 16;  // minmax, boxmean

// "q2" | "exact" | "minmax" | "boxmean".
std::string DigestKindName(DigestKind kind);
// InvalidArgument for any other name, with the list.
absl::StatusOr<DigestKind> ParseDigestKind(std::string_view name);

// Bytes of one tile's digest: a multiple of 16.
int64_t DigestBytes(DigestKind kind, int64_t head_size);

}  // namespace palimpsest
