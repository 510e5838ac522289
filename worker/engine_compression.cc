// Compression while a request runs: where its reading stops, what is decided there, what the question then
// sees.
#include "worker/engine_compression.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "proto/base/status.h"
#include "storage/resident_blocks.h"
#include "worker/compression/scoring.h"
#include "worker/engine_job.h"

namespace palimpsest {
namespace {

constexpr int64_t kNoStop = std::numeric_limits<int64_t>::max();

}  // namespace

// Begins, or begins again after it gave way: what was decided of the context by then, by this request or by
// an earlier one, is taken as it is.
void Engine::StartCompression(Job& job) {
  Compression& c = *job.compression;
  c.context_done = false;
  c.probe_done = -1;
  job.held_logits.clear();
  c.run = 0;
  c.slides = false;
  c.span_decided = false;
  c.sums.Clear();
  c.eviction.reset();
  c.audit.reset();  // before what it looks into
  c.recall.reset();
  c.document.reset();
  if (c.policy == nullptr) c.span = 0;
  if (c.wants_losses && c.losses.empty()) {
    c.losses.assign(static_cast<size_t>(job.prompt_tokens + job.max_tokens + 1), 0.0f);
    c.losses[0] = std::numeric_limits<float>::infinity();
  }
  const int64_t late = mover_->stats().late;
  if (c.view == nullptr && c.cycles == 0 && c.view_key.has_value()) {
    c.view = FindView(*c.view_key, &c.view_source);
    if (c.view != nullptr && !(SaysSums(c, *c.view) && SaysScores(c, *c.view))) c.view = nullptr;
    if (c.view != nullptr && c.pot()) FindPotView(job);
  }
  if (c.recall_tokens > 0 && c.view != nullptr && MustMend(job)) {
    c.view = nullptr;
    c.span = 0;
  }
  if (c.view == nullptr) FindScores(job);
  if (mover_->stats().late > late) job.declines = true;  // as in FindCached
  if (c.view == nullptr) FindReading(job);
  if (c.mode == PrefillMode::kExact && c.view != nullptr) TakeExactView(job);
  if (c.pot() && c.view == nullptr) c.parent = c.chain->Root();
  if (c.pot() && c.view != nullptr) {
    AppendPacked(*job.sequence, PackAtRest(*c.view, config_.head_size, 0), 0, c.view->tokens_max());
    job.prefilled = c.run = c.stretch_first;
    c.context_done = c.stretch_first >= c.context_end;
  }
  SetStop(job);
}

void Engine::SetStop(Job& job) {
  Compression& c = *job.compression;
  int64_t first = c.first();
  if (c.pot()) {
    c.stop = c.stretch_end();
    if (!c.context_done) c.stop = std::min(c.stop, std::max(c.context_end, c.run));
    // A question that would not fit behind what is left is not torn: the pot is distilled before it.
    const bool torn =
        c.has_question && c.run == c.context_end && c.stop < job.prompt_tokens && c.needs.window == 0;
    if (c.context_done && torn && c.residents() + c.run - c.stretch_first > c.budget) c.stop = c.run;
  } else if (c.context_done) {
    c.stop = kNoStop;
  } else if (c.anchored() && (c.view != nullptr || (c.span > 0 && c.run < c.spans[c.span].first))) {
    c.stop = first = c.fixed;  // then it goes on where somebody has been
  } else if (c.anchored()) {
    c.stop = c.spans[c.span].end;
  } else {
    c.stop = c.context_end;
  }
  SumFrom(job, first);
  if (c.stop == kNoStop) return;
  if (const int64_t seen = std::max(first, c.needs.sink);
      c.needs.future > 0 && c.read == nullptr && (c.moments.first() != seen || c.run <= first)) {
    c.moments.Begin(config_.layers, config_.heads, config_.head_size, seen);
  }
  if (!c.looks_back()) return;
  const int64_t last = c.pot() ? c.stretch_end() : c.stop;
  first = std::max(first, last - c.needs.window);
  if (c.queries.count() == last - first && c.queries.first() == first && c.run > first) return;  // goes on
  c.queries.Begin(config_.layers, config_.q_columns(), first, last - first);
}

// Every query counts, so that sums begin with the first row of what is decided about next, and go on behind
// it where that is still to come.
void Engine::SumFrom(Job& job, int64_t first) {
  Compression& c = *job.compression;
  if (!c.needs.sums) return;
  if (c.stop == kNoStop && c.held_max > 0) return;  // the question's and the answer's count too
  if (c.stop == kNoStop || c.read != nullptr) return c.sums.Clear();
  if (c.sums.begun() && c.sums.first() == first && c.run > first) return;  // goes on
  const int64_t follow = std::max<int64_t>(0, c.stop - c.run);
  const int64_t tiles = job.sequence->depth() / kTileSlots + DivideUp(follow, kTileSlots) + 3;
  c.sums.Begin(config_.layers, config_.heads, first, tiles, c.needs.squares);
}

// Blocks that end behind this are not looked for: their rows run, because somebody looks at them.
int64_t Engine::FindableEnd(const Job& job) {
  const Compression* c = job.compression.get();
  if (c == nullptr || c->context_done || c->stop == kNoStop) return kNoStop;
  const bool found = c->view != nullptr || c->read != nullptr;
  if (c->wants_losses && (c->pot() || !found)) return 0;
  if (c->needs.sums && !found) return c->sums.first();
  if (c->needs.future > 0 && !found) return std::min(c->stop, c->first());
  return c->stop - (c->looks_back() && c->view == nullptr ? c->needs.window : 0);
}

// Rows that it could have in the next step.
int64_t Engine::RowsWanted(const Job& job) {
  const Compression* c = job.compression.get();
  if (c == nullptr) return job.length() - job.prefilled;
  if (c->probing()) return c->probe_size() - c->probe_done;
  if (!c->steps()) return std::min(job.length(), c->stop) - job.prefilled;
  // Also of an answer that is resumed.
  if (job.prefilled < job.prompt_tokens) return std::min(job.prompt_tokens, c->stop) - job.prefilled;
  return std::min<int64_t>(1, job.length() - job.prefilled);
}

// Decides what is to be decided where it stands. False: rows are needed first, or there is nothing to decide.
bool Engine::PassStop(Job& job, bool more_follows) {
  if (job.compression == nullptr) return false;
  Compression& c = *job.compression;
  if (c.probing() || c.run != c.stop) return false;
  const bool context_ends = c.pot() && !c.context_done && c.run == c.context_end;
  // A full pot is distilled first, while its last tokens can still say what matters in it. So is what must be
  // repeated before it is packed.
  const bool repeats = c.repeat_tokens > 0 && c.cycles > 0 && !c.goes_on;
  if (c.ends_context() && !repeats) {
    Counted(job, [&] { EndContext(job); });
    return true;
  }
  if (c.pot() && !context_ends && !more_follows) return false;  // the pot is full, and that is that
  const bool skips = c.anchored() && (c.view != nullptr || c.run < c.spans[c.span].first);
  const bool decides = c.policy != nullptr && !skips;
  if (decides && c.repeat_tokens > 0) {
    if (c.scored == nullptr) c.repetition.Begin(config_.layers * config_.heads, c.repeat_first(), c.stop);
    if (c.scored == nullptr && RepeatNext(job)) return false;
  } else if (decides && !c.probe.empty()) {
    job.sequence->BeginProbe();
    c.probe_done = 0;
    const int64_t count = c.needs.catalyst ? c.probe_size() : std::min(c.probe_size(), c.needs.window);
    c.queries.Begin(config_.layers, config_.q_columns(), c.probe_size() - count, count);
    return false;
  }
  Decide(job);
  return true;
}

// What it costs is the request's.
void Engine::Counted(Job& job, const std::function<void()>& compress) {
  const TimePoint start = options_.clock->Now();
  const MoverStats before = mover_->stats();
  const int64_t lost_before = store_->stats().lost;
  compress();
  CountSpilled(job, before);
  job.lost_blocks += store_->stats().lost - lost_before;
  job.compression_seconds += Since(start);
}

void Engine::Decide(Job& job) {
  Compression& c = *job.compression;
  Counted(job, [&] {
    if (c.ends_context()) {
      EndContext(job);
    } else if (c.pot()) {
      EndStretch(job);
      if (!c.context_done && c.run == c.context_end && !c.goes_on) EndContext(job);
    } else if (c.anchored()) {
      EndSpan(job);
    } else {
      EndExact(job);
    }
  });
  c.probe_done = -1;
  SetStop(job);
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

HeadScores Engine::Score(const Job& job, std::span<const std::vector<int32_t>> tokens, int64_t skip,
                         bool window_stays) {
  const Compression& c = *job.compression;
  if (c.scored != nullptr) return FoundScores(c, tokens[0]);
  const Scoring scoring{.backend = backend_.get(),
                        .config = &config_,
                        .rope = rope_.get(),
                        .weights = &weights_,
                        .pool = arena_->pool()};
  const int64_t probe = c.probing() ? c.probe_size() : 0;
  return ScoreCandidates(scoring, *c.policy,
                         {.queries = &c.queries, .moments = &c.moments, .repetition = &c.repetition},
                         {.sequence = job.sequence.get(),
                          .skip = skip,
                          .tokens = [&](size_t head) -> std::span<const int32_t> {
                            return tokens.size() == 1 ? tokens[0] : tokens[head];
                          },
                          .losses = c.losses,
                          .sums = &c.sums,
                          .end = c.run,
                          .window_stays = window_stays,
                          .next_position = job.sequence->next_position() - probe});
}

HeadShares Engine::SharesOf(const Compression& c, std::span<const std::vector<float>> scores,
                            std::span<const std::vector<float>> attention) const {
  return {.layers = config_.layers,
          .kv_heads = config_.kv_heads,
          .budget = c.budget - c.fixed,
          .most = c.most,
          .scores = scores,
          .attention = attention};
}

Outcome::Kept Engine::ByLayer(std::vector<std::vector<int32_t>> heads) const {
  Outcome::Kept kept(static_cast<size_t>(config_.layers));
  for (size_t i = 0; i < heads.size(); ++i) {
    kept[i / static_cast<size_t>(config_.kv_heads)].push_back(std::move(heads[i]));
  }
  return kept;
}

void Engine::AppendPacked(Sequence& sequence, std::span<const Sequence::Packing> heads, int64_t base,
                          int64_t next_position) {
  const absl::Status packed = sequence.AppendPacked(heads, base, next_position);
  PALIMPSEST_CHECK(packed.ok(), "an admitted request found no room: {}", Message(packed));
}

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
  BeginRecall(job);
  const int64_t left = BlocksBehind(job.prompt_tokens - c.context_end, AnswerHeld(job), c.residual());
  const int64_t tiles = job.sequence->resident_tiles() + left * store_->shape().tiles();
  if (tiles >= job.held_tiles) return;
  reserved_tiles_ -= job.held_tiles - tiles;
  job.held_tiles = tiles;
}

// The oldest of the window go, so that with the next token there are as many as may be.
void Engine::Slide(Job& job) {
  Compression& c = *job.compression;
  for (; c.window >= c.window_max; --c.window) job.sequence->SlideWindow(c.front_tiles);
  ++c.window;
}

}  // namespace palimpsest
