// A Llama forward pass in plain float64 loops: what the engine's logits are held to.
//
// It reads the model file's tensors itself and shares nothing with kernels/ or worker/model but the expansion
// of tensor types (held to the gguf package elsewhere) and the rounding to bf16.
//
// Rounding::kNone : the model's true logits.
// Rounding::kBf16 : rounds to bf16 where kernels/ops.h says that an operation does, and forms softmax tile by
//                   tile as attention does; everything else stays in float64. What then differs from the
//                   engine is the order of float32 sums and the roundings that those tip over.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/gguf.h"

namespace palimpsest::testing {

enum class Rounding { kNone, kBf16 };

class ReferenceModel {
 public:
  ReferenceModel(const GgufFile& file, Rounding rounding);

  // Logits (vocabulary) after the last token of a prompt given as segments, which start tiles of their own.
  std::vector<double> Logits(std::span<const std::vector<int32_t>> segments) const;

  // --- One token at a time, over whatever each KV head holds: what compression left, wherever it stands.
  struct Held {
    int32_t token;                   // the caller's number for it
    int64_t position;                // where it stands
    std::vector<double> key, value;  // at rest
    std::vector<double> rotated;     // the key at its position
  };
  using Cache = std::vector<std::vector<Held>>;  // (layers * kv_heads), in order
  Cache Empty() const { return Cache(layers_.size() * static_cast<size_t>(kv_heads_)); }
  struct Seen {
    std::vector<double> logits;                // (vocabulary)
    std::vector<std::vector<double>> queries;  // (layers), (heads * head_size), rotated
  };
  // Runs token `id` at `position`; it attends to all that is held and to itself, and is held from then on as
  // `token`.
  Seen Run(int32_t id, int32_t token, int64_t position, Cache* cache) const;
  void Move(Held* held, int64_t position) const;
  // softmax(q . keys / sqrt(D)) of one query head over the first `count` that a KV head holds.
  std::vector<double> Attention(std::span<const double> q, const std::vector<Held>& held, size_t count) const;
  int64_t heads() const { return heads_; }
  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_size() const { return head_size_; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }

 private:
  struct Matrix {
    int64_t rows = 0, columns = 0;
    std::vector<double> values;  // (rows, columns)
  };
  struct Layer {
    std::vector<double> attention_norm, ffn_norm;
    Matrix q, k, v, output, gate, up, down;
  };
  using Vectors = std::vector<std::vector<double>>;  // one per token

  double Round(double x) const;
  Matrix ReadMatrix(const GgufFile& file, const std::string& name) const;
  std::vector<double> Multiply(const Matrix& w, const std::vector<double>& x) const;
  std::vector<double> Norm(const std::vector<double>& x, const std::vector<double>& weight) const;
  std::vector<double> Rotated(std::vector<double> head, int64_t position) const;
  std::vector<double> Attend(const std::vector<double>& q, const Vectors& keys, const Vectors& values,
                             std::span<const size_t> tile_ends) const;
  void RunLayer(const Layer& layer, std::span<const size_t> tile_ends, Vectors& x) const;
  void FeedForward(const Layer& layer, std::vector<double>& row) const;

  const Rounding rounding_;
  int64_t heads_ = 0, kv_heads_ = 0, head_size_ = 0;
  double epsilon_ = 0, theta_ = 0;
  Matrix embedding_, output_;
  std::vector<double> output_norm_;
  std::vector<Layer> layers_;
};

}  // namespace palimpsest::testing
