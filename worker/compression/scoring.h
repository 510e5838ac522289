// From observers to scores: runs the one scoring pass over a session's keys and asks the policy, head by
// head.
//
// Memory : query heads x slots while it runs; never observers x slots.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "worker/compression/policy.h"
#include "worker/model/attention_sums.h"
#include "worker/model/model_config.h"
#include "worker/model/query_capture.h"
#include "worker/sequence.h"

namespace palimpsest {

struct Scoring {
  Backend* backend;
  const ModelConfig* config;
  const RopeTable* rope;
  TilePool pool;
};

// What is scored.
struct Candidates {
  const Sequence* sequence;
  int64_t skip;  // slots in use at the front of every head that are no candidates
  // Tokens of (layer * kv_heads + kv_head): one for each slot in use behind them, in order; slots behind
  // these (of the observers) are none.
  std::function<std::span<const int32_t>(size_t head)> tokens;
  std::span<const float> losses;  // by token; empty unless needed
  const AttentionSums* sums;      // of the rows up to token `end`; unread unless needed
  int64_t end;
  bool window_stays;
};

// scores[head][i] of candidate i. `queries` is complete if the policy needs attention.
void ScoreCandidates(const Scoring& scoring, const CompressionPolicy& policy, const QueryCapture& queries,
                     const Candidates& candidates, std::vector<std::vector<float>>* scores);

}  // namespace palimpsest
