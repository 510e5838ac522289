// An answer that evicts: what each head holds when it begins, it holds to the end.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/compression/slots.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// Most that a head holds behind the question's back, and the question.
absl::Status Engine::PlanEviction(const Request& request, Compression& c, int64_t prompt_tokens) {
  if (!c.spec.evicts()) return absl::OkStatus();
  const std::string name = c.spec.name();
  if (c.mode != PrefillMode::kExact) {
    return InvalidArgument(
        "policy {}: decode=evict goes on from what all of one text said: take prefill exact, or decode=keep",
        name);
  }
  if (request.recall.on()) {
    return InvalidArgument(
        "recall {} with policy {} and decode=evict, which lets go what came back: take decode=keep, or "
        "recall none",
        RecallText(request.recall), name);
  }
  if (c.residual() > 0)
    return InvalidArgument("policy {}: decode=evict with kv=kivi2: give one of them", name);
  const int64_t context = c.context_end, question = context - c.question_first;  // that is seen
  const int64_t limit = c.spec.LimitOf(context), stays = c.fixed + question + c.spec.StaysOf(context);
  if (question > 0 && limit <= stays) {
    return InvalidArgument(
        "policy {}: decode=evict with a budget of {} tokens, of which prefix, question and what else stays "
        "have {}; give more than {}",
        name, limit, stays, stays);
  }
  c.held_max = limit + prompt_tokens - context;
  return absl::OkStatus();
}

// Tokens of the answer that are held beside what there was before it.
int64_t Engine::AnswerHeld(const Job& job) {
  const Compression* const c = job.compression.get();
  if (c == nullptr || c->held_max == 0) return job.max_tokens;
  const int64_t before = c->budget + job.prompt_tokens - c->context_end;
  return std::min(job.max_tokens, c->held_max - before);
}

// Of each head, what all queries said of the tokens that it keeps: (1 or 2 x group, tokens), sums and then
// squares.
std::vector<std::vector<float>> Engine::SumsOf(const Job& job,
                                               std::span<const std::vector<int32_t>> kept) const {
  const Compression& c = *job.compression;
  std::vector<std::vector<float>> sums(kept.size());
  const int64_t group = config_.heads / config_.kv_heads;
  backend_->pool().ParallelFor(static_cast<int64_t>(kept.size()), [&](int64_t head, int) {
    const size_t h = static_cast<size_t>(head), n = kept[h].size();
    const int64_t layer = head / config_.kv_heads, first = head % config_.kv_heads * group;
    std::vector<int32_t> all(static_cast<size_t>(c.context_end)), places;
    ReadPlaces({.pool = arena_->pool(),
                .tiles = job.sequence->tiles(layer, head % config_.kv_heads),
                .skip = 0,
                .count = c.context_end,
                .head_size = config_.head_size},
               all.data());
    for (const int32_t token : kept[h]) places.push_back(all[static_cast<size_t>(token)]);
    sums[h].resize(static_cast<size_t>(c.sum_rows(group)) * n);
    for (int64_t row = 0; row < c.sum_rows(group); ++row) {
      c.sums.ReadAt(layer, first + row % group, /*squares=*/row >= group, places,
                    sums[h].data() + static_cast<size_t>(row) * n);
    }
  });
  return sums;
}

// What was said of the context's tokens, which are packed now, goes on with the question.
void Engine::GoOnSumming(Job& job, std::span<const std::vector<float>> sums) {
  Compression& c = *job.compression;
  if (sums.empty()) return;
  const int64_t group = config_.heads / config_.kv_heads, rows = c.sum_rows(group);
  const int64_t follow = job.prompt_tokens - c.context_end + AnswerHeld(job);
  const int64_t tiles = job.sequence->depth() / kTileSlots + DivideUp(follow, kTileSlots) + 2;
  c.sums.Begin(config_.layers, config_.heads, c.fixed, tiles, c.needs.squares);
  for (size_t h = 0; h < sums.size(); ++h) {
    const int64_t layer = static_cast<int64_t>(h) / config_.kv_heads,
                  first = static_cast<int64_t>(h) % config_.kv_heads * group, n = std::ssize(sums[h]) / rows;
    const std::vector<int32_t> columns = Range(0, n);
    for (int64_t row = 0; row < rows; ++row) {
      c.sums.SetAt(layer, first + row % group, /*squares=*/row >= group, columns, sums[h].data() + row * n);
    }
  }
}

// A view from a tier says of its tokens what is asked for here.
bool Engine::SaysSums(const Compression& c, const View& view) const {
  if (c.held_max == 0 || !c.needs.sums) return true;
  const size_t rows = static_cast<size_t>(c.sum_rows(config_.heads / config_.kv_heads));
  return std::all_of(view.heads.begin(), view.heads.end(),
                     [&](const RestHead& head) { return head.sums.size() == rows * head.tokens.size(); });
}

void Engine::BeforeAnswerToken(Job& job) {
  const Compression& c = *job.compression;
  if (c.slides) Slide(job);
  if (c.held_max > 0 && c.eviction == nullptr) BeginEviction(job);
}

void Engine::BeginEviction(Job& job) {
  Compression& c = *job.compression;
  std::vector<std::vector<int32_t>> tokens;
  for (const std::vector<int32_t>& head : c.stayed) {
    tokens.emplace_back(head.begin() + c.fixed, head.end());
    for (int64_t i = c.context_end; i < job.prompt_tokens; ++i)
      tokens.back().push_back(static_cast<int32_t>(i));
  }
  c.eviction = std::make_unique<Eviction>(Eviction::Setup{.config = &config_,
                                                          .policy = c.policy.get(),
                                                          .threads = &backend_->pool(),
                                                          .pool = arena_->pool(),
                                                          .skip = c.fixed,
                                                          .held_max = c.held_max - c.fixed,
                                                          .question_first = c.question_first,
                                                          .question_end = job.prompt_tokens},
                                          *job.sequence, std::move(tokens));
  if (!c.needs.sums) {  // the newest token's attention alone
    const int64_t tiles = job.sequence->depth() / kTileSlots + DivideUp(AnswerHeld(job), kTileSlots) + 2;
    c.sums.Begin(config_.layers, config_.heads, job.prompt_tokens, tiles, /*squares=*/false);
  }
  job.outcome.cycles.clear();  // of a run before it gave way
}

// The answer's newest token was read.
void Engine::Evict(Job& job) {
  Compression& c = *job.compression;
  const bool went = c.eviction->Add(static_cast<int32_t>(c.run - 1), *job.sequence, c.sums);
  if (!c.needs.sums) c.sums.Restart();
  if (!went || !job.request.trace) return;
  std::vector<std::vector<int32_t>> heads;
  for (size_t i = 0; i < c.stayed.size(); ++i) {
    heads.push_back(Range(0, c.fixed));
    const std::vector<int32_t>& held = c.eviction->tokens(i);
    heads.back().insert(heads.back().end(), held.begin(), held.end());
  }
  job.outcome.kept = ByLayer(std::move(heads));
  job.outcome.cycles.push_back(job.outcome.kept);
}

}  // namespace palimpsest
