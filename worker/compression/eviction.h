// While an answer grows: which token of each head goes for the new one, and where the new one lies then.
//
// Rule   : the policy's own score, asked again after each token of what a head holds; the lowest goes, of
//          equal ones the latest. The question stays, and so does the prefix.
// Place  : a new token is read in the free slot behind all others, and then takes the slot of the one that
//          goes: no tile is opened, packed or freed for it. Slots are no longer in the order of the text,
//          which rows that see all of them, as those of the answer do, never notice.
// Memory : fixed when it begins; nothing is allocated for a token.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <span>
#include <vector>

#include "kernels/thread_pool.h"
#include "worker/compression/policy.h"
#include "worker/model/attention_sums.h"
#include "worker/model/model_config.h"
#include "worker/sequence.h"

namespace palimpsest {

class Eviction {
 public:
  struct Setup {
    const ModelConfig* config;
    const CompressionPolicy* policy;
    ThreadPool* threads;
    TilePool pool;
    int64_t skip;      // tokens of the prefix, in the first slots of each head
    int64_t held_max;  // tokens of each head behind them
    int64_t question_first, question_end;
  };
  // tokens[layer * kv_heads + kv_head]: what the slots behind the prefix hold, in order.
  Eviction(const Setup& setup, const Sequence& sequence, std::vector<std::vector<int32_t>> tokens);

  // `token` was read, in the last slot; `sums` are of the policy's queries, up to its own. True if one token
  // of each head went.
  bool Add(int32_t token, Sequence& sequence, AttentionSums& sums);
  // Behind the prefix, in the order of the text.
  const std::vector<int32_t>& tokens(size_t head) const { return heads_[head].tokens; }

 private:
  struct Head {
    std::vector<int32_t> tokens, places;  // ascending; each one's slot, among those of the head's tiles
  };
  // Of one thread.
  struct Scratch {
    std::vector<float> rows, seen_by, policy;
  };

  std::span<const int32_t> TilesOf(const Sequence& sequence, size_t head) const {
    const int64_t at = static_cast<int64_t>(head), kv_heads = setup_.config->kv_heads;
    return sequence.tiles(at / kv_heads, at % kv_heads);
  }
  void ScoreHead(size_t head, const AttentionSums& sums, Scratch& scratch);
  size_t WhoGoes(size_t head) const;
  void Replace(size_t head, size_t gone, const Sequence& sequence, AttentionSums& sums);

  const Setup setup_;
  const PolicyNeeds needs_;
  const int64_t group_;
  std::vector<Head> heads_;
  std::vector<std::vector<float>> scores_;  // (heads), (n)
  std::vector<Scratch> scratch_;            // (threads)
};

}  // namespace palimpsest
