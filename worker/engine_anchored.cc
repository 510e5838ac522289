// Anchored prefill: spans behind an anchor, read one by one; what is kept of them competes for one budget.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/compression/scoring.h"
#include "worker/compression/shares.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// The anchor's blocks, which another sequence of the same job still holds.
std::unique_ptr<Sequence> Engine::AnchorSequence(Job& job) {
  std::unique_ptr<Sequence> sequence = NewSequence(job);
  for (const Job::Block& block : job.blocks) {
    if (block.first >= job.compression->fixed) break;
    std::optional<TieredStore::Found> found = store_->Find(block.id, block.position, /*base=*/0, block.rows);
    PALIMPSEST_CHECK(found.has_value(), "a block of the anchor is gone while it is pinned");
    sequence->AddPinned(std::move(found->pin));
  }
  return sequence;
}

// Where the span's blocks rest: what was computed is still with its groups, what was found was read.
std::vector<RestBlock> Engine::SpanAtRest(Job& job) {
  const Compression::Span span = job.compression->spans[job.compression->span];
  std::vector<RestBlock> blocks;
  for (const auto& [block, value] : job.compression->found) blocks.push_back(block);
  const std::span<BlockGroup> groups = job.sequence->open_groups();
  for (size_t i = job.next_seal; i < job.next_block; ++i) {
    const Job::Block& block = job.blocks[i];
    if (block.first < span.first) continue;
    blocks.push_back({block.first, block.rows, groups[i - job.next_seal].rest(0, store_->shape())});
  }
  return blocks;
}

void Engine::EndSpan(Job& job) {
  Compression& c = *job.compression;
  if (c.view != nullptr) {  // of an earlier request
    SealFull(job);
    SkipTo(job, c.context_end, /*found=*/true);
    job.sequence = AnchorSequence(job);        // where it ends, attention begins behind it
  } else if (c.run < c.spans[c.span].first) {  // it gave way behind some spans
    SealFull(job);
    SkipTo(job, c.spans[c.span].first, /*found=*/false);
    return;
  } else {
    if (c.policy != nullptr) KeepOfSpan(job);
    if (c.probing()) job.sequence->EndProbe();
    c.found.clear();
    c.span_decided = true;
    SealFull(job);
    c.span_decided = false;
    if (c.policy == nullptr) KeepWhole(job);
    job.sequence = AnchorSequence(job);  // the span's room is free before anything else takes its own
    LeaveSpan(job);
    if (++c.span < c.spans.size()) return;
    if (c.policy != nullptr) c.view = std::shared_ptr<const View>(std::move(c.kept));
    if (c.view_key.has_value()) KeepView(*c.view_key, c.view);
  }
  AppendContext(job);
  BeginQuestion(job);
}

// Behind the anchor what is left of the spans, at positions that go on without a gap.
void Engine::AppendContext(Job& job) {
  Compression& c = *job.compression;
  if (c.policy == nullptr) {
    for (TieredStore::Pin& pin : c.whole) {
      const int64_t shift = job.sequence->next_position() - pin.group().first_position;
      job.sequence->AddPinned(std::move(pin), shift);
    }
    c.whole.clear();
    return;
  }
  AppendPacked(*job.sequence, PackAtRest(*c.view, config_.head_size, c.fixed), 0,
               c.fixed + c.view->tokens_max());
  TraceView(job, c.fixed);
}

void Engine::KeepOfSpan(Job& job) {
  Compression& c = *job.compression;
  const std::vector<std::vector<int32_t>> tokens = {Range(c.spans[c.span].first, c.spans[c.span].end)};
  // The last window stays, of the last span; if the question looks, it is the window.
  const bool last = c.span + 1 == c.spans.size() && c.probe.empty();
  const HeadScores scores = Score(job, tokens, c.fixed, last);
  KeepScores(c, scores);
  const int64_t heads = static_cast<int64_t>(scores.scores.size());
  const std::vector<RestBlock> blocks = SpanAtRest(job);
  if (c.kept == nullptr) {
    c.kept = std::make_unique<View>();
    c.kept->heads.resize(scores.scores.size());
  }
  backend_->pool().ParallelFor(heads, [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    std::vector<RestToken> rest;
    rest.reserve(tokens[0].size());
    for (const int32_t token : tokens[0]) {
      rest.push_back(
          BlockOf(blocks, token).At(store_->shape(), at / config_.kv_heads, at % config_.kv_heads, token));
    }
    // Whoever may have it at last has room for it until then.
    Compete(c.most, config_.head_size, {.tokens = tokens[0], .ranking = scores.Of(i), .at = rest},
            &c.kept->heads[i]);
  });
  if (c.span + 1 == c.spans.size()) ShareBudget(c);
}

// All spans are read: each head keeps its share of the best.
void Engine::ShareBudget(Compression& c) const {
  std::vector<std::vector<float>> scores;
  for (const RestHead& head : c.kept->heads) scores.push_back(head.scores);
  const std::vector<int64_t> counts = CountsOf(*c.policy, SharesOf(c, scores));
  for (size_t i = 0; i < counts.size(); ++i) {
    KeepBest(counts[i], c.policy->first_share(), config_.head_size, &c.kept->heads[i]);
  }
}

// What a policy has chosen from is not read again before another one does, and the next span wants its room:
// device memory does not grow with the text.
void Engine::LeaveSpan(const Job& job) {
  const Compression& c = *job.compression;
  if (c.policy == nullptr) return;
  std::vector<BlockId> ids;
  for (const Job::Block& block : job.blocks) {
    if (block.first >= c.spans[c.span].first && block.first < c.spans[c.span].end) ids.push_back(block.id);
  }
  store_->Leave(ids);
}

// Nothing is dropped: the span's blocks stay pinned until the question moves them behind each other.
void Engine::KeepWhole(Job& job) {
  const Compression::Span span = job.compression->spans[job.compression->span];
  for (const Job::Block& block : job.blocks) {
    if (block.first < span.first || block.first >= span.end) continue;
    std::optional<TieredStore::Found> found = store_->Find(block.id, block.position, /*base=*/0, block.rows);
    PALIMPSEST_CHECK(found.has_value(), "a block of a span is gone while it is pinned");
    job.compression->whole.push_back(std::move(found->pin));
  }
}

// What was read up to there needs not be read again; by an earlier request, it counts as found.
void Engine::SkipTo(Job& job, int64_t token, bool found) {
  Compression& c = *job.compression;
  const int64_t before = job.cached;
  for (; job.next_block < job.blocks.size() && job.blocks[job.next_block].first < token; ++job.next_block) {
    Job::Block& block = job.blocks[job.next_block];
    if (!found || block.origin != Job::Block::Origin::kNone) continue;
    block.origin = Job::Block::Origin::kCached;
    job.cached += block.rows;
    job.found[static_cast<size_t>(c.view_source)] += block.rows;
  }
  job.next_seal = job.next_block;
  job.prefilled = c.run = token;
  stats_.cached_tokens += job.cached - before;
  if (job.request.on_found && job.cached > before) job.request.on_found(job.cached);
}

}  // namespace palimpsest
