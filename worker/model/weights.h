// A model's weights, expanded from the file and packed once for the backend; the file's pages are not needed
// afterwards.
//
// Errors: NotFound names a missing tensor; InvalidArgument a wrong shape; Unimplemented a tensor type or a
//         tensor that this architecture does not know (ignoring it would compute another model).
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "text/gguf.h"
#include "worker/model/model_config.h"

namespace palimpsest {

struct LayerWeights {
  AlignedBuffer<float> attention_norm;  // (hidden)
  PackedWeights qkv;                    // (heads*D + 2*kv_heads*D, hidden)
  PackedWeights attention_output;       // (hidden, heads*D)
  AlignedBuffer<float> ffn_norm;        // (hidden)
  PackedWeights gate_up;                // (2*ffn, hidden), outputs alternate: 16 gate, 16 up
  PackedWeights down;                   // (hidden, ffn)
};

struct Weights {
  PackedWeights embedding;           // (vocabulary, hidden), always bf16: rows are looked up
  PackedWeights output;              // (vocabulary, hidden); empty when tied and of the same format
  AlignedBuffer<float> output_norm;  // (hidden)
  std::vector<LayerWeights> layers;
  const PackedWeights& lm_head() const { return output.n == 0 ? embedding : output; }
  int64_t bytes() const;
  int64_t decode_bytes() const;  // read for one decoded token
};

absl::StatusOr<Weights> LoadWeights(const GgufFile& file, const ModelConfig& config, WeightFormat format,
                                    Backend& backend);

}  // namespace palimpsest
