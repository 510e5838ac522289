// From observers to scores: runs the one scoring pass over a session's keys and asks the policy, head by
// head.
//
// Memory : query heads x slots while it runs; never observers x slots. Keys and values in float32 of as many
//          heads as there are threads; of a policy that asks for output norms, of a layer's KV heads one by
//          one.
// Threads: one at a time (the engine's); parallel inside.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "worker/compression/policy.h"
#include "worker/compression/repetition.h"
#include "worker/model/attention_sums.h"
#include "worker/model/model_config.h"
#include "worker/model/query_capture.h"
#include "worker/model/query_moments.h"
#include "worker/model/weights.h"
#include "worker/sequence.h"

namespace palimpsest {

struct Scoring {
  Backend* backend;
  const ModelConfig* config;
  const RopeTable* rope;
  const Weights* weights;
  TilePool pool;
};

// What observers are: complete if the policy needs them.
struct Observed {
  const QueryCapture* queries;
  const QueryMoments* moments;
  const Repetition* repetition;
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
  int64_t next_position;  // of what will follow them
};

// [head][i] of candidate i.
struct HeadScores {
  std::vector<std::vector<float>> scores;
  std::vector<std::vector<float>> rest;       // of policies of two stages; empty of others
  std::vector<std::vector<float>> attention;  // of policies that share by it
  double first_share = 1;
  Ranking Of(size_t head) const {
    return {scores[head], rest.empty() ? std::span<const float>() : rest[head], first_share};
  }
  // Candidate i stays in any case.
  void Keep(size_t head, size_t i);
};
HeadScores ScoreCandidates(const Scoring& scoring, const CompressionPolicy& policy, const Observed& observed,
                           const Candidates& candidates);

}  // namespace palimpsest
