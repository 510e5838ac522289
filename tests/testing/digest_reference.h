// The definition of digests (kernels/digest.h) and of their scores: plain float64 loops, as in reference.h,
// with the bounds within which a backend must come.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/testing/reference.h"

namespace palimpsest::reference {

// What the numbers of a q2 digest stand for.
struct DecodedQ2 {
  uint64_t slots = 0;               // that hold a key
  Matrix keys{64, 0};               // (64, D)
  Matrix zeros{2, 0}, steps{2, 0};  // (runs, D) in units of the scales
  Matrix codes{64, 0};              // (64, D) 0..3
  double zero_scale[2], step_scale[2];
};
DecodedQ2 DecodeQ2(int64_t head_size, const uint8_t* digest);

// One tile as it is scored.
struct DigestedTile {
  Matrix keys;  // (rows, D) rotated and rounded to bf16: what the digest was made of
  const uint8_t*
      digest;  // read for q2 only: its codes are what they are; the other kinds follow from the keys
  int32_t count = 0;
};
struct DigestScores {
  std::vector<double> scores, bounds;  // (64); the bound of minus infinity is 0
};
// Query rows are rotated and not rounded: that a backend rounds them is in the bounds.
DigestScores ScoreDigest(DigestKind kind, const Rope& rope, int64_t group, const DigestedTile& tile,
                         Rows<const float> q, std::span<const int64_t> positions);

}  // namespace palimpsest::reference
