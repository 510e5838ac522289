// Small random models of the Llama architecture, whole in every respect but sense: tokenizer, chat template
// and weights of any tensor type. They load in milliseconds, so tests of the engine and of the application
// need no model file.
//
//   std::shared_ptr<const GgufFile> model = TinyModel({.layers = 3});
//   PALIMPSEST_CHECK(WriteTinyModel({}, path).ok());
//
// Weights are a function of the seed and the shape. They are scaled so that activations, attention scores and
// logits have a spread of about one: tokens differ, and attention is neither flat nor a single key.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/testing/gguf_writer.h"
#include "text/gguf.h"

namespace palimpsest::testing {

struct TinyModelOptions {
  int64_t layers = 2;
  int64_t hidden = 64;  // a multiple of 32; of 256 for Q4_K and Q6_K
  int64_t heads = 4;    // head size is hidden / heads: a multiple of 16
  int64_t kv_heads = 2;
  int64_t ffn = 128;  // as hidden
  int64_t context = 2048;
  TensorType type = TensorType::kF32;  // of all matrices; norms are F32
  bool tied_embeddings = false;
  uint64_t seed = 1;
};

inline constexpr int64_t kTinyVocabulary = 300;

// The file's tokens: 3 control tokens (<|endoftext|> 0, <|im_start|> 1, <|im_end|> 2, the end of an answer),
// the 256 bytes, 41 merges.
GgufWriter TinyModelWriter(const TinyModelOptions& options);
// Parsed in memory; owns its bytes.
std::shared_ptr<const GgufFile> TinyModel(const TinyModelOptions& options);
absl::Status WriteTinyModel(const TinyModelOptions& options, const std::string& path);

// `count` numbers around 0 with a spread of about `scale`, as a tensor of `type` stores them. REQUIRES: whole
// blocks, a type that the engine expands.
std::vector<uint8_t> RandomTensor(TensorType type, int64_t count, double scale, uint64_t seed);

}  // namespace palimpsest::testing
