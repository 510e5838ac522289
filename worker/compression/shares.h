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

// counts[i]: wanted[i] rounded to the nearest whole number (halves to the even one) and brought between
// `least` and `most`; then, one by one, those that were rounded the furthest are moved until all sum to
// `total`. Ties to the earlier. REQUIRES: least * n <= total <= most * n.
void RoundToSum(std::span<const double> wanted, int64_t total, int64_t least, int64_t most,
                std::span<int64_t> counts);

}  // namespace palimpsest
