// What becomes of the tokens that a policy lets go, beside the selection and whatever made it: K and V of
// each join those of the one token that stays whose key is most like its own, by the cosine.
//
// With j a token that stays, i the n tokens that join it, S their cosine:
//   averaged    x_j = (x_j + sum x_i) / (n + 1)
//   pivotal     x_j = (x_j + sum (x_i + x_j) / 2) / (n + 1)
//   weighted    x_j = (x_j + sum S x_i) / (n + 1)
//   threshold   the same of those i whose S is at least the head's mean; the others are dropped
//   normalized  x_j = (x_j + sum w x_i) / (1 + sum w), w = max((S + 1) / 2, 1e-6)
//   values      v_j = (v_j + sum w v_i) / (1 + sum w), w = max(S, 0) |v_i| / (|v_i| + |v_j| + 1e-6); keys
//   stay
// Keys : before rotation, so that a merged key is turned to the place of the token it stands for. That is the
//        same as turning each to that place first, since turning is linear; what was turned to different
//        places is never added.
// Bits : float32, joined in the order of the tokens; they depend on the head alone.
// Memory: two numbers for each token that goes, and what stays in float32 of one head a thread; never what
//        goes x what stays.
// Threads: one at a time (the engine's); parallel inside.
// Source : Wan et al., LOOK-M, arXiv 2406.18139, section 3.3; normalized and values as KVCache-Factory and
//        kvpress have them.
#pragma once

#include <span>
#include <vector>

#include "kernels/backend.h"
#include "proto/base/policy_spec.h"
#include "worker/compression/view.h"

namespace palimpsest {

// Of one layer and KV head, in the order of their text; something stays.
struct MergeHead {
  std::vector<RestToken> stays, goes;
};

// Are keys merged too?
inline bool MergesKeys(PolicySpec::Merge merge) {
  return merge != PolicySpec::Merge::kNone && merge != PolicySpec::Merge::kValues;
}

// merged[h]: (stays, 2, D), K and V at rest of what stays. Where nothing joins, the same bits.
void MergeTokens(Backend& backend, PolicySpec::Merge merge, int64_t head_size,
                 std::span<const MergeHead> heads, std::vector<std::vector<Bf16>>* merged);

}  // namespace palimpsest
