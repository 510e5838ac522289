// How a view is written to a tier: what a policy left of a document, so that a restart finds it.
//
// Bytes, little-endian: version, heads, head size, tokens that losses are known of (4 bytes each), parent
// (32), losses (4 each); then for each head its tokens n (4), scores m (4), rows of sums r (4), tokens (4
// each), scores (4 each), sums (r, n) of 4, K and V at rest in bf16 (n, 2, D). Of some tokens m is 0 or n, of
// none r is 0. Nothing follows. Integrity is the envelope's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/envelope.h"
#include "worker/compression/view.h"

namespace palimpsest {

inline constexpr uint32_t kPicksVersion = 2;

void AppendView(const View& view, int64_t head_size, std::vector<uint8_t>* out);

// DataLoss: not a view of this shape, with what is wrong. No count is believed before it is compared with the
// bytes that are left (I-11).
absl::StatusOr<View> ParseView(const KvShape& shape, std::span<const uint8_t> bytes);

}  // namespace palimpsest
