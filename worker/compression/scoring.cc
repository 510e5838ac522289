#include "worker/compression/scoring.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "proto/base/status.h"
#include "worker/compression/output_norms.h"
#include "worker/compression/slots.h"

namespace palimpsest {
namespace {

// What all queries thought of one head's candidates.
struct HeadSums {
  std::vector<float> sums, squares;  // (group, n)
  std::vector<float> seen_by;        // (n)

  void Take(const HeadSlots& slots, const Candidates& candidates, int64_t layer, int64_t first_head,
            int64_t group, bool with_squares, std::span<const int32_t> tokens) {
    const AttentionSums& from = *candidates.sums;
    std::vector<float> columns(slots.tiles.size() * kTileSlots);
    const auto read = [&](bool squared, std::vector<float>* to) {
      to->resize(static_cast<size_t>(group * slots.count));
      for (int64_t g = 0; g < group; ++g) {
        from.Read(layer, first_head + g, squared, columns);
        ReadColumns(slots, columns.data(), to->data() + g * slots.count);
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

// One question to a policy about all heads: what all of them need is made first, what one needs when it is
// asked.
class Pass {
 public:
  Pass(const Scoring& scoring, const CompressionPolicy& policy, const Observed& observed,
       const Candidates& candidates)
      : scoring_(scoring),
        config_(*scoring.config),
        policy_(policy),
        observed_(observed),
        candidates_(candidates),
        needs_(policy.needs()),
        group_(config_.heads / config_.kv_heads) {}

  HeadScores Run();

 private:
  // What a head's input points at.
  struct Owned {
    std::vector<float> attention, losses, keys, values, query_mean, query_covariance, scratch;
    HeadSums sums;
  };

  bool attends() const { return needs_.window > 0 || needs_.catalyst; }
  int64_t heads() const { return config_.layers * config_.kv_heads; }
  std::span<const int32_t> TilesOf(int64_t head) const {
    return candidates_.sequence->tiles(head / config_.kv_heads, head % config_.kv_heads);
  }
  HeadSlots SlotsOf(int64_t head) const {
    return {.pool = scoring_.pool,
            .tiles = TilesOf(head),
            .skip = candidates_.skip,
            .count = static_cast<int64_t>(candidates_.tokens(static_cast<size_t>(head)).size()),
            .head_size = config_.head_size};
  }
  void Attend();
  void MeasureOutputs();
  HeadInput InputOf(int64_t head, Owned* owned) const;
  void ReadAttention(int64_t head, float* attention) const;
  void ScoreHead(int64_t head, HeadScores* out) const;

  const Scoring& scoring_;
  const ModelConfig& config_;
  const CompressionPolicy& policy_;
  const Observed& observed_;
  const Candidates& candidates_;
  const PolicyNeeds needs_;
  const int64_t group_;
  std::vector<int64_t> offsets_;                  // of each head's votes
  std::vector<float> votes_;                      // (heads), (group, tiles * 64)
  std::vector<std::vector<float>> output_norms_;  // (heads), (n)
  std::vector<float> mean_turn_;                  // (D)
};

// Attention of the observers to every slot, all heads at once.
void Pass::Attend() {
  offsets_.assign(static_cast<size_t>(heads()) + 1, 0);
  std::vector<palimpsest::ScoreHead> pass(static_cast<size_t>(heads()));
  for (int64_t i = 0; i < heads(); ++i) {
    const auto tiles = TilesOf(i);
    offsets_[static_cast<size_t>(i) + 1] =
        offsets_[static_cast<size_t>(i)] + group_ * static_cast<int64_t>(tiles.size()) * kTileSlots;
    pass[static_cast<size_t>(i)].tiles = tiles;
  }
  votes_.resize(static_cast<size_t>(offsets_.back()));
  for (int64_t i = 0; i < heads(); ++i) {
    palimpsest::ScoreHead& head = pass[static_cast<size_t>(i)];
    const int64_t column = i % config_.kv_heads * group_ * config_.head_size;
    head.q = observed_.queries->Queries(i / config_.kv_heads, column, group_ * config_.head_size);
    head.out = votes_.data() + offsets_[static_cast<size_t>(i)];
  }
  scoring_.backend->ScoreKeys({.positions = observed_.queries->positions(),
                               .group = group_,
                               .head_size = config_.head_size,
                               .reduce = needs_.reduce,
                               .rope = scoring_.rope,
                               .pool = scoring_.pool,
                               .heads = pass});
}

// Products run on all threads, so heads are taken one by one.
void Pass::MeasureOutputs() {
  OutputNorms norms(scoring_.backend, config_.head_size, group_);
  output_norms_.resize(static_cast<size_t>(heads()));
  std::vector<float> values;
  for (int64_t i = 0; i < heads(); ++i) {
    const HeadSlots slots = SlotsOf(i);
    values.resize(static_cast<size_t>(slots.count * config_.head_size));
    ReadValues(slots, values.data());
    std::vector<float>& of = output_norms_[static_cast<size_t>(i)];
    of.resize(static_cast<size_t>(slots.count));
    const size_t layer = static_cast<size_t>(i / config_.kv_heads);
    norms.Of(scoring_.weights->layers[layer].attention_output, i % config_.kv_heads, values.data(), of);
  }
}

void Pass::ReadAttention(int64_t head, float* attention) const {
  const HeadSlots slots = SlotsOf(head);
  const int64_t columns = static_cast<int64_t>(slots.tiles.size()) * kTileSlots;
  for (int64_t g = 0; g < group_; ++g) {
    ReadColumns(slots, votes_.data() + offsets_[static_cast<size_t>(head)] + g * columns,
                attention + g * slots.count);
  }
}

HeadInput Pass::InputOf(int64_t head, Owned* owned) const {
  const std::span<const int32_t> tokens = candidates_.tokens(static_cast<size_t>(head));
  const size_t n = tokens.size(), size = static_cast<size_t>(config_.head_size),
               group = static_cast<size_t>(group_);
  HeadInput input{.layer = head / config_.kv_heads,
                  .kv_head = head % config_.kv_heads,
                  .group = group_,
                  .head_size = config_.head_size,
                  .tokens = tokens,
                  .window_stays = candidates_.window_stays};
  owned->scratch.resize(2 * n);
  input.scratch = owned->scratch;
  if (attends()) {
    owned->attention.resize(group * n);
    ReadAttention(head, owned->attention.data());
    input.attention = owned->attention.data();
    input.attention_stride = static_cast<int64_t>(n);
  }
  if (needs_.repeat > 0) {
    for (size_t g = 0; g < group; ++g) {
      const int64_t query_head = head * group_ + static_cast<int64_t>(g);
      for (const int32_t token : tokens)
        owned->attention.push_back(observed_.repetition->At(query_head, token));
    }
    input.attention = owned->attention.data();
    input.attention_stride = static_cast<int64_t>(n);
  }
  if (needs_.losses) {
    for (const int32_t token : tokens)
      owned->losses.push_back(candidates_.losses[static_cast<size_t>(token)]);
    input.losses = owned->losses;
  }
  if (needs_.sums) {
    owned->sums.Take(SlotsOf(head), candidates_, input.layer, input.kv_head * group_, group_, needs_.squares,
                     tokens);
    input.sums = owned->sums.sums.data();
    input.squares = needs_.squares ? owned->sums.squares.data() : nullptr;
    input.sums_stride = static_cast<int64_t>(n);
    input.seen_by = owned->sums.seen_by;
  }
  if (needs_.keys != PolicyNeeds::Keys::kNone) {
    owned->keys.resize(n * size);
    if (needs_.keys == PolicyNeeds::Keys::kRest) {
      ReadKeysAtRest(SlotsOf(head), *scoring_.rope, owned->keys.data());
    } else {
      ReadKeys(SlotsOf(head), owned->keys.data());
    }
    input.keys = owned->keys;
  }
  if (needs_.values) {
    owned->values.resize(n * size);
    ReadValues(SlotsOf(head), owned->values.data());
    input.values = owned->values;
  }
  if (needs_.output_norms) input.output_norms = output_norms_[static_cast<size_t>(head)];
  if (needs_.future == 0) return input;
  owned->query_mean.resize(group * size);
  owned->query_covariance.resize(group * size * size);
  for (size_t g = 0; g < group; ++g) {
    const int64_t query_head = input.kv_head * group_ + static_cast<int64_t>(g);
    observed_.moments->Mean(input.layer, query_head, std::span(owned->query_mean).subspan(g * size, size));
    observed_.moments->Covariance(input.layer, query_head,
                                  std::span(owned->query_covariance).subspan(g * size * size, size * size));
  }
  input.query_mean = owned->query_mean;
  input.query_covariance = owned->query_covariance;
  input.mean_turn = mean_turn_;
  return input;
}

// What is no number is worth nothing.
void DropNans(std::span<float> scores) {
  for (float& score : scores) {
    if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  }
}

void Pass::ScoreHead(int64_t head, HeadScores* out) const {
  const size_t at = static_cast<size_t>(head);
  Owned owned;
  const HeadInput input = InputOf(head, &owned);
  out->scores[at].resize(input.tokens.size());
  policy_.Score(input, out->scores[at]);
  DropNans(out->scores[at]);
  if (!out->attention.empty()) {
    out->attention[at].resize(input.tokens.size());
    policy_.Attention(input, out->attention[at]);
  }
  if (out->rest.empty()) return;
  out->rest[at].resize(input.tokens.size());
  policy_.ScoreRest(input, out->scores[at], out->rest[at]);
  DropNans(out->rest[at]);
}

HeadScores Pass::Run() {
  if (attends()) Attend();
  if (needs_.output_norms) MeasureOutputs();
  if (needs_.future > 0) {
    mean_turn_.resize(static_cast<size_t>(config_.head_size));
    MeanTurn(*scoring_.rope, candidates_.next_position, needs_.future, mean_turn_);
  }
  HeadScores out{.scores = {}, .rest = {}, .attention = {}, .first_share = policy_.first_share()};
  out.scores.resize(static_cast<size_t>(heads()));
  if (out.first_share < 1) out.rest.resize(out.scores.size());
  if (needs_.shares_by_attention) out.attention.resize(out.scores.size());
  ThreadPool& threads = scoring_.backend->pool();
  threads.ParallelFor(heads(), [&](int64_t head, int) { ScoreHead(head, &out); });
  threads.ParallelFor(config_.layers, [&](int64_t layer, int) {
    const size_t kv_heads = static_cast<size_t>(config_.kv_heads);
    policy_.Agree(std::span(out.scores).subspan(static_cast<size_t>(layer) * kv_heads, kv_heads));
  });
  return out;
}

}  // namespace

void HeadScores::Keep(size_t head, size_t i) {
  scores[head][i] = std::numeric_limits<float>::infinity();
  if (!rest.empty()) rest[head][i] = std::numeric_limits<float>::infinity();
}

HeadScores ScoreCandidates(const Scoring& scoring, const CompressionPolicy& policy, const Observed& observed,
                           const Candidates& candidates) {
  return Pass(scoring, policy, observed, candidates).Run();
}

}  // namespace palimpsest
