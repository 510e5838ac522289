// What attention says of tokens: one vote for each, of all query heads of a KV head.
#pragma once

#include <cmath>
#include <span>

#include "worker/compression/policy.h"

namespace palimpsest {

// Attention is never below 0; what is no number, of a key that is none, is nobody's vote.
inline float VoteOf(float attention) { return std::isfinite(attention) ? attention : 0.0f; }

// votes[i] = mean, maximum or sum over the query heads, in their order, of attention[g][i].
void ReduceGroup(const HeadInput& head, PolicySpec::Reduce reduce, std::span<float> votes);

// The same of other rows: row g at rows + g * stride.
void ReduceRows(const float* rows, int64_t stride, int64_t group, PolicySpec::Reduce reduce,
                std::span<float> votes);

// Infinity to the last tokens, where nothing follows them.
void KeepLast(const HeadInput& head, const Amount& recent, std::span<float> scores);

// The float that stands at place `rank` from 2^-126 up: later ranks are greater, for all 2^30 and more
// tokens, where the number itself would be exact for 2^24.
float ScoreOfRank(int64_t rank);

}  // namespace palimpsest
