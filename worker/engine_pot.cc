// Pot prefill: stretches, distillations, renumbering; the pot's tiles are the request's own.
#include <algorithm>
#include <limits>
#include <utility>

#include "proto/base/status.h"
#include "worker/compression/scoring.h"
#include "worker/compression/shares.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {

// The pot as an earlier request about the same context left it.
void Engine::FindPotView(Job& job) {
  Compression& c = *job.compression;
  std::copy(c.view->losses.begin(), c.view->losses.end(), c.losses.begin());
  FirstOfQuestion(c);
  c.cycles = 1;
  c.parent = c.view->parent;
  c.stretch_first = c.context_end;
  job.cached = c.context_end;
  job.found[static_cast<size_t>(c.view_source)] += c.context_end;
  stats_.cached_tokens += job.cached;
  TraceView(job, 0);
  if (job.request.on_found) job.request.on_found(job.cached);
}

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

// What `tokens` behind the prefix are worth. What was repeated keeps the score that it had then.
HeadScores Engine::PotScores(const Job& job, std::span<const std::vector<int32_t>> tokens) {
  const Compression& c = *job.compression;
  const bool repeated = c.repeat_tokens > 0 && c.view != nullptr;
  const int64_t skip = repeated ? c.residents() : c.fixed;  // of all heads: those that repeat have one size
  std::vector<std::vector<int32_t>> candidates(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) candidates[i].assign(tokens[i].begin() + skip, tokens[i].end());
  HeadScores scores = Score(job, candidates, skip, /*window_stays=*/true);
  if (!repeated) return scores;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<float>& before = c.view->heads[i].scores;
    scores.scores[i].insert(scores.scores[i].begin(), before.begin() + c.fixed, before.end());
  }
  return scores;
}

// How many tokens behind the prefix each head keeps, where they share; one that has fewer to choose from
// leaves the rest of its share to nobody. Empty: all as many.
std::vector<int64_t> Engine::PotCounts(const Compression& c,
                                       std::span<const std::vector<float>> scores) const {
  if (!c.spec.distils_shares()) return {};
  // Heads that have fewer to choose from have more that nobody wants.
  std::vector<std::vector<float>> all(scores.begin(), scores.end());
  size_t most = 0;
  for (const std::vector<float>& head : all) most = std::max(most, head.size());
  for (std::vector<float>& head : all) head.resize(most, -std::numeric_limits<float>::infinity());
  const HeadShares shares = SharesOf(c, all);
  if (StayingOf(shares) >= shares.budget) return {};
  std::vector<int64_t> counts = CountsOf(*c.policy, shares);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = std::min(counts[i], std::ssize(scores[i]));
  return counts;
}

// Places behind the prefix that stay: first what is new to the model, the same number in each head, then by
// the scores.
std::vector<std::vector<int32_t>> Engine::PotPicks(const Job& job,
                                                   std::span<const std::vector<int32_t>> tokens,
                                                   HeadScores& scores) const {
  const Compression& c = *job.compression;
  const int64_t budget = c.budget - c.fixed, heads = std::ssize(tokens);
  // A question that is being answered stays; by its novelty, where the places for scores are too few.
  const auto of_question = [&](int32_t token) {
    return c.has_question && token >= c.context_end && token < job.prompt_tokens;
  };
  const double scored = (1 - c.spec.alpha) * static_cast<double>(budget);
  const bool by_loss = static_cast<double>(job.prompt_tokens - c.context_end) > scored;
  std::vector<std::vector<float>> losses(tokens.size());
  std::vector<std::vector<int32_t>> picks(tokens.size());
  backend_->pool().ParallelFor(heads, [&](int64_t head, int) {
    const size_t i = static_cast<size_t>(head);
    for (size_t at = 0; at < scores.scores[i].size(); ++at) {
      const int32_t token = tokens[i][static_cast<size_t>(c.fixed) + at];
      if (of_question(token)) scores.Keep(i, at);
      if (!c.wants_losses) continue;
      losses[i].push_back(by_loss && of_question(token) ? std::numeric_limits<float>::infinity()
                                                        : c.losses[static_cast<size_t>(token)]);
    }
    if (!c.spec.distils_shares() || !c.wants_losses) return;
    SelectTop(losses[i], PartOf(c.spec.alpha, budget), &picks[i]);  // takes no part in what is shared
    for (const int32_t pick : picks[i]) scores.Keep(i, static_cast<size_t>(pick));
  });
  const std::vector<int64_t> counts = PotCounts(c, scores.scores);
  backend_->pool().ParallelFor(heads, [&](int64_t head, int) {
    const size_t i = static_cast<size_t>(head);
    if (!counts.empty() || !c.wants_losses) {
      SelectTop(scores.Of(i), counts.empty() ? budget : counts[i], &picks[i]);
    } else {
      SelectNovel(losses[i], scores.Of(i), 0, budget, c.spec.alpha, &picks[i]);
    }
  });
  return picks;
}

