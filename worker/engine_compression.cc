// Compression while a request runs: where its reading stops, what is decided there, what the question then
// sees.
#include "worker/engine_compression.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "proto/base/status.h"
#include "worker/compression/scoring.h"
#include "worker/engine_job.h"

namespace palimpsest {
namespace {

constexpr int64_t kNoStop = std::numeric_limits<int64_t>::max();

std::vector<int32_t> Range(int64_t first, int64_t end) {
  std::vector<int32_t> range(static_cast<size_t>(end - first));
  std::iota(range.begin(), range.end(), static_cast<int32_t>(first));
  return range;
}

}  // namespace

// Begins, or begins again after it gave way: what was decided of the context by then, by this request or by
// an earlier one, is taken as it is.
void Engine::StartCompression(Job& job) {
  Compression& c = *job.compression;
  c.context_done = false;
  c.probe_done = -1;
  c.run = 0;
  c.slides = false;
  if (c.policy == nullptr) c.span = 0;
  if (c.wants_losses && c.losses.empty()) {
    c.losses.assign(static_cast<size_t>(job.prompt_tokens + job.max_tokens + 1), 0.0f);
    c.losses[0] = std::numeric_limits<float>::infinity();
  }
  if (c.view == nullptr && c.cycles == 0 && c.view_key.has_value()) {
    c.view = views_.Find(*c.view_key);
    if (c.view != nullptr && c.pot()) FindPotView(job);
  }
  if (c.pot() && c.view == nullptr) c.parent = c.chain->Root();
  if (c.pot() && c.view != nullptr) {
    std::vector<Sequence::Packing> heads(c.view->heads.size());
    for (size_t i = 0; i < heads.size(); ++i) heads[i] = PackAtRest(c.view->heads[i], config_.head_size, 0);
    AppendPacked(*job.sequence, heads, 0, c.view->tokens_max());
    job.prefilled = c.run = c.stretch_first;
    c.context_done = c.stretch_first >= c.context_end;
  }
  SetStop(job);
}

// The pot as an earlier request about the same context left it.
void Engine::FindPotView(Job& job) {
  Compression& c = *job.compression;
  std::copy(c.view->losses.begin(), c.view->losses.end(), c.losses.begin());
  FirstOfQuestion(c);
  c.cycles = 1;
  c.parent = c.view->parent;
  c.stretch_first = c.context_end;
  job.cached = c.context_end;
  stats_.cached_tokens += job.cached;
  TraceView(job, 0);
  if (job.request.on_found) job.request.on_found(job.cached);
}

void Engine::SetStop(Job& job) {
  Compression& c = *job.compression;
  int64_t first = c.fixed;  // of the tokens that are scored
  if (c.pot()) {
    c.stop = c.stretch_end();
    first = c.stretch_first;
    if (!c.context_done) c.stop = std::min(c.stop, std::max(c.context_end, c.run));
  } else if (c.context_done) {
    c.stop = kNoStop;
  } else if (c.anchored() && (c.view != nullptr || (c.span > 0 && c.run < c.spans[c.span].first))) {
    c.stop = c.fixed;  // then it goes on where somebody has been
  } else if (c.anchored()) {
    first = c.spans[c.span].first;
    c.stop = c.spans[c.span].end;
  } else {
    c.stop = c.context_end;
  }
  if (c.needs.window == 0 || !c.probe.empty() || c.stop == kNoStop) return;
  const int64_t last = c.pot() ? c.stretch_end() : c.stop;
  first = std::max(first, last - c.needs.window);
  if (c.queries.count() == last - first && c.queries.first() == first && c.run > first) return;  // goes on
  c.queries.Begin(config_.layers, config_.q_columns(), first, last - first);
}

// Blocks that end behind this are not looked for: their rows run, because somebody looks at them.
int64_t Engine::FindableEnd(const Job& job) {
  const Compression* c = job.compression.get();
  if (c == nullptr || c->context_done || c->stop == kNoStop) return kNoStop;
  if (c->wants_losses) return 0;
  return c->stop - (c->probe.empty() && c->view == nullptr ? c->needs.window : 0);
}

// Rows that it could have in the next step.
int64_t Engine::RowsWanted(const Job& job) {
  const Compression* c = job.compression.get();
  if (c == nullptr) return job.length() - job.prefilled;
  if (c->probing()) return c->probe_size() - c->probe_done;
  if (!c->slides) return std::min(job.length(), c->stop) - job.prefilled;
  // The window moves before each token of the answer, also of one that is resumed.
  if (job.prefilled < job.prompt_tokens) return job.prompt_tokens - job.prefilled;
  return std::min<int64_t>(1, job.length() - job.prefilled);
}

// Decides what is to be decided where it stands. False: rows are needed first, or there is nothing to decide.
bool Engine::PassStop(Job& job, bool more_follows) {
  if (job.compression == nullptr) return false;
  Compression& c = *job.compression;
  if (c.probing() || c.run != c.stop) return false;
  const bool context_ends = c.pot() && !c.context_done && c.run == c.context_end;
  // A full pot is distilled first, while its last tokens can still say what matters in it.
  if (context_ends && (c.run < c.stretch_end() || c.goes_on)) {
    EndContext(job);
    return true;
  }
  if (c.pot() && !context_ends && !more_follows) return false;  // the pot is full, and that is that
  const bool skips = c.anchored() && (c.view != nullptr || c.run < c.spans[c.span].first);
  const bool decides = c.policy != nullptr && !skips;
  if (decides && !c.probe.empty()) {
    job.sequence->BeginProbe();
    c.probe_done = 0;
    const int64_t count = c.needs.catalyst ? c.probe_size() : std::min(c.probe_size(), c.needs.window);
    c.queries.Begin(config_.layers, config_.q_columns(), c.probe_size() - count, count);
    return false;
  }
  Decide(job);
  return true;
}

void Engine::Decide(Job& job) {
  Compression& c = *job.compression;
  const TimePoint start = options_.clock->Now();
  const int64_t spilled_before = store_->stats().spilled_bytes, lost_before = store_->stats().lost;
  if (c.pot()) {
    EndStretch(job);
    if (!c.context_done && c.run == c.context_end && !c.goes_on) EndContext(job);
  } else if (c.anchored()) {
    EndSpan(job);
  } else {
    EndExact(job);
  }
  c.probe_done = -1;
  SetStop(job);
  job.spilled_bytes += store_->stats().spilled_bytes - spilled_before;
  job.lost_blocks += store_->stats().lost - lost_before;
  job.compression_seconds += Since(start);
}

void Engine::AddProbeRows(Job& job, int64_t budget) {
  Compression& c = *job.compression;
  const int64_t first = c.probe_done, end = std::min(c.probe_size(), first + budget);
  while (c.probe_done < end) {
    if (job.sequence->room() == 0 || c.probe_done == 0) OpenOwnGroup(job, kTileSlots, /*keep_rest=*/false);
    const int64_t n = std::min(end - c.probe_done, job.sequence->room());
    job.sequence->Extend(n);
    c.probe_done += n;
  }
  step_.push_back(
      {.sequence = job.sequence.get(),
       .tokens = std::span(c.probe).subspan(static_cast<size_t>(first), static_cast<size_t>(end - first)),
       .logits = false,
       .queries = &c.queries,
       .first_token = first});
  step_jobs_.push_back(&job);
}

std::vector<std::vector<float>> Engine::Score(const Job& job, std::span<const std::vector<int32_t>> tokens,
                                              int64_t skip, bool window_stays) {
  const Compression& c = *job.compression;
  std::vector<std::vector<float>> scores;
  ScoreCandidates(
      {.backend = backend_.get(), .config = &config_, .rope = rope_.get(), .pool = arena_->pool()}, *c.policy,
      c.queries,
      {.sequence = job.sequence.get(),
       .skip = skip,
       .tokens = [&](size_t head) -> std::span<const int32_t> {
         return tokens.size() == 1 ? tokens[0] : tokens[head];
       },
       .losses = c.losses,
       .window_stays = window_stays},
      &scores);
  return scores;
}

Outcome::Kept Engine::ByLayer(std::vector<std::vector<int32_t>> heads) const {
  Outcome::Kept kept(static_cast<size_t>(config_.layers));
  for (size_t i = 0; i < heads.size(); ++i) {
    kept[i / static_cast<size_t>(config_.kv_heads)].push_back(std::move(heads[i]));
  }
  return kept;
}

// --- exact

// The picks move into tiles of their own at the positions they had; the blocks they came from are released.
void Engine::EndExact(Job& job) {
  Compression& c = *job.compression;
  const std::vector<std::vector<int32_t>> candidates = {Range(c.fixed, c.context_end)};
  auto scores = Score(job, candidates, c.fixed, /*window_stays=*/true);
  for (auto& head : scores) {  // a question that the policy sees stays too
    std::fill(head.begin() + (c.question_first - c.fixed), head.end(),
              std::numeric_limits<float>::infinity());
  }
  std::vector<std::vector<int32_t>> kept(scores.size());
  std::vector<Sequence::Packing> front(scores.size()), rest(scores.size());
  const bool sliding = c.policy->sliding().has_value();
  const int64_t front_end = sliding ? std::max(c.fixed, c.policy->sliding()->sink) : kNoStop;
  backend_->pool().ParallelFor(static_cast<int64_t>(scores.size()), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    std::vector<int32_t>& tokens = kept[i];
    SelectTop(scores[i], c.budget - c.fixed, &tokens);
    for (int32_t& token : tokens) token += static_cast<int32_t>(c.fixed);
    const std::vector<int32_t> prefix = Range(0, c.fixed);
    tokens.insert(tokens.begin(), prefix.begin(), prefix.end());
    const auto tiles = job.sequence->tiles(at / config_.kv_heads, at % config_.kv_heads);
    size_t block = 0;
    for (const int32_t token : tokens) {
      while (token >= job.blocks[block].first + job.blocks[block].rows) ++block;
      Sequence::Packing& to = token < front_end ? front[i] : rest[i];
      to.sources.push_back(
          {.tile = tiles[block], .slot = token - static_cast<int32_t>(job.blocks[block].first)});
      to.positions.push_back(token);
    }
  });
  auto packed = std::make_unique<Sequence>(store_.get(), job.groups_max);
  int64_t next = job.sequence->next_position();
  if (sliding) {  // positions by slot: the window follows the first tokens
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
    c.window_max = c.spec.sink + c.spec.recent.value - first;
  } else {
    AppendPacked(*packed, front, 0, next);
  }
  job.sequence = std::move(packed);
  if (job.request.trace) job.outcome.kept = ByLayer(std::move(kept));
  BeginQuestion(job);
}

