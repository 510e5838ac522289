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

// What all queries thought of one head's candidates.
struct HeadSums {
  std::vector<float> sums, squares;  // (group, n)
  std::vector<float> seen_by;        // (n)

  void Take(const TilePool& pool, std::span<const int32_t> tiles, const Candidates& candidates, int64_t layer,
            int64_t first_head, int64_t group, bool with_squares, std::span<const int32_t> tokens) {
    const AttentionSums& from = *candidates.sums;
    const size_t n = tokens.size();
    std::vector<float> columns(tiles.size() * kTileSlots);
    const auto read = [&](bool squared, std::vector<float>* to) {
      to->resize(static_cast<size_t>(group) * n);
      for (int64_t g = 0; g < group; ++g) {
        from.Read(layer, first_head + g, squared, columns);
        Squeeze(pool, tiles, columns.data(), candidates.skip,
                std::span(*to).subspan(static_cast<size_t>(g) * n, n));
      }
    };
    read(false, &sums);
    if (with_squares) read(true, &squares);
    // A token is seen by itself and what comes after; one from before the first row, by all rows.
    for (const int32_t token : tokens) {
      seen_by.push_back(static_cast<float>(candidates.end - std::max<int64_t>(token, from.first())));
    }
  }
};

// The KV heads of each layer take the mean of their scores, where they choose from the same tokens.
void AverageLayers(const ModelConfig& config, const Candidates& candidates,
                   std::vector<std::vector<float>>* scores) {
  const size_t kv_heads = static_cast<size_t>(config.kv_heads);
  for (size_t first = 0; first < scores->size(); first += kv_heads) {
    const auto same = [&](size_t h) {
      const std::span<const int32_t> a = candidates.tokens(first), b = candidates.tokens(first + h);
      return std::equal(a.begin(), a.end(), b.begin(), b.end());
    };
    bool all = true;
    for (size_t h = 1; h < kv_heads && all; ++h) all = same(h);
    if (!all) continue;
    std::vector<float>& mean = (*scores)[first];
    for (size_t i = 0; i < mean.size(); ++i) {
      for (size_t h = 1; h < kv_heads; ++h) mean[i] += (*scores)[first + h][i];
      mean[i] /= static_cast<float>(kv_heads);
    }
    for (size_t h = 1; h < kv_heads; ++h) (*scores)[first + h] = mean;
  }
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
    HeadSums sums;
    if (needs.sums) {
      sums.Take(scoring.pool, candidates.sequence->tiles(input.layer, input.kv_head), candidates, input.layer,
                input.kv_head * group, group, needs.squares, tokens);
      input.sums = sums.sums.data();
      input.squares = needs.squares ? sums.squares.data() : nullptr;
      input.sums_stride = static_cast<int64_t>(tokens.size());
      input.seen_by = sums.seen_by;
    }
    std::vector<float>& out = (*scores)[at];
    out.resize(tokens.size());
    policy.Score(input, out);
    for (float& score : out) {  // what is no number is worth nothing
      if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
    }
  });
  if (needs.layer_wide) AverageLayers(config, candidates, scores);
}

}  // namespace palimpsest