// A cycle: distil, write the stretch below, renumber. Afterwards the pot holds what was picked.
void Engine::EndStretch(Job& job) {
  Compression& c = *job.compression;
  const std::vector<std::vector<int32_t>> tokens = PotTokens(job);
  HeadScores scores = PotScores(job, tokens);
  if (c.probing()) job.sequence->EndProbe();
  std::vector<std::vector<float>> worth;
  if (c.repeat_tokens > 0) worth = scores.scores;
  std::vector<std::vector<int32_t>> picks = PotPicks(job, tokens, scores);
  for (std::vector<int32_t>& head : picks) PutBehindPrefix(c.fixed, &head);
  RepackPot(job, picks, worth);
  ++c.cycles;
  if (!job.request.trace) return;
  TraceView(job, 0);
  job.outcome.cycles.push_back(job.outcome.kept);
}

// Keeps the picked of each head, by their place in it; everything else was written below before it goes. The
// view of what is kept, which is the request's own until it is shared. `scores`: of what is behind the
// prefix, where they are kept with it.
std::shared_ptr<View> Engine::RepackPot(Job& job, std::span<const std::vector<int32_t>> picks,
                                        std::span<const std::vector<float>> scores) {
  Compression& c = *job.compression;
  const std::vector<RestBlock> blocks = StretchAtRest(job);
  const size_t fixed = static_cast<size_t>(c.fixed);
  auto next = std::make_shared<View>();
  next->heads.resize(picks.size());
  backend_->pool().ParallelFor(static_cast<int64_t>(picks.size()), [&](int64_t at, int) {
    const size_t i = static_cast<size_t>(at);
    const size_t residents = c.view == nullptr ? 0 : c.view->heads[i].tokens.size();
    RestHead& head = next->heads[i];
    head.tokens.reserve(picks[i].size());
    head.rest.reserve(picks[i].size() * 2 * static_cast<size_t>(config_.head_size));
    for (const int32_t pick : picks[i]) {
      const size_t place = static_cast<size_t>(pick);
      if (!scores.empty()) {
        head.scores.push_back(place < fixed ? std::numeric_limits<float>::infinity()
                                            : scores[i][place - fixed]);
      }
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
  job.sequence->Repack(PackAtRest(*next, config_.head_size, 0), next->tokens_max());
  c.view = next;
  c.stretch_first = c.run;
  return next;
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
    const std::vector<std::vector<int32_t>> tokens = PotTokens(job);
    std::vector<std::vector<int32_t>> all(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) all[i] = Range(0, std::ssize(tokens[i]));
    std::vector<std::vector<float>> worth;
    if (c.repeat_tokens > 0) worth = PotScores(job, tokens).scores;
    const std::shared_ptr<View> view = RepackPot(job, all, worth);
    if (c.view_key.has_value()) {
      view->parent = c.parent;
      view->losses.assign(c.losses.begin(), c.losses.begin() + (c.losses.empty() ? 0 : c.context_end));
      KeepView(*c.view_key, view);
    }
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

}  // namespace palimpsest
