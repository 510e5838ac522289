// One engine step of a Llama model: rows of any sessions (prefill chunks and decode rows together) through
// all layers.
//
// A row's result depends on its own session only, never on what else is in the step or how its prompt was
// cut.
// Memory : activations for `max_rows` rows, allocated once; no allocation per step afterwards.
// Threads: one at a time (the engine's).
// Source : Touvron et al. 2023 (Llama); Ainslie et al. 2023 (grouped queries).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "worker/model/attention_sums.h"
#include "worker/model/layer_hook.h"
#include "worker/model/model_config.h"
#include "worker/model/query_capture.h"
#include "worker/model/query_moments.h"
#include "worker/model/weights.h"
#include "worker/sequence.h"

namespace palimpsest {

// The rows of one session in a step. Sequence::Extend has been called for them already.
struct StepRows {
  Sequence* sequence;
  std::span<const int32_t> tokens;  // the last tokens.size() of the sequence
  bool logits;                      // wanted for the last of them
  // Keeps the queries of those of the rows that it wants, by their tokens' indices, of which this is the
  // first.
  QueryCapture* queries = nullptr;
  int64_t first_token = 0;
  AttentionSums* sums = nullptr;    // takes in how much the rows attend to each token
  QueryMoments* moments = nullptr;  // adds up the queries of those that it wants, by the same numbering
  // What follows each of the first targets.size() rows, and where -log p of it goes. Empty: not wanted.
  std::span<const int32_t> targets;
  std::span<float> losses;
  LayerHook* hook = nullptr;  // before they attend, in every layer
};

class Transformer {
 public:
  Transformer(const ModelConfig& config, const Weights* weights, Backend* backend, const RopeTable* rope,
              int64_t max_rows);

  // Runs the step; returns one row of logits (vocabulary) per entry with `logits`, in order, valid until the
  // next step.
  Rows<const float> Step(std::span<const StepRows> step, TilePool pool);

  int64_t max_rows() const { return max_rows_; }
  int64_t activation_bytes() const;

 private:
  void Gather(std::span<const StepRows> step);
  void Attend(std::span<const StepRows> step, int64_t layer, TilePool pool);
  void Layer(std::span<const StepRows> step, int64_t layer, TilePool pool);
  Rows<const float> Logits(std::span<const StepRows> step);
  void Losses(std::span<const StepRows> step);

  const ModelConfig config_;
  const Weights* const weights_;
  Backend* const backend_;
  const RopeTable* const rope_;
  const int64_t max_rows_;
  int64_t rows_ = 0;  // of the step in progress

  AlignedBuffer<float> x_;               // (max_rows, hidden): the residual stream
  AlignedBuffer<Bf16> normed_;           // (max_rows, hidden)
  AlignedBuffer<float> qkv_;             // (max_rows, q + 2 kv columns)
  AlignedBuffer<Bf16> attended_;         // (max_rows, q columns)
  AlignedBuffer<Bf16> gated_;            // (max_rows, ffn)
  AlignedBuffer<float> last_rows_;       // (entries with logits, hidden)
  AlignedBuffer<float> logits_;          // (entries with logits, vocabulary); grows
  AlignedBuffer<float> loss_logits_;     // (kLossRows, vocabulary), once losses were wanted
  std::vector<int32_t> ids_;             // (rows)
  std::vector<int64_t> positions_;       // (rows)
  std::vector<Sequence::Place> places_;  // (rows)
  std::vector<KvRow> kv_rows_;           // (rows)
  std::vector<int32_t> kv_tiles_;        // (rows, kv_heads)
  std::vector<AttentionSequence> sequences_;
  std::vector<ColumnSums> column_sums_;                 // of those that are wanted
  std::vector<std::span<const int32_t>> head_tiles_;    // (sequences, kv_heads)
  std::vector<std::span<const int32_t>> head_shifts_;   // the same
  std::vector<std::span<const CodedTile>> head_coded_;  // the same
};

}  // namespace palimpsest
