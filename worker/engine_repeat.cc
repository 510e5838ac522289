// A text is repeated behind itself, part by part, so that a policy sees what of it that takes.
#include <algorithm>

#include "proto/base/status.h"
#include "worker/compression/scoring.h"
#include "worker/compression/slots.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// The longest part that fits the model's window behind the text; in a pot, behind what is read between two
// distillations.
absl::Status Engine::PlanRepetition(const Request& request, Compression& c) const {
  constexpr int64_t kPartMin = PolicySpec::kRepeatMin;
  static_assert(kPartMin == kTileSlots);
  if (c.pot()) {  // CheckPolicyFits saw that the least fits
    c.lead = request.catalyst;
    const int64_t lead = std::ssize(c.lead) + PolicySpec::kRepeatLead;
    c.repeat_tokens = PolicySpec::RepeatedInPot(c.spec.pot.value - c.budget - lead);
    return absl::OkStatus();
  }
  int64_t text = c.context_end;
  if (c.anchored()) {
    text = 0;
    for (const Compression::Span& span : c.spans) text = std::max(text, c.fixed + span.end - span.first);
  }
  c.lead = request.catalyst;
  const int64_t lead = static_cast<int64_t>(c.lead.size()) + PolicySpec::kRepeatLead;
  const int64_t whole = DivideUp(text - c.fixed, kTileSlots) * kTileSlots;
  c.repeat_tokens = std::min({c.needs.repeat, whole, config_.context - text - lead});
  if (c.repeat_tokens >= kPartMin) return absl::OkStatus();
  return InvalidArgument(
      "policy {} repeats the text behind itself: {} tokens of text leave no room for {} more in the window "
      "of {} tokens of {}; {}",
      c.spec.name(), text, lead + kPartMin, config_.context, config_.name,
      c.anchored() ? "lower prefill.span_tokens" : "use anchored prefill, or shorten the text");
}

// Begins to repeat what follows; false: all of it was.
bool Engine::RepeatNext(Job& job) {
  Compression& c = *job.compression;
  if (c.repetition.complete()) return false;
  const int64_t first = c.repetition.done();
  FindPart(job);
  c.probe = c.lead;
  for (int64_t token = std::max(c.repetition.first(), first - PolicySpec::kRepeatLead);
       token < first + c.part.tokens; ++token)
    c.probe.push_back(job.TokenAt(token));
  std::vector<size_t> seen = c.part.seen;
  seen.insert(seen.end(), c.part.tiles.begin(), c.part.tiles.end());
  job.sequence->BeginProbe(c.needs.repeat_part ? std::span<const size_t>(seen) : std::span<const size_t>());
  c.probe_done = 0;
  c.queries.Begin(config_.layers, config_.q_columns(), 0, c.probe_size());
  return true;
}

// Whole tiles of the text from repetition.done() on, which are the same in all heads. The prefix is before
// them in tiles of its own, in a pot with the first that stayed; without one, the text's first tile is what
// attention sinks into.
void Engine::FindPart(Job& job) {
  Compression& c = *job.compression;
  const TilePool pool = arena_->pool();
  const std::span<const int32_t> tiles = job.sequence->tiles(0, 0);
  const int64_t before = c.pot() && c.stretch_first > 0 ? c.residents() : c.fixed;
  const int64_t first = before + c.repetition.done() - c.repetition.first();
  c.part = {};
  int64_t slots = 0;
  for (size_t i = 0; i < tiles.size(); ++i) {
    const int64_t count = pool.counts[tiles[i]];
    if (slots >= first && c.part.tokens + count > c.repeat_tokens) break;
    if (slots >= first) {
      c.part.tiles.push_back(i);
      c.part.tokens += count;
    } else if (slots < c.fixed || i == 0) {
      c.part.seen.push_back(i);
    }
    slots += count;
  }
  PALIMPSEST_CHECK(c.part.tokens > 0, "{} slots hold no part of {} tokens", slots, c.repeat_tokens);
}