void Engine::AppendPacked(Sequence& sequence, std::span<const Sequence::Packing> heads, int64_t base,
                          int64_t next_position) {
  const absl::Status packed = sequence.AppendPacked(heads, base, next_position);
  PALIMPSEST_CHECK(packed.ok(), "an admitted request found no room: {}", Message(packed));
}

// --- anchored

// The anchor's blocks, which another sequence of the same job still holds.
std::unique_ptr<Sequence> Engine::AnchorSequence(Job& job) {
  auto sequence = std::make_unique<Sequence>(store_.get(), job.groups_max);
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
    if (++c.span < c.spans.size()) {
      job.sequence = AnchorSequence(job);
      return;
    }
    if (c.policy != nullptr) c.view = std::shared_ptr<const View>(std::move(c.kept));
    if (c.view_key.has_value()) views_.Put(*c.view_key, c.view);
  }
  job.sequence = AnchorSequence(job);  // the span's room is free before what is left of them takes its own
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
  std::vector<Sequence::Packing> heads(c.view->heads.size());
  for (size_t i = 0; i < heads.size(); ++i)
    heads[i] = PackAtRest(c.view->heads[i], config_.head_size, c.fixed);
  AppendPacked(*job.sequence, heads, 0, c.fixed + c.view->tokens_max());
  TraceView(job, c.fixed);
}

