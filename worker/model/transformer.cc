#include "worker/model/transformer.h"

#include <algorithm>

#include "proto/base/status.h"

namespace palimpsest {

Transformer::Transformer(const ModelConfig& config, const Weights* weights, Backend* backend,
                         const RopeTable* rope, int64_t max_rows)
    : config_(config),
      weights_(weights),
      backend_(backend),
      rope_(rope),
      max_rows_(max_rows),
      x_(max_rows * config.hidden),
      normed_(max_rows * config.hidden),
      qkv_(max_rows * (config.q_columns() + 2 * config.kv_columns())),
      attended_(max_rows * config.q_columns()),
      gated_(max_rows * config.ffn),
      last_rows_(config.hidden),
      logits_(config.vocabulary) {
  const size_t rows = static_cast<size_t>(max_rows);
  ids_.reserve(rows);
  positions_.reserve(rows);
  places_.reserve(rows);
  kv_rows_.reserve(rows);
  kv_tiles_.reserve(rows * static_cast<size_t>(config.kv_heads));
  sequences_.reserve(rows);
  column_sums_.reserve(rows);
  head_tiles_.reserve(rows * static_cast<size_t>(config.kv_heads));
  head_shifts_.reserve(rows * static_cast<size_t>(config.kv_heads));
  head_coded_.reserve(rows * static_cast<size_t>(config.kv_heads));
}

int64_t Transformer::activation_bytes() const {
  return (x_.size() + qkv_.size() + last_rows_.size() + logits_.size() + loss_logits_.size()) * 4 +
         (normed_.size() + attended_.size() + gated_.size()) * 2;
}

// Ids, positions and places of all rows: the same for every layer.
void Transformer::Gather(std::span<const StepRows> step) {
  ids_.clear();
  positions_.clear();
  places_.clear();
  for (const StepRows& entry : step) {
    const int64_t n = static_cast<int64_t>(entry.tokens.size());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = entry.sequence->next_position() - n + i;
      ids_.push_back(entry.tokens[static_cast<size_t>(i)]);
      positions_.push_back(position);
      places_.push_back(entry.sequence->PlaceOf(position));
    }
  }
  rows_ = static_cast<int64_t>(ids_.size());
  PALIMPSEST_CHECK(rows_ >= 1 && rows_ <= max_rows_, "a step of {} rows, at most {}", rows_, max_rows_);
}