// The highest attention that the part's tokens got from what repeated them, among the first tokens, the part
// and its repetition.
void Engine::ScorePart(Job& job) {
  Compression& c = *job.compression;
  const int64_t group = config_.heads / config_.kv_heads, heads = config_.layers * config_.kv_heads;
  const TilePool pool = arena_->pool();
  std::vector<std::vector<int32_t>> tiles(static_cast<size_t>(heads));
  std::vector<std::vector<float>> attention(tiles.size());
  std::vector<palimpsest::ScoreHead> pass(tiles.size());
  for (size_t i = 0; i < tiles.size(); ++i) {
    const int64_t layer = static_cast<int64_t>(i) / config_.kv_heads,
                  head = static_cast<int64_t>(i) % config_.kv_heads;
    const std::span<const int32_t> all = job.sequence->tiles(layer, head);
    if (c.needs.repeat_part) {
      tiles[i].assign(all.begin(), all.end());
    } else {
      for (const size_t place : c.part.seen) tiles[i].push_back(all[place]);
      for (const size_t place : c.part.tiles) tiles[i].push_back(all[place]);
      const size_t repeated = static_cast<size_t>(DivideUp(c.probe_size(), kTileSlots));
      tiles[i].insert(tiles[i].end(), all.end() - static_cast<std::ptrdiff_t>(repeated), all.end());
    }
    attention[i].resize(static_cast<size_t>(group) * tiles[i].size() * kTileSlots);
    pass[i] = {.q = c.queries.Queries(layer, head * group * config_.head_size, group * config_.head_size),
               .tiles = tiles[i],
               .out = attention[i].data()};
  }
  backend_->ScoreKeys({.positions = c.queries.positions(),
                       .group = group,
                       .head_size = config_.head_size,
                       .reduce = c.needs.reduce,
                       .rope = rope_.get(),
                       .pool = pool,
                       .heads = pass});
  const size_t skipped = c.part.seen.size();  // tiles before the part's
  for (int64_t i = 0; i < heads * group; ++i) {
    const size_t head = static_cast<size_t>(i / group);
    const HeadSlots part{.pool = pool,
                         .tiles = std::span(tiles[head]).subspan(skipped),
                         .skip = 0,
                         .count = c.part.tokens,
                         .head_size = config_.head_size};
    const size_t row = static_cast<size_t>(i % group) * tiles[head].size() + skipped;
    ReadColumns(part, attention[head].data() + row * kTileSlots, c.repetition.Next(i, c.part.tokens).data());
  }
  c.repetition.Advance(c.part.tokens);
}

// Whether it tells what its tokens were worth when they were repeated, of a pot that goes on from there.
bool Engine::SaysScores(const Compression& c, const View& view) {
  if (!c.pot() || c.repeat_tokens == 0) return true;
  return std::all_of(view.heads.begin(), view.heads.end(), [&](const RestHead& head) {
    return head.scores.size() == head.tokens.size() && std::ssize(head.tokens) >= c.fixed;
  });
}

// Of all of the context, as an earlier request about it said, whatever it kept.
void Engine::FindScores(Job& job) {
  Compression& c = *job.compression;
  if (!c.scores_key.has_value() || c.scored != nullptr) return;
  TieredStore::Source source;
  c.scored = FindView(*c.scores_key, &source);
  const auto is_whole = [&](const RestHead& head) {
    return std::ssize(head.scores) == c.context_end - c.fixed;
  };
  const bool whole =
      c.scored != nullptr && std::all_of(c.scored->heads.begin(), c.scored->heads.end(), is_whole);
  if (!whole) c.scored = nullptr;
}

HeadScores Engine::FoundScores(const Compression& c, std::span<const int32_t> tokens) {
  HeadScores scores;
  for (const RestHead& head : c.scored->heads) {
    const auto first = head.scores.begin() + (tokens.front() - c.fixed);
    scores.scores.emplace_back(first, first + std::ssize(tokens));
  }
  return scores;
}

// Span by span; when all are there, for the next budget.
void Engine::KeepScores(Compression& c, const HeadScores& scores) {
  if (!c.scores_key.has_value() || c.scored != nullptr) return;
  if (c.scoring == nullptr) {
    c.scoring = std::make_unique<View>();
    c.scoring->heads.resize(scores.scores.size());
  }
  for (size_t i = 0; i < scores.scores.size(); ++i) {
    std::vector<float>& all = c.scoring->heads[i].scores;
    all.insert(all.end(), scores.scores[i].begin(), scores.scores[i].end());
  }
  if (std::ssize(c.scoring->heads[0].scores) < c.context_end - c.fixed) return;
  c.scored = std::shared_ptr<const View>(std::move(c.scoring));
  if (c.view_key.has_value()) return KeepView(*c.scores_key, c.scored);
  views_.Put(*c.scores_key, c.scored);  // with a question in it, which will hardly come again
}

// The probe was run. What repeats a text goes on with the next part of it.
void Engine::AfterProbe(Job& job) {
  Compression& c = *job.compression;
  if (c.repeat_tokens > 0) {
    Counted(job, [&] { ScorePart(job); });
    job.sequence->EndProbe();
    c.probe_done = -1;
    c.probe.clear();
    if (RepeatNext(job)) return;
  }
  Decide(job);
}

}  // namespace palimpsest
