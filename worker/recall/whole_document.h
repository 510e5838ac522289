// A question that sees all of its document, in the room that recall has for slices: in every layer the
// document's tiles come from the tiers a few at a time, the question's rows attend to each few, and the next
// ones take their place. What the policy kept is not asked: everything is in the tiers.
//
// Why    : what a question's tokens miss is in their own keys and values, which every token of the answer
//          reads: in prose of 3,584 tokens four of five answers were word for word those of the whole text
//          where the question chose 1,024 tokens, nineteen of twenty where it sees all (docs/results.md).
// Bits   : those of a session that holds the document whole, where the room is a multiple of kSplitTiles
//          tiles; else as close as attention is.
// Memory : on the device the tiles that it is given, whose slots are empty again after each layer; in host
//          memory one layer of the document.
// Reads  : all of the document's KV once for each step of the question's rows.
// Errors : none: a tile that no tier gives is counted, and from that layer on the question's tokens choose.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <span>
#include <vector>

#include "kernels/backend.h"
#include "storage/tiered_store.h"
#include "worker/model/layer_hook.h"
#include "worker/model/model_config.h"
#include "worker/recall/document_index.h"
#include "worker/recall/recall_counts.h"

namespace palimpsest {

class WholeDocument final : public LayerHook {
 public:
  struct Setup {
    const ModelConfig* config;
    Backend* backend;
    const RopeTable* rope;
    TieredStore* store;
    const Clock* clock;
    int64_t slice;                            // tokens that are counted as one
    std::vector<IndexedBlock> blocks;         // all that stands before the question, from position 0 on
    std::vector<std::vector<int32_t>> tiles;  // of each head, as many each; base 0, nothing in them
    std::vector<size_t> behind;               // of each head: where the question begins in the session's list
    LayerHook* chooser;                       // of slices, into the same tiles
  };
  explicit WholeDocument(Setup setup);

  void BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) override;
  bool Attend(int64_t layer, const AttentionArgs& args) override;

  const RecallCounts& counts() const { return counts_; }
  bool sees_all() const { return !chooses_; }  // so far

 private:
  void Fetch(int64_t layer);
  // Blocks [first, first + count) into the first tiles of each head.
  void Fill(int64_t layer, size_t first, size_t count);
  void Empty(int64_t layer);
  void AttendTo(int64_t layer, const AttentionArgs& args, size_t count, const CarriedAttention& carried);
  std::span<const int32_t> TilesOf(int64_t layer, int64_t kv_head) const {
    return setup_.tiles[static_cast<size_t>(layer * setup_.config->kv_heads + kv_head)];
  }

  const Setup setup_;
  const size_t together_;                // tiles of each head that are there at once
  bool chooses_ = false;                 // something was not to be had
  std::vector<Mover::FoundTile> found_;  // of the layer in hand, (blocks, kv_heads)
  AlignedBuffer<float> state_;           // of the rows in hand
  RecallCounts counts_;
};

}  // namespace palimpsest
