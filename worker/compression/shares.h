// How many tokens each head keeps, where heads share a budget.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/compression/policy.h"

namespace palimpsest {

// What the policy gives to each head (layers * kv_heads), and the check of what it promises.
std::vector<int64_t> CountsOf(const CompressionPolicy& policy, const HeadShares& of);

// Tokens that stay in any case, of the head that has most of them.
int64_t StayingOf(const HeadShares& of);

// How many of the `count` highest scores of all heads each of them has, where none may have more than `most`.
// What stays anyway and each head's own `first` highest take no part. Ties to the earlier token, then to the
// earlier head.
std::vector<int64_t> Compete(std::span<const std::vector<float>> heads, int64_t first, int64_t count,
                             int64_t most);

// Each head keeps as few of its highest scores as lose no more attention than `lost` on what it drops; where
// all would keep more than the budget allows together, all may lose as much more as meets it. Counts with
// what stays anyway.
void KeepAttention(const HeadShares& of, double lost, std::span<int64_t> counts);

// counts[i]: wanted[i] rounded to the nearest whole number (halves to the even one) and brought between
// `least` and `most`; then, one by one, those that were rounded the furthest are moved until all sum to
// `total`. Ties to the earlier. REQUIRES: least * n <= total <= most * n.
void RoundToSum(std::span<const double> wanted, int64_t total, int64_t least, int64_t most,
                std::span<int64_t> counts);

}  // namespace palimpsest
