// What a Llama-architecture model is: the numbers that its file gives, checked.
//
// Errors: Unimplemented for another architecture or feature (names it and what is supported);
//         InvalidArgument if numbers contradict each other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "text/gguf.h"

namespace palimpsest {

struct ModelConfig {
  std::string name;  // general.name, for people
  int64_t layers = 0;
  int64_t hidden = 0;  // width of the residual stream
  int64_t heads = 0;   // query heads
  int64_t kv_heads = 0;
  int64_t head_size = 0;
  int64_t ffn = 0;  // width of the gated MLP
  int64_t vocabulary = 0;
  int64_t context = 0;  // tokens the model was trained for
  double rms_epsilon = 0;
  double rope_theta = 0;
  int64_t rope_size = 0;             // dimensions of a head that rotate
  std::vector<double> rope_factors;  // divide the frequencies, one per pair; empty: none
  std::string rope_text;             // canonical text of the scaling, part of block ids
  bool tied_embeddings = false;      // lm_head is the embedding matrix

  int64_t q_columns() const { return heads * head_size; }
  int64_t kv_columns() const { return kv_heads * head_size; }
};

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file);

}  // namespace palimpsest