void Engine::KeepOfSpan(Job& job) {
  Compression& c = *job.compression;
  const std::vector<std::vector<int32_t>> tokens = {Range(c.spans[c.span].first, c.spans[c.span].end)};
  // The last window stays, of the last span; if the question looks, it is the window.
  const bool last = c.span + 1 == c.spans.size() && c.probe.empty();
  const auto scores = Score(job, tokens, c.fixed, last);
  const std::vector<RestBlock> blocks = SpanAtRest(job);
  if (c.kept == nullptr) {
    c.kept = std::make_unique<View>();
    c.kept->heads.resize(scores.size());
  }
  backend_->pool().ParallelFor(static_cast<int64_t>(scores.size()), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    std::vector<int32_t> picks;
    SelectTop(scores[i], c.budget - c.fixed, &picks);
    std::vector<float> values;
    std::vector<RestToken> rest;
    for (int32_t& pick : picks) {
      values.push_back(scores[i][static_cast<size_t>(pick)]);
      pick = tokens[0][static_cast<size_t>(pick)];
      rest.push_back(
          BlockOf(blocks, pick).At(store_->shape(), at / config_.kv_heads, at % config_.kv_heads, pick));
    }
    Compete(c.budget - c.fixed, config_.head_size, picks, values, rest, &c.kept->heads[i]);
  });
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
  }
  job.next_seal = job.next_block;
  job.prefilled = c.run = token;
  stats_.cached_tokens += job.cached - before;
  if (job.request.on_found && job.cached > before) job.request.on_found(job.cached);
}