void Transformer::Attend(std::span<const StepRows> step, int64_t layer, TilePool pool) {
  const int64_t columns = config_.q_columns() + 2 * config_.kv_columns();
  kv_rows_.clear();
  kv_tiles_.clear();
  const KvShape shape{config_.layers, config_.kv_heads, config_.head_size};
  for (int64_t t = 0; t < rows_; ++t) {
    const auto [group, slot] = places_[static_cast<size_t>(t)];
    kv_rows_.push_back({.position = positions_[static_cast<size_t>(t)],
                        .slot = static_cast<int32_t>(slot),
                        .rest = group->rest(layer, shape),
                        .rest_rows = group->rows,
                        .rest_stride = shape.tile_stride(group->rows)});
    for (int64_t h = 0; h < config_.kv_heads; ++h) {
      kv_tiles_.push_back(group->tiles[static_cast<size_t>(layer * config_.kv_heads + h)]);
    }
  }
  backend_->StoreKv(
      {.k = {qkv_.data() + config_.q_columns(), rows_, config_.kv_columns(), columns},
       .v = {qkv_.data() + config_.q_columns() + config_.kv_columns(), rows_, config_.kv_columns(), columns},
       .kv_heads = config_.kv_heads,
       .head_size = config_.head_size,
       .rope = rope_,
       .pool = pool,
       .rows = kv_rows_,
       .tiles = kv_tiles_});

  sequences_.clear();
  column_sums_.clear();
  head_tiles_.clear();
  head_shifts_.clear();
  head_coded_.clear();
  AttentionArgs attention{.q = {qkv_.data(), rows_, config_.q_columns(), columns},
                          .out = {attended_.data(), rows_, config_.q_columns(), config_.q_columns()},
                          .heads = config_.heads,
                          .kv_heads = config_.kv_heads,
                          .head_size = config_.head_size,
                          .rope = rope_,
                          .pool = pool,
                          .sequences = {}};
  int64_t row = 0;
  for (const StepRows& entry : step) {
    const int64_t n = static_cast<int64_t>(entry.tokens.size());
    const bool shifted = !entry.sequence->shifts(layer, 0).empty();
    // Pointers into lists that never reallocate: reserved.
    sequences_.push_back(
        {.first_row = row,
         .rows = n,
         .positions = positions_.data() + row,
         .tiles = head_tiles_.data() + head_tiles_.size(),
         .shifts = shifted ? head_shifts_.data() + head_shifts_.size() : nullptr,
         .coded = entry.sequence->has_coded() ? head_coded_.data() + head_coded_.size() : nullptr});
    if (entry.sums != nullptr) {
      size_t tiles = 0;
      for (int64_t h = 0; h < config_.kv_heads; ++h) {
        tiles = std::max(tiles, entry.sequence->tiles(layer, h).size());
      }
      column_sums_.push_back(entry.sums->Of(layer, static_cast<int64_t>(tiles)));
      sequences_.back().sums = &column_sums_.back();
    }
    for (int64_t h = 0; h < config_.kv_heads; ++h) {
      head_tiles_.push_back(entry.sequence->tiles(layer, h));
      head_shifts_.push_back(entry.sequence->shifts(layer, h));
      head_coded_.push_back(entry.sequence->coded(layer, h));
    }
    const Rows<const float> q{qkv_.data() + row * columns, n, config_.q_columns(), columns};
    const std::span<const int64_t> positions = std::span(positions_).subspan(row, n);
    if (entry.queries != nullptr) entry.queries->Take(layer, entry.first_token, positions, q);
    if (entry.moments != nullptr) entry.moments->Take(backend_->pool(), layer, entry.first_token, q);
    row += n;
    if (entry.hook == nullptr) continue;
    entry.hook->BeforeAttention(layer, q, positions);
    attention.sequences = std::span(sequences_).last(1);
    if (entry.hook->Attend(layer, attention)) sequences_.pop_back();
  }
  attention.sequences = sequences_;
  if (!sequences_.empty()) backend_->Attention(attention);
}

void Transformer::Layer(std::span<const StepRows> step, int64_t layer, TilePool pool) {
  const LayerWeights& w = weights_->layers[static_cast<size_t>(layer)];
  const int64_t hidden = config_.hidden, columns = config_.q_columns() + 2 * config_.kv_columns();
  const float epsilon = static_cast<float>(config_.rms_epsilon);
  const Rows<float> x{x_.data(), rows_, hidden, hidden};
  const Rows<const float> x_in{x_.data(), rows_, hidden, hidden};
  const Rows<Bf16> normed{normed_.data(), rows_, hidden, hidden};
  const Rows<const Bf16> normed_in{normed_.data(), rows_, hidden, hidden};

  backend_->RmsNorm({.x = x_in, .weight = w.attention_norm.data(), .epsilon = epsilon, .out = normed});
  backend_->MatMul({.a = normed_in,
                    .weights = &w.qkv,
                    .output = MatMulOutput::kStore,
                    .out = {qkv_.data(), rows_, columns, columns},
                    .gated = {}});
  Attend(step, layer, pool);
  backend_->MatMul({.a = {attended_.data(), rows_, config_.q_columns(), config_.q_columns()},
                    .weights = &w.attention_output,
                    .output = MatMulOutput::kAdd,
                    .out = x,
                    .gated = {}});
  backend_->RmsNorm({.x = x_in, .weight = w.ffn_norm.data(), .epsilon = epsilon, .out = normed});
  backend_->MatMul({.a = normed_in,
                    .weights = &w.gate_up,
                    .output = MatMulOutput::kSiluGate,
                    .out = {},
                    .gated = {gated_.data(), rows_, config_.ffn, config_.ffn}});
  backend_->MatMul({.a = {gated_.data(), rows_, config_.ffn, config_.ffn},
                    .weights = &w.down,
                    .output = MatMulOutput::kAdd,
                    .out = x,
                    .gated = {}});
}

