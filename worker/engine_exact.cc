// Exact prefill: the context is read as one text, and what stays of it is picked at its end.
#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "worker/compression/merging.h"
#include "worker/compression/scoring.h"
#include "worker/compression/shares.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// What stays of each head, the prefix with it.
std::vector<std::vector<int32_t>> Engine::PicksOf(Job& job) {
  Compression& c = *job.compression;
  const size_t heads = static_cast<size_t>(store_->shape().tiles());
  if (c.policy == nullptr) return std::vector<std::vector<int32_t>>(heads, Range(0, c.context_end));
  ShareReading(job);
  const std::vector<std::vector<int32_t>> candidates = {Range(c.fixed, c.context_end)};
  HeadScores scores = Score(job, candidates, c.fixed, /*window_stays=*/true);
  KeepScores(c, scores);
  for (size_t head = 0; head < heads; ++head) {  // a question that the policy sees stays too
    for (int64_t i = c.question_first; i < c.context_end; ++i)
      scores.Keep(head, static_cast<size_t>(i - c.fixed));
  }
  const std::vector<int64_t> counts = CountsOf(*c.policy, SharesOf(c, scores.scores, scores.attention));
  std::vector<std::vector<int32_t>> kept(heads);
  backend_->pool().ParallelFor(static_cast<int64_t>(heads), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    SelectTop(scores.Of(i), counts[i], &kept[i]);
    PutBehindPrefix(c.fixed, &kept[i]);
  });
  return kept;
}

// The picks move into tiles of their own at the positions they had; the blocks they came from are released.
void Engine::EndExact(Job& job) {
  Compression& c = *job.compression;
  std::vector<std::vector<int32_t>> kept = PicksOf(job);
  const size_t heads = kept.size();
  std::vector<Sequence::Packing> front(heads), rest(heads);
  const std::optional<CompressionPolicy::Sliding> sliding =
      c.policy == nullptr ? std::nullopt : c.policy->sliding();
  const int64_t front_end =
      sliding.has_value() ? std::max(c.fixed, sliding->sink) : std::numeric_limits<int64_t>::max();
  const std::vector<std::vector<Bf16>> merged = MergeDropped(job, kept);
  std::vector<std::vector<float>> sums;
  if (c.held_max > 0 && c.needs.sums) sums = SumsOf(job, kept);
  backend_->pool().ParallelFor(static_cast<int64_t>(heads), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    const auto tiles = job.sequence->tiles(at / config_.kv_heads, at % config_.kv_heads);
    const Bf16* joined = merged.empty() ? nullptr : merged[i].data();
    size_t block = 0;
    for (const int32_t token : kept[i]) {
      while (token >= job.blocks[block].first + job.blocks[block].rows) ++block;
      Sequence::Packing& to = token < front_end ? front[i] : rest[i];
      KvSource source{.tile = tiles[block], .slot = token - static_cast<int32_t>(job.blocks[block].first)};
      if (joined != nullptr && token >= c.fixed) {
        if (MergesKeys(c.spec.merge)) source.key = joined;
        source.value = joined + config_.head_size;
        joined += 2 * config_.head_size;
      }
      to.sources.push_back(source);
      to.positions.push_back(token);
    }
  });
  std::unique_ptr<Sequence> packed = NewSequence(job);
  int64_t next = job.sequence->next_position();
  if (sliding.has_value()) {  // positions by slot: the window follows the first tokens
    const int64_t first = static_cast<int64_t>(front[0].positions.size());
    const int64_t count = static_cast<int64_t>(rest[0].positions.size());
    const int32_t moved = count == 0 ? 0 : rest[0].positions[0] - static_cast<int32_t>(first);
    for (auto& head : rest) {
      for (int32_t& position : head.positions) position -= moved;
    }
    next = first + count;
    c.slides = true;
    AppendPacked(*packed, front, 0, first);
    c.front_tiles = packed->tiles(0, 0).size();
    AppendPacked(*packed, rest, -moved, next);
    c.window = count;
    // Of a short text the prefix or the first tokens may be all of it: the window holds the newest token at
    // least.
    c.window_max = std::max<int64_t>(1, c.spec.sink + c.spec.recent.value - first);
  } else {
    AppendPacked(*packed, front, 0, next);
  }
  if (c.view_key.has_value()) KeepExactView(job, *c.view_key, kept, merged, sums);
  if (c.takes_rest()) {  // what was picked from may go below now
    c.span_decided = true;
    SealFull(job);
    c.found.clear();
  }
  job.sequence = std::move(packed);
  GoOnSumming(job, sums);
  if (c.recall_tokens > 0 || c.held_max > 0) c.stayed = kept;
  if (job.request.trace && c.policy != nullptr) job.outcome.kept = ByLayer(std::move(kept));
  BeginQuestion(job);
}

