#include "worker/compression/scoring.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// One head's row of the scoring pass, without slots that hold nothing: (tiles, 64) to (slots in use).
void Squeeze(const TilePool& pool, std::span<const int32_t> tiles, const float* row, int64_t skip,
             std::span<float> out) {
  size_t next = 0;
  for (size_t i = 0; i < tiles.size() && next < out.size(); ++i) {
    for (int32_t slot = 0; slot < pool.counts[tiles[i]] && next < out.size(); ++slot) {
      if (skip-- > 0) continue;
      out[next++] = row[i * kTileSlots + static_cast<size_t>(slot)];
    }
  }
  PALIMPSEST_CHECK(next == out.size(), "{} slots for {} candidates", next, out.size());
}

}  // namespace

void ScoreCandidates(const Scoring& scoring, const CompressionPolicy& policy, const QueryCapture& queries,
                     const Candidates& candidates, std::vector<std::vector<float>>* scores) {
  const ModelConfig& config = *scoring.config;
  const PolicyNeeds needs = policy.needs();
  const bool attends = needs.window > 0 || needs.catalyst;
  const int64_t group = config.heads / config.kv_heads, heads = config.layers * config.kv_heads;
  std::vector<int64_t> offsets(static_cast<size_t>(heads) + 1, 0);
  std::vector<float> votes;
  if (attends) {
    std::vector<ScoreHead> pass(static_cast<size_t>(heads));
    for (int64_t i = 0; i < heads; ++i) {
      const auto tiles = candidates.sequence->tiles(i / config.kv_heads, i % config.kv_heads);
      offsets[static_cast<size_t>(i) + 1] =
          offsets[static_cast<size_t>(i)] + group * static_cast<int64_t>(tiles.size()) * kTileSlots;
      pass[static_cast<size_t>(i)].tiles = tiles;
    }
    votes.resize(static_cast<size_t>(offsets.back()));
    for (int64_t i = 0; i < heads; ++i) {
      ScoreHead& head = pass[static_cast<size_t>(i)];
      const int64_t column = i % config.kv_heads * group * config.head_size;
      head.q = queries.Queries(i / config.kv_heads, column, group * config.head_size);
      head.out = votes.data() + offsets[static_cast<size_t>(i)];
    }
    scoring.backend->ScoreKeys({.positions = queries.positions(),
                                .group = group,
                                .head_size = config.head_size,
                                .reduce = needs.reduce,
                                .rope = scoring.rope,
                                .pool = scoring.pool,
                                .heads = pass});
  }
  scores->resize(static_cast<size_t>(heads));
  scoring.backend->pool().ParallelFor(heads, [&](int64_t i, int) {
    const size_t at = static_cast<size_t>(i);
    const std::span<const int32_t> tokens = candidates.tokens(at);
    HeadInput input{.layer = i / config.kv_heads,
                    .kv_head = i % config.kv_heads,
                    .group = group,
                    .tokens = tokens,
                    .window_stays = candidates.window_stays};
    std::vector<float> attention, losses;
    if (attends) {
      attention.resize(static_cast<size_t>(group) * tokens.size());
      const auto tiles = candidates.sequence->tiles(input.layer, input.kv_head);
      for (int64_t g = 0; g < group; ++g) {
        Squeeze(scoring.pool, tiles,
                votes.data() + offsets[at] + g * static_cast<int64_t>(tiles.size()) * kTileSlots,
                candidates.skip,
                std::span(attention).subspan(static_cast<size_t>(g) * tokens.size(), tokens.size()));
      }
      input.attention = attention.data();
      input.attention_stride = static_cast<int64_t>(tokens.size());
    }
    if (needs.losses) {
      for (const int32_t token : tokens) losses.push_back(candidates.losses[static_cast<size_t>(token)]);
      input.losses = losses;
    }
    std::vector<float>& out = (*scores)[at];
    out.resize(tokens.size());
    policy.Score(input, out);
    for (float& score : out) {  // what is no number is worth nothing
      if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
    }
  });
}

}  // namespace palimpsest