// --- pot

// Tokens of each head: the residents, then the stretch.
std::vector<std::vector<int32_t>> Engine::PotTokens(const Job& job) const {
  const Compression& c = *job.compression;
  std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(store_->shape().tiles()));
  const std::vector<int32_t> stretch = Range(c.stretch_first, c.run);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (c.view != nullptr) tokens[i] = c.view->heads[i].tokens;
    tokens[i].insert(tokens[i].end(), stretch.begin(), stretch.end());
  }
  return tokens;
}

std::vector<RestBlock> Engine::StretchAtRest(Job& job) {
  const Compression& c = *job.compression;
  std::vector<RestBlock> blocks;
  for (BlockGroup& group : job.sequence->open_groups()) {
    if (group.envelope.empty()) continue;  // the probe's
    const int64_t first = c.stretch_first + group.first_position - c.residents();
    blocks.push_back({first, group.rows, group.rest(0, store_->shape())});
  }
  return blocks;
}

// A cycle: distil, write the stretch below, renumber. Afterwards the pot holds what was picked.
void Engine::EndStretch(Job& job) {
  Compression& c = *job.compression;
  const std::vector<std::vector<int32_t>> tokens = PotTokens(job);
  std::vector<std::vector<int32_t>> candidates(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i)
    candidates[i].assign(tokens[i].begin() + c.fixed, tokens[i].end());
  const auto scores = Score(job, candidates, c.fixed, /*window_stays=*/true);
  if (c.probing()) job.sequence->EndProbe();
  std::vector<std::vector<int32_t>> picks(tokens.size());
  backend_->pool().ParallelFor(static_cast<int64_t>(tokens.size()), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    if (!c.wants_losses) {
      SelectTop(scores[i], c.budget - c.fixed, &picks[i]);
    } else {
      std::vector<float> losses;
      for (const int32_t token : candidates[i]) losses.push_back(c.losses[static_cast<size_t>(token)]);
      SelectNovel(losses, scores[i], 0, c.budget - c.fixed, c.spec.alpha, &picks[i]);
    }
    for (int32_t& pick : picks[i]) pick += static_cast<int32_t>(c.fixed);
    const std::vector<int32_t> prefix = Range(0, c.fixed);
    picks[i].insert(picks[i].begin(), prefix.begin(), prefix.end());
  });
  RepackPot(job, picks);
  ++c.cycles;
  if (!job.request.trace) return;
  TraceView(job, 0);
  job.outcome.cycles.push_back(job.outcome.kept);
}

