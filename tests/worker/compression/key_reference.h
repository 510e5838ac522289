// Policies of keys, losses and shares in float64, by definition; and published forms that are not ours.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/worker/compression/policy_reference.h"

namespace palimpsest::reference {

std::vector<double> Knorm(const Rows& keys);
std::vector<double> KeyDiff(const Rows& keys);

// A query head's distribution, before rotation: mean (D), covariance (D, D).
struct Queries {
  std::vector<double> mean;
  Rows covariance;
};
// Expected attention (not its logarithm). turns (positions, D/2): angles of each position to come; none:
// nothing is turned. The first `sink` tokens get infinity.
std::vector<double> Expected(const Rows& keys, const Rows& values, const std::vector<Queries>& heads,
                             const Rows& turns, const PolicySpec& spec);

// ChunkKV's, of the first `voted` tokens of each head's scores.
std::vector<double> Chunks(const Rows& heads, int64_t voted, int64_t chunk);

// CriticalKV: the best `first` by scores, then by (score + epsilon) * norm up to `count`.
std::vector<int32_t> Critical(const std::vector<double>& scores, const std::vector<double>& norms,
                              int64_t first, int64_t count, double epsilon);

// Tokens of each layer as PyramidKV's code has them, its window with them: the step is rounded down, so that
// they sum to more than layers * cap.
std::vector<int64_t> PublishedPyramid(int64_t layers, int64_t cap, int64_t tokens, int64_t window,
                                      int64_t beta);

// AdaKV: how many of the heads * base highest scores are each head's, ties to the earlier token, then head.
std::vector<int64_t> AdaWins(const Rows& heads, int64_t base);
// What its code makes of that, each head rounded by itself: halves to the even number, or away from zero.
std::vector<int64_t> PublishedAda(const std::vector<int64_t>& wins, int64_t base, double floor,
                                  bool half_even);

}  // namespace palimpsest::reference