Rows<const float> Transformer::Logits(std::span<const StepRows> step) {
  const int64_t hidden = config_.hidden;
  const int64_t wanted =
      std::count_if(step.begin(), step.end(), [](const StepRows& entry) { return entry.logits; });
  if (wanted == 0) return {};
  last_rows_.Reserve(wanted * hidden);
  logits_.Reserve(wanted * config_.vocabulary);
  int64_t row = 0, out = 0;
  for (const StepRows& entry : step) {
    row += static_cast<int64_t>(entry.tokens.size());
    if (entry.logits) std::copy_n(x_.data() + (row - 1) * hidden, hidden, last_rows_.data() + out++ * hidden);
  }
  const Rows<Bf16> normed{normed_.data(), wanted, hidden, hidden};
  backend_->RmsNorm({.x = {last_rows_.data(), wanted, hidden, hidden},
                     .weight = weights_->output_norm.data(),
                     .epsilon = static_cast<float>(config_.rms_epsilon),
                     .out = normed});
  backend_->MatMul({.a = {normed_.data(), wanted, hidden, hidden},
                    .weights = &weights_->lm_head(),
                    .output = MatMulOutput::kStore,
                    .out = {logits_.data(), wanted, config_.vocabulary, config_.vocabulary},
                    .gated = {}});
  return {logits_.data(), wanted, config_.vocabulary, config_.vocabulary};
}

// In row chunks: logits of all rows at once would be rows x vocabulary.
void Transformer::Losses(std::span<const StepRows> step) {
  constexpr int64_t kLossRows = 128;
  const int64_t hidden = config_.hidden, vocabulary = config_.vocabulary;
  int64_t row = 0;
  for (const StepRows& entry : step) {
    const int64_t wanted = static_cast<int64_t>(entry.targets.size());
    if (wanted > 0) loss_logits_.Reserve(kLossRows * vocabulary);
    for (int64_t first = 0; first < wanted; first += kLossRows) {
      const int64_t n = std::min(kLossRows, wanted - first);
      const Rows<Bf16> normed{normed_.data(), n, hidden, hidden};
      backend_->RmsNorm({.x = {x_.data() + (row + first) * hidden, n, hidden, hidden},
                         .weight = weights_->output_norm.data(),
                         .epsilon = static_cast<float>(config_.rms_epsilon),
                         .out = normed});
      backend_->MatMul({.a = {normed_.data(), n, hidden, hidden},
                        .weights = &weights_->lm_head(),
                        .output = MatMulOutput::kStore,
                        .out = {loss_logits_.data(), n, vocabulary, vocabulary},
                        .gated = {}});
      const size_t from = static_cast<size_t>(first), count = static_cast<size_t>(n);
      backend_->TokenLosses({.logits = {loss_logits_.data(), n, vocabulary, vocabulary},
                             .targets = entry.targets.subspan(from, count),
                             .out = entry.losses.subspan(from, count)});
    }
    row += static_cast<int64_t>(entry.tokens.size());
  }
}

Rows<const float> Transformer::Step(std::span<const StepRows> step, TilePool pool) {
  Gather(step);
  backend_->Embed({.ids = ids_,
                   .weights = &weights_->embedding,
                   .x = {x_.data(), rows_, config_.hidden, config_.hidden}});
  for (int64_t layer = 0; layer < config_.layers; ++layer) Layer(step, layer, pool);
  for (const StepRows& entry : step) {
    if (entry.sums != nullptr) entry.sums->Joined(static_cast<int64_t>(entry.tokens.size()));
  }
  Losses(step);
  return Logits(step);
}

}  // namespace palimpsest
