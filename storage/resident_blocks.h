// How many blocks of device memory the tokens of a session take at most, by how they are written there: what
// the engine reserves and what the coordinator plans with.
//
// Units : blocks: 64 slots of every layer and KV head.
// `residual`: exact tokens of a head that stay behind those in 2 bits (worker/sequence.h); 0: all are exact.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"

namespace palimpsest {

inline int64_t BlocksOf(int64_t tokens) { return DivideUp(tokens, kTileSlots); }

// What stays of a context. `ragged`: heads keep different numbers, of which `tokens` is the mean, and each
// ends in a tile of its own.
inline int64_t KeptBlocks(int64_t tokens, bool ragged, int64_t residual) {
  const int64_t exact = BlocksOf(tokens) + (ragged ? 1 : 0);
  if (residual == 0) return exact;
  return std::min(exact, DivideUp(exact, kCodedPerTile) + BlocksOf(2 * residual)) + 1;
}

// A question and an answer, beside what is kept then. With a residual, the least of two bounds: as if all
// stayed exact, with room for the question while it is written in 2 bits; or in 2 bits, with the question as
// it was read, twice the residual, and three tiles of which a part is used: the first and the last exact one
// of a head, and the last before the question.
inline int64_t BlocksBehind(int64_t question, int64_t answer, int64_t residual) {
  const int64_t exact = BlocksOf(question) + BlocksOf(answer);
  if (residual == 0) return exact + 1;
  const int64_t tail = BlocksOf(2 * residual), asked = BlocksOf(question);
  return std::min(exact + 1 + DivideUp(asked + tail, kCodedPerTile),
                  DivideUp(exact, kCodedPerTile) + asked + tail + 3) +
         1;
}

}  // namespace palimpsest
