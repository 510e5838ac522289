// How much of what a dense cache attends to a policy and a recall would have left to see: a measurement, and
// one that no task can flatter.
//
// All of the prompt is there (recall `all`), so that layers and answer are those of the dense cache. Beside
// it the other recall chooses, for the same queries, and fetches nothing; then each token of the answer is
// looked at with the weights that it gives to every token.
//
// Numbers: double, from the keys and values as they lie in the tiles.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "worker/model/layer_hook.h"
#include "worker/model/model_config.h"
#include "worker/recall/attention_share.h"
#include "worker/recall/recall.h"
#include "worker/sequence.h"

namespace palimpsest {

class AttentionAudit final : public LayerHook {
 public:
  struct Setup {
    const ModelConfig* config;
    Backend* backend;
    const RopeTable* rope;
    TilePool pool;
    const Sequence* sequence;
    std::vector<std::vector<int32_t>> tiles;  // of each head, that `everything` fills
    Recall* everything;                       // recall all; outlives this
    std::unique_ptr<Recall> chooser;          // null: nothing would come back
    int64_t refresh = 1;                      // of the chooser: tokens of the answer between its choices
  };
  explicit AttentionAudit(Setup setup);

  void BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) override;

  int64_t rows() const { return rows_; }       // tokens that were looked at
  std::vector<AttentionShare> shares() const;  // of each layer

 private:
  void Look(int64_t layer, int64_t kv_head, const float* q, int64_t position);

  const Setup setup_;
  std::vector<AttentionShare> sums_;  // (layers, kv_heads)
  int64_t rows_ = 0;
};

}  // namespace palimpsest