// Where the context's blocks rest from token `first` on; nothing if one of them is nowhere below.
std::vector<RestBlock> Engine::ContextAtRest(Job& job, int64_t first) {
  Compression& c = *job.compression;
  const std::span<BlockGroup> groups = job.sequence->open_groups();
  std::vector<RestBlock> blocks;
  for (size_t i = 0; i < job.next_block && job.blocks[i].first < c.context_end; ++i) {
    const Job::Block& block = job.blocks[i];
    if (block.first < first) continue;
    RestBlock at{block.first, block.rows, nullptr};
    const auto found = std::find_if(c.found.begin(), c.found.end(),
                                    [&](const auto& one) { return one.first.first == block.first; });
    if (found != c.found.end()) {
      at = found->first;
    } else if (i >= job.next_seal) {
      at.data = groups[i - job.next_seal].rest(0, store_->shape());
    } else if (std::optional<TieredStore::Rest> rest = store_->ReadRest(block.id, block.rows)) {
      at.data = rest->data;
      c.found.push_back({at, std::move(rest->owner)});
    }
    if (at.data == nullptr) return {};
    blocks.push_back(at);
  }
  return blocks;
}

// The next question takes what is kept without reading the context.
void Engine::KeepExactView(Job& job, const Hash256& key, std::span<const std::vector<int32_t>> kept,
                           std::span<const std::vector<Bf16>> merged,
                           std::span<const std::vector<float>> sums) {
  Compression& c = *job.compression;
  const std::vector<RestBlock> blocks = ContextAtRest(job, 0);
  if (!blocks.empty()) {
    auto view = std::make_shared<View>();
    view->heads.resize(kept.size());
    backend_->pool().ParallelFor(static_cast<int64_t>(kept.size()), [&](int64_t head, int) {
      const size_t h = static_cast<size_t>(head);
      const Bf16* joined = merged.empty() ? nullptr : merged[h].data();
      for (const int32_t token : kept[h]) {
        RestToken rest = BlockOf(blocks, token)
                             .At(store_->shape(), head / config_.kv_heads, head % config_.kv_heads, token);
        if (joined != nullptr && token >= c.fixed) {
          rest = {joined, joined + config_.head_size};
          joined += 2 * config_.head_size;
        }
        view->heads[h].Append(token, rest, config_.head_size);
      }
      if (!sums.empty()) view->heads[h].sums = sums[h];
    });
    c.view = std::move(view);
    KeepView(key, c.view);
  }
  c.found.clear();
}

void Engine::TakeExactView(Job& job) {
  Compression& c = *job.compression;
  AppendPacked(*job.sequence, PackInPlace(*c.view, config_.head_size), 0, c.context_end);
  SkipTo(job, c.context_end, /*found=*/true);
  std::vector<std::vector<int32_t>> kept;
  std::vector<std::vector<float>> sums;
  for (const RestHead& head : c.view->heads) {
    kept.push_back(head.tokens);
    if (!head.sums.empty()) sums.push_back(head.sums);
  }
  GoOnSumming(job, sums);
  if (c.recall_tokens > 0 || c.held_max > 0) c.stayed = kept;
  if (job.request.trace) job.outcome.kept = ByLayer(std::move(kept));
  BeginQuestion(job);
}

}  // namespace palimpsest