// Keeps the picked of each head, by their place in it; everything else was written below before it goes.
void Engine::RepackPot(Job& job, std::span<const std::vector<int32_t>> picks) {
  Compression& c = *job.compression;
  const std::vector<RestBlock> blocks = StretchAtRest(job);
  const size_t residents = static_cast<size_t>(c.residents());
  auto next = std::make_shared<View>();
  next->heads.resize(picks.size());
  backend_->pool().ParallelFor(static_cast<int64_t>(picks.size()), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    RestHead& head = next->heads[i];
    head.tokens.reserve(picks[i].size());
    head.rest.reserve(picks[i].size() * 2 * static_cast<size_t>(config_.head_size));
    for (const int32_t pick : picks[i]) {
      const size_t place = static_cast<size_t>(pick);
      if (place < residents) {
        head.Append(c.view->heads[i].tokens[place], c.view->heads[i].At(place, config_.head_size),
                    config_.head_size);
        continue;
      }
      const int64_t token = c.stretch_first + static_cast<int64_t>(place - residents);
      head.Append(
          static_cast<int32_t>(token),
          BlockOf(blocks, token).At(store_->shape(), at / config_.kv_heads, at % config_.kv_heads, token),
          config_.head_size);
    }
  });
  WriteStretchBelow(job);
  std::vector<Sequence::Packing> heads(picks.size());
  for (size_t i = 0; i < heads.size(); ++i) heads[i] = PackAtRest(next->heads[i], config_.head_size, 0);
  job.sequence->Repack(heads, next->tokens_max());
  c.view = std::move(next);
  c.stretch_first = c.run;
}

void Engine::WriteStretchBelow(Job& job) {
  Compression& c = *job.compression;
  int64_t token = c.stretch_first;
  std::vector<int32_t> ids;
  for (BlockGroup& group : job.sequence->open_groups()) {
    ids.clear();
    for (int64_t i = 0; i < group.rows; ++i) ids.push_back(job.TokenAt(token + i));
    c.parent = c.chain->Next(c.parent, token, ids);
    store_->WriteBelow(c.parent, group);
    token += group.rows;
  }
}

// The context is read: what is left of it is packed and kept for the next question about it.
void Engine::EndContext(Job& job) {
  Compression& c = *job.compression;
  if (c.cycles > 0 && !c.goes_on) {
    const TimePoint start = options_.clock->Now();
    const int64_t spilled_before = store_->stats().spilled_bytes, lost_before = store_->stats().lost;
    const std::vector<std::vector<int32_t>> all(static_cast<size_t>(store_->shape().tiles()),
                                                Range(0, c.residents() + c.run - c.stretch_first));
    RepackPot(job, all);
    auto view = std::make_shared<View>(*c.view);
    view->parent = c.parent;
    view->losses.assign(c.losses.begin(), c.losses.begin() + (c.losses.empty() ? 0 : c.context_end));
    if (c.view_key.has_value()) views_.Put(*c.view_key, std::move(view));
    job.spilled_bytes += store_->stats().spilled_bytes - spilled_before;
    job.lost_blocks += store_->stats().lost - lost_before;
    job.compression_seconds += Since(start);
  }
  FirstOfQuestion(c);
  c.context_done = true;
  SetStop(job);
}

// No token of the context predicts it: the context may have been read without the question.
void Engine::FirstOfQuestion(Compression& c) {
  if (c.wants_losses && c.has_question) {
    c.losses[static_cast<size_t>(c.context_end)] = std::numeric_limits<float>::infinity();
  }
}

// --- all

void Engine::TraceView(Job& job, int64_t fixed) const {
  if (!job.request.trace) return;
  std::vector<std::vector<int32_t>> heads;
  for (const RestHead& head : job.compression->view->heads) {
    heads.push_back(Range(0, fixed));
    heads.back().insert(heads.back().end(), head.tokens.begin(), head.tokens.end());
  }
  job.outcome.kept = ByLayer(std::move(heads));
}

// What follows needs less than the reading did: others may have it.
void Engine::BeginQuestion(Job& job) {
  Compression& c = *job.compression;
  c.context_done = true;
  const int64_t left =
      DivideUp(job.prompt_tokens - c.context_end, kTileSlots) + DivideUp(job.max_tokens, kTileSlots) + 1;
  const int64_t tiles = job.sequence->resident_tiles() + left * store_->shape().tiles();
  if (tiles >= job.held_tiles) return;
  reserved_tiles_ -= job.held_tiles - tiles;
  job.held_tiles = tiles;
}

// Before a token of the answer: the oldest of the window go, so that with it there are as many as may be.
void Engine::Slide(Job& job) {
  Compression& c = *job.compression;
  for (; c.window >= c.window_max; --c.window) job.sequence->SlideWindow(c.front_tiles);
  ++c.window;
}

}  // namespace palimpsest
