#include "worker/compression/eviction.h"

#include <utility>

#include "proto/base/status.h"
#include "worker/compression/slots.h"

namespace palimpsest {

Eviction::Eviction(const Setup& setup, const Sequence& sequence, std::vector<std::vector<int32_t>> tokens)
    : setup_(setup),
      needs_(setup.policy->needs()),
      group_(setup.config->heads / setup.config->kv_heads),
      heads_(tokens.size()),
      scores_(tokens.size()),
      scratch_(static_cast<size_t>(setup.threads->threads())) {
  const size_t most = static_cast<size_t>(setup.held_max) + 1;
  for (size_t i = 0; i < heads_.size(); ++i) {
    Head& head = heads_[i];
    head.tokens = std::move(tokens[i]);
    head.places.resize(head.tokens.size());
    ReadPlaces({.pool = setup.pool,
                .tiles = TilesOf(sequence, i),
                .skip = setup.skip,
                .count = std::ssize(head.tokens),
                .head_size = setup.config->head_size},
               head.places.data());
    head.tokens.reserve(most);
    head.places.reserve(most);
    scores_[i].reserve(most);
  }
  for (Scratch& scratch : scratch_) {
    scratch.rows.resize(most * static_cast<size_t>(2 * group_));
    scratch.seen_by.resize(most);
    scratch.policy.resize(2 * most);
  }
}

bool Eviction::Add(int32_t token, Sequence& sequence, AttentionSums& sums) {
  const int64_t slot = sequence.open_groups().back().filled - 1;
  for (size_t i = 0; i < heads_.size(); ++i) {
    const int64_t place = (std::ssize(TilesOf(sequence, i)) - 1) * kTileSlots + slot;
    heads_[i].tokens.push_back(token);
    heads_[i].places.push_back(static_cast<int32_t>(place));
  }
  if (std::ssize(heads_[0].tokens) <= setup_.held_max) return false;
  const size_t kv_heads = static_cast<size_t>(setup_.config->kv_heads);
  setup_.threads->ParallelFor(setup_.config->layers, [&](int64_t layer, int thread) {
    const size_t first = static_cast<size_t>(layer) * kv_heads;
    for (size_t i = first; i < first + kv_heads; ++i)
      ScoreHead(i, sums, scratch_[static_cast<size_t>(thread)]);
    setup_.policy->Agree(std::span(scores_).subspan(first, kv_heads));
    for (size_t i = first; i < first + kv_heads; ++i) Replace(i, WhoGoes(i), sequence, sums);
  });
  sequence.TakeBack();
  return true;
}

// As at the end of a context (scoring.cc), of rows that lie in the order of the text.
void Eviction::ScoreHead(size_t head, const AttentionSums& sums, Scratch& scratch) {
  const Head& held = heads_[head];
  const size_t n = held.tokens.size();
  const int64_t layer = static_cast<int64_t>(head) / setup_.config->kv_heads,
                kv_head = static_cast<int64_t>(head) % setup_.config->kv_heads;
  float* const rows = scratch.rows.data();
  float* const squares = rows + static_cast<size_t>(group_) * n;
  for (int64_t g = 0; g < group_; ++g) {
    const int64_t query_head = kv_head * group_ + g, at = g * static_cast<int64_t>(n);
    sums.ReadAt(layer, query_head, /*squares=*/false, held.places, rows + at);
    if (needs_.squares) sums.ReadAt(layer, query_head, /*squares=*/true, held.places, squares + at);
  }
  const int64_t end = held.tokens.back() + 1;
  for (size_t i = 0; i < n; ++i)
    scratch.seen_by[i] = static_cast<float>(end - std::max<int64_t>(held.tokens[i], sums.first()));
  scores_[head].resize(n);
  setup_.policy->Score({.layer = layer,
                        .kv_head = kv_head,
                        .group = group_,
                        .head_size = setup_.config->head_size,
                        .tokens = held.tokens,
                        .attention = rows,  // of the newest token, if that is what the sums are of
                        .attention_stride = static_cast<int64_t>(n),
                        .sums = rows,
                        .squares = squares,
                        .sums_stride = static_cast<int64_t>(n),
                        .seen_by = std::span(scratch.seen_by).first(n),
                        .scratch = std::span(scratch.policy).first(2 * n)},
                       scores_[head]);
}

// Index of the token that goes.
size_t Eviction::WhoGoes(size_t head) const {
  const std::vector<int32_t>& tokens = heads_[head].tokens;
  const std::vector<float>& scores = scores_[head];
  size_t last = tokens.size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= setup_.question_first && tokens[i] < setup_.question_end) continue;
    const bool lower = last == tokens.size() || GoesBefore(scores[last], static_cast<int64_t>(last),
                                                           scores[i], static_cast<int64_t>(i));
    if (lower) last = i;
  }
  PALIMPSEST_CHECK(last < tokens.size(), "{} tokens of a question, and no other that could go",
                   tokens.size());
  return last;
}

// The newest token takes the place of the one that goes; nothing to do where that is itself.
void Eviction::Replace(size_t head, size_t gone, const Sequence& sequence, AttentionSums& sums) {
  Head& held = heads_[head];
  const int64_t from = held.places.back(), to = held.places[gone];
  if (from != to) CopySlot(setup_.pool, TilesOf(sequence, head), setup_.config->head_size, from, to);
  const int64_t layer = static_cast<int64_t>(head) / setup_.config->kv_heads,
                first = static_cast<int64_t>(head) % setup_.config->kv_heads * group_;
  for (int64_t g = 0; g < group_; ++g) sums.Move(layer, first + g, from, to);
  held.places.back() = static_cast<int32_t>(to);
  held.tokens.erase(held.tokens.begin() + static_cast<std::ptrdiff_t>(gone));
  held.places.erase(held.places.begin() + static_cast<std::ptrdiff_t>(gone));
}

}  // namespace palimpsest
