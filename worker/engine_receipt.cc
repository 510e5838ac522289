// How a job ends, and what is told about it and about all of them.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/engine_job.h"

namespace palimpsest {
namespace {

// Moves a running mean towards `value`; the first one is taken as it is.
void Mix(double* mean, double value) {
  constexpr double kShare = 0.2;
  *mean = *mean == 0 ? value : *mean + kShare * (value - *mean);
}

}  // namespace

void Engine::Finish(Job& job, absl::Status status, std::string reason) {
  job.ended = options_.clock->Now();
  Outcome& outcome = job.outcome;
  outcome.status = std::move(status);
  outcome.finish_reason = std::move(reason);
  if (tokenizer_ != nullptr) {
    outcome.rest = job.text.Finish();
    if (!outcome.rest.empty() && job.request.on_text)
      job.request.on_text(outcome.rest, outcome.tokens.empty() ? -1 : outcome.tokens.back());
    outcome.text += outcome.rest;
  }
  FillReceipt(job);
  if (outcome.status.ok()) TouchBlocks(job);
  Release(job);
  mover_->Commit();  // what it sealed belongs together
  job.sampler.reset();
  job.state = Job::State::kDone;
}

void Engine::FillReceipt(Job& job) {
  Outcome& outcome = job.outcome;
  int64_t generated = static_cast<int64_t>(outcome.tokens.size());
  if (generated > 0 && EndsAnswer(job, outcome.tokens.back())) --generated;
  outcome.usage.set_prompt_tokens(job.prompt_tokens);
  outcome.usage.set_completion_tokens(generated);
  outcome.usage.set_cached_tokens(job.cached);
  for (const Segment& segment : job.request.segments) {
    const int64_t size = static_cast<int64_t>(segment.tokens.size());
    if (!segment.shared || size == 0) continue;
    const int64_t groups = segment.full_blocks ? size / kTileSlots : DivideUp(size, kTileSlots);
    outcome.blocks = groups * config_.layers;
  }
  proto::Receipt& receipt = outcome.receipt;
  receipt.set_policy(PolicyText(job.request.policy));
  DescribeRecall(job);
  constexpr const char* kModes[] = {"exact", "anchored", "pot"};
  const Compression* const c = job.compression.get();
  receipt.set_prefill(kModes[static_cast<int>(c == nullptr ? PrefillMode::kExact : c->mode)]);
  receipt.set_question(job.request.question_visible ? "visible" : "hidden");
  receipt.set_prompt_tokens(job.prompt_tokens);
  receipt.set_recomputed_tokens(job.was_admitted ? RecomputedTokens(job) : 0);
  receipt.set_workers(1);
  DescribeTiers(job);
  receipt.mutable_seconds()->set_compress(job.compression_seconds);
  proto::Receipt::Seconds& seconds = *receipt.mutable_seconds();
  seconds.set_queue(Seconds((job.was_admitted ? job.admitted : job.ended) - job.submitted));
  if (job.sequence == nullptr) return;
  if (!outcome.tokens.empty()) receipt.set_resident_tokens_end(ResidentTokens(job));
  receipt.mutable_device_bytes()->set_peak(std::max(job.peak_tiles, arena_->peak_tiles()) *
                                           arena_->tile_bytes());
  if (seconds.prefill() > 0) {
    receipt.mutable_tokens_per_second()->set_prefill(static_cast<double>(job.computed) / seconds.prefill());
  }
  const int64_t steps = job.emitted - 1;  // the first token came with the prefill
  if (steps > 0) seconds.set_decode(Seconds(job.ended - job.decode_start));
  if (seconds.decode() > 0) {
    receipt.mutable_tokens_per_second()->set_decode(static_cast<double>(steps) / seconds.decode());
  }
}

// Mean over layers and KV heads.
double Engine::ResidentTokens(const Job& job) const {
  return static_cast<double>(job.sequence->resident_tokens()) / static_cast<double>(store_->shape().tiles());
}

// Of segments that are known: all but what was found.
int64_t Engine::RecomputedTokens(const Job& job) {
  if (job.blocks.empty()) {  // a pot: all of its context was found, or none
    int64_t known = 0;
    for (const Segment& segment : job.request.segments) {
      if (segment.known) known += static_cast<int64_t>(segment.tokens.size());
    }
    return job.cached > 0 ? 0 : known;
  }
  int64_t position = 0, recomputed = 0;
  auto block = job.blocks.begin();
  for (const Segment& segment : job.request.segments) {
    position += static_cast<int64_t>(segment.tokens.size());
    for (; block != job.blocks.end() && block->first < position; ++block) {
      if (segment.known && block->origin != Job::Block::Origin::kCached) recomputed += block->rows;
    }
  }
  return recomputed;
}

void Engine::CountStep(int64_t decoding, double seconds) {
  ++stats_.steps;
  if (decoding > 0 && seconds > 0) Mix(&stats_.decode_tokens_per_second, 1 / seconds);
}

void Engine::CountPrefill(const Job& job, double seconds) {
  constexpr int64_t kTokensMin = 64;  // fewer tell little
  if (job.computed >= kTokensMin && seconds > 0) {
    Mix(&stats_.prefill_tokens_per_second, static_cast<double>(job.computed) / seconds);
  }
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  for (const auto& job : jobs_) {
    stats.running += job->sequence != nullptr ? 1 : 0;
    stats.waiting += job->state == Job::State::kWaiting ? 1 : 0;
  }
  return stats;
}

std::unique_ptr<Outcome> Engine::Take(JobId id) {
  for (auto job = jobs_.begin(); job != jobs_.end(); ++job) {
    if ((*job)->id != id || (*job)->state != Job::State::kDone) continue;
    auto outcome = std::make_unique<Outcome>(std::move((*job)->outcome));
    jobs_.erase(job);
    return outcome;
  }
  return nullptr;
}

}  // namespace palimpsest
