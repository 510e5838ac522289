// Brings dropped tokens back for the question of one session: in every layer the queries rank the document's
// slices by their digests, the best are fetched from whichever tier has them and packed into tiles of their
// own, and attention sees them beside what is resident.
//
// When   : the question's queries together, before its first attention in each layer, unless it sees
//          everything (whole_document.h); then the newest token's, each `refresh` tokens. Each choice
//          replaces the one before. (The question's last token choosing by itself was tried: within the
//          window 74 of 100 for 73, beyond it 7 of 20 for 10.)
// Index  : all of it is read for every choice. (A quarter for three choices of four was tried: it missed a
//          tenth of the best slices and made a token of the answer a sixth faster.)
// Where  : slices stand in the order of the document, at their own positions where all of it fits the model's
//          window, otherwise one after the other behind what is resident, in a place of fixed size, so that
//          the question's position does not depend on what comes back.
// Words  : of the budget, slices that share rare words with the question come to every head and stay for the
//          answer (shared_words.h); the rest is each head's own choice.
// Twice  : a token that is resident is neither ranked nor brought.
// Memory : on the device the tiles of the budget; in host memory the slices that came, four budgets at most,
//          so that a slice that is wanted again is not fetched again.
// Errors : none: a slice that no tier gives is left out and counted.
// Source : docs/recall.md: what was measured; Tang et al. 2024 (Quest) for ranking in every step.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/backend.h"
#include "proto/base/recall_spec.h"
#include "storage/tiered_store.h"
#include "worker/model/layer_hook.h"
#include "worker/model/model_config.h"
#include "worker/recall/document_index.h"
#include "worker/recall/recall_counts.h"
#include "worker/recall/slices.h"

namespace palimpsest {

struct RecallSetup {
  RecallSpec spec;
  const ModelConfig* config;
  Backend* backend;
  const RopeTable* rope;
  TieredStore* store;
  const Clock* clock;
  std::shared_ptr<const DocumentIndex> index;
  std::vector<std::vector<int32_t>> residents;  // of each head: tokens of the prompt, ascending
  std::vector<std::vector<int32_t>> tiles;      // of each head, for what comes back; base 0
  int64_t budgets_kept = 4;                     // of slices that came, in host memory
  int64_t first_position = -1;      // of the first token that comes back; -1: each stands at its own
  int64_t rank_position = -1;       // of queries when they rank; -1: their own
  std::vector<int32_t> named = {};  // slices of the budget that come to every head: ascending
  // Tokens of the prompt, ascending, that a measurement asks about. `oracle`: their slices come, and others
  // by chance, once for the question, whatever ranks how.
  std::vector<int32_t> watched = {};
  bool oracle = false;
};

class Recall final : public LayerHook {
 public:
  explicit Recall(RecallSetup setup);

  void BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) override;
  // Only decides what should come, in `wanted`; fetches nothing. Of one recall either this is called, or
  // BeforeAttention.
  void Choose(int64_t layer, Rows<const float> q, std::span<const int64_t> positions);

  const RecallCounts& counts() const { return counts_; }
  int64_t missing_tokens() const { return setup_.index->missing_tokens(); }  // that cannot come back
  // Numbers of the slices that are there now, of head layer * kv_heads + kv_head (tests, traces).
  std::span<const int32_t> slices(int64_t head) const { return heads_[static_cast<size_t>(head)].slices; }
  std::span<const int32_t> wanted(int64_t head) const { return heads_[static_cast<size_t>(head)].wanted; }
  // Where what is there stands in the index (block * 64 + slot), in the order of its tiles.
  std::span<const int32_t> came(int64_t head) const { return heads_[static_cast<size_t>(head)].came; }
  int64_t slice_tokens() const { return slice_; }
  // Share of the watched tokens that is resident or there now, over all heads.
  double WatchedSeen() const;

 private:
  // Slices of one head that came, in places of a slab that are used again.
  struct Head {
    std::vector<int32_t> places;  // of residents: block * 64 + slot
    std::vector<uint64_t> slots;  // (blocks) a bit for each token that is ranked
    std::vector<int32_t> slices;  // that are there now, ascending
    std::vector<int32_t> wanted;
    absl::flat_hash_map<int32_t, int32_t> place_of;  // of slices that came: place in the slab
    std::vector<int32_t> slice_at;                   // (places) -1: free
    std::vector<int64_t> used;                       // (places) turn
    std::vector<Bf16> slab;                          // (places, 2, slice, D)
    std::vector<KvSource> sources;
    std::vector<int32_t> positions;
    std::vector<int32_t> came;  // of each source: block * 64 + slot
    SliceOrder order;
  };

  void Rank(int64_t layer, Rows<const float> q, std::span<const int64_t> positions);
  void WantAll(int64_t layer);
  void WantWatched(int64_t layer);
  int64_t SlicesOfHead() const {
    return static_cast<int64_t>(setup_.index->blocks().size()) * (kTileSlots / slice_);
  }
  // Of each block: neither at one of these places nor in a slice that comes anyway.
  std::vector<uint64_t> SlotsToRank(std::span<const int32_t> places) const;
  std::vector<int32_t> PlacesOf(std::span<const int32_t> tokens) const;
  void Fetch(int64_t layer);
  int32_t TakePlace(Head& head);
  void Copy(const Mover::FoundTile& tile, int32_t slice, Head& head, int32_t place) const;
  void Pack(int64_t layer);
  void PackHead(Head& head);
  Head& HeadOf(int64_t layer, int64_t kv_head) {
    return heads_[static_cast<size_t>(layer * setup_.config->kv_heads + kv_head)];
  }

  const RecallSetup setup_;
  const int64_t slice_, count_;         // tokens of a slice; slices at most
  const std::vector<int32_t> watched_;  // places: block * 64 + slot
  std::vector<Head> heads_;
  std::vector<float> best_;  // (kv_heads, slices)
  std::vector<int64_t> rank_positions_;
  std::vector<uint8_t> changed_;  // (kv_heads)
  int64_t turn_ = 0;
  RecallCounts counts_;
};

}  // namespace palimpsest
