// Called in every layer of a step, for the rows of one session: what it wants to attend to may depend on
// what that layer's queries ask for.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace palimpsest {

class LayerHook {
 public:
  virtual ~LayerHook() = default;
  // After the rows' K and V are stored and before they attend. `q`: (rows, heads * D) before rotation. The
  // session's lists of tiles must stay as long as they are; what is in its own tiles may change.
  virtual void BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) = 0;
  // Attends in the place of the step, to more than the session has room for at once: true if `args.out` has
  // been written for the rows of its only sequence, which are the session's with its tiles.
  virtual bool Attend(int64_t /*layer*/, const AttentionArgs& /*args*/) { return false; }
};

}  // namespace palimpsest
