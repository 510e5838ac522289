// Called in every layer of a step, for the rows of one session: what it wants to attend to may depend on
// what that layer's queries ask for.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace palimpsest {

class LayerHook {
 public:
  virtual ~LayerHook() = default;
  // After the rows' K and V are stored and before they attend. `q`: (rows, heads * D) before rotation. The
  // session's lists of tiles must stay as long as they are; what is in its own tiles may change.
  virtual void BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) = 0;
};

}  // namespace palimpsest
