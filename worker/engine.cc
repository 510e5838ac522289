#include "worker/engine.h"

#include <algorithm>
#include <utility>

#include "proto/base/log.h"
#include "proto/base/status.h"
#include "worker/engine_job.h"

namespace palimpsest {

Engine::Engine(const EngineOptions& options)
    : options_(options), views_(options.view_bytes), indices_(options.index_bytes) {}
Engine::~Engine() {
  if (mover_ == nullptr) return;
  constexpr auto kLastWrites = std::chrono::seconds(20);
  if (!mover_->Flush(kLastWrites)) {
    PALIMPSEST_LOG(kWarn, "blocks of {} bytes did not reach the ssd tier and are computed again",
                   mover_->stats().waiting_bytes);
  }
}

std::unique_ptr<Sequence> Engine::NewSequence(const Job& job) const {
  const int64_t residual = job.compression == nullptr ? 0 : job.compression->residual();
  return std::make_unique<Sequence>(store_.get(), job.groups_max, residual);
}

// Before a token of the answer, one at a time: when something goes to 2 bits depends on nothing else.
void Engine::EncodeOldest(Job& job) {
  const absl::Status encoded = job.sequence->EncodeOldest();
  PALIMPSEST_CHECK(encoded.ok(), "an admitted request found no room: {}", Message(encoded));
}

void Engine::OpenOwnGroup(Job& job, int64_t rows, bool keep_rest) {
  const absl::Status opened = job.sequence->OpenGroup(rows, keep_rest);
  PALIMPSEST_CHECK(opened.ok(), "an admitted request found no room: {}", Message(opened));
}

// Opens the next group: of the prompt as planned, of what follows it as decoding does. In a pot none goes
// beyond the prefix or what is decided next.
void Engine::OpenGroup(Job& job) {
  if (job.compression != nullptr && job.compression->pot()) {
    const Compression& c = *job.compression;
    const int64_t end = c.run < c.fixed ? std::min(c.fixed, c.stop) : c.stop;
    return OpenOwnGroup(job, std::min(kTileSlots, end - c.run), /*keep_rest=*/true);
  }
  const bool planned = job.state == Job::State::kPrompt && job.at_border();
  const bool shared = planned && job.blocks[job.next_block].shared;
  if (shared && job.declines && store_->Holds(job.blocks[job.next_block].id))
    job.declined += job.blocks[job.next_block].rows;
  OpenOwnGroup(job, shared ? job.blocks[job.next_block].rows : kTileSlots, shared);
  if (planned) ++job.next_block;
}

// Takes up to `budget` tokens into the step, fewer where the next block is there already or another request
// is computing it: it is looked for again in the next step.
void Engine::AddPromptRows(Job& job, int64_t budget) {
  const int64_t first = job.prefilled;
  const int64_t end = first + std::min(RowsWanted(job), budget);
  Compression* const c = job.compression.get();
  if (c != nullptr && first >= job.prompt_tokens) {
    BeforeAnswerToken(job);
  } else if (c != nullptr && c->slides) {
    c->window += end - first;
  }
  if (first >= job.prompt_tokens) EncodeOldest(job);
  while (job.prefilled < end) {
    // Where the open group ends: a block of the prompt may leave slots of it empty.
    const bool border = job.at_border();
    if (border && job.prefilled > first && !MayCompute(job)) break;
    if (border || job.sequence->room() == 0) OpenGroup(job);
    const int64_t block_end =
        job.next_block < job.blocks.size() ? job.blocks[job.next_block].first : job.length();
    const int64_t n = std::min({end - job.prefilled, block_end - job.prefilled, job.sequence->room()});
    job.sequence->Extend(n);
    job.prefilled += n;
    if (c != nullptr) c->run = job.prefilled;
  }
  const int64_t taken = job.prefilled - first;
  job.computed += taken;
  stats_.prefilled_tokens += taken;
  const std::span<const int32_t> tokens = job.tokens;
  StepRows rows{.sequence = job.sequence.get(),
                .tokens = tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(taken)),
                .logits = job.prefilled == job.length() && job.wants_logits()};
  if (c != nullptr) Observe(job, first, taken, &rows);
  rows.hook = HookAt(job, first);
  step_.push_back(rows);
  step_jobs_.push_back(&job);
}

// What compression wants to know of these rows.
void Engine::Observe(Job& job, int64_t first, int64_t count, StepRows* rows) {
  Compression& c = *job.compression;
  if (c.looks_back()) rows->queries = &c.queries;
  if (c.sums.begun()) rows->sums = &c.sums;
  if (c.needs.future > 0 && c.read == nullptr && !c.done_reading()) rows->moments = &c.moments;
  rows->first_token = first;
  const int64_t known = std::min(job.length() - first - 1, count);  // tokens that follow; none while decoding
  if (!c.wants_losses || known <= 0) return;
  const size_t next = static_cast<size_t>(first) + 1;
  rows->targets = std::span(job.tokens).subspan(next, static_cast<size_t>(known));
  rows->losses = std::span(c.losses).subspan(next, static_cast<size_t>(known));
}

void Engine::AddDecodeRow(Job& job) {
  Compression* const c = job.compression.get();
  if (c != nullptr) BeforeAnswerToken(job);
  EncodeOldest(job);
  if (job.sequence->room() == 0) OpenGroup(job);
  job.sequence->Extend(1);
  StepRows rows{
      .sequence = job.sequence.get(), .tokens = std::span(job.outcome.tokens).last(1), .logits = true};
  if (c != nullptr) Observe(job, c->run++, 1, &rows);
  rows.hook = HookAt(job, job.prompt_tokens + static_cast<int64_t>(job.outcome.tokens.size()) - 1);
  step_.push_back(rows);
  step_jobs_.push_back(&job);
}

// Goes on with what needs no rows: finds blocks, decides where it stands. True if the prompt ended here,
// because all of it was found.
bool Engine::ReadAhead(Job& job) {
  if (job.state == Job::State::kDecode) {
    if (!job.paused) PassStop(job, /*more_follows=*/true);
    return false;
  }
  do {
    FindCached(job);
  } while (PassStop(job, job.prefilled < job.length()));
  const bool probing = job.compression != nullptr && job.compression->probing();
  if (job.prefilled < job.length() || probing) return false;
  AfterPrompt(job);
  return true;
}

// Who could have rows in this step. True if a prompt ended here, because all of it was found.
bool Engine::GatherCandidates() {
  bool ended = false;
  for (auto& job : jobs_) {
    job->urged = false;
    job->paused = job->decoding_paused();
    if (job->state == Job::State::kPrompt || job->state == Job::State::kDecode)
      ended = ReadAhead(*job) || ended;
  }
  for (auto& job : jobs_) {
    job->waits_for = job->state == Job::State::kPrompt && !job->probing() ? ComputedBy(*job) : nullptr;
    if (job->waits_for != nullptr && !job->request.background) job->waits_for->urged = true;
  }
  candidates_.clear();
  candidate_jobs_.clear();
  for (auto& job : jobs_) {
    const bool decodes = job->state == Job::State::kDecode && !job->paused;
    if (!decodes && (job->state != Job::State::kPrompt || job->waits_for != nullptr)) continue;
    const bool one_row = decodes && !job->probing();
    candidates_.push_back({.id = job->id,
                           .decoding = one_row,
                           .background = job->request.background && !job->urged,
                           .rows = one_row ? 1 : RowsWanted(*job),
                           .whole = !one_row && Recalls(*job),
                           .depth = job->sequence->depth(),
                           .starved_seconds = one_row ? 0 : Since(job->last_rows)});
    candidate_jobs_.push_back(job.get());
  }
  return ended;
}

bool Engine::Step() {
  step_.clear();
  step_jobs_.clear();
  arena_->ResetPeak();
  for (auto& job : jobs_) {  // who is cancelled leaves before the step
    if (job->state != Job::State::kDone && job->request.cancel->IsSet()) {
      Finish(*job, absl::CancelledError("cancelled"), "");
    }
  }
  AdmitWaiting();
  const bool ended = GatherCandidates();
  const TimePoint start = options_.clock->Now();
  int64_t decoding = 0;
  for (const StepGrant& grant : scheduler_->Pick(candidates_)) {
    Job& job = *candidate_jobs_[grant.candidate];
    job.last_rows = start;
    if (job.probing()) {
      AddProbeRows(job, grant.rows);
    } else if (job.state == Job::State::kDecode) {
      AddDecodeRow(job);
      ++decoding;
    } else {
      AddPromptRows(job, grant.rows);
    }
  }
  for (auto& job : jobs_) {
    if (job->sequence != nullptr) job->peak_tiles = std::max(job->peak_tiles, arena_->peak_tiles());
  }
  constexpr auto kLook = std::chrono::milliseconds(20);
  const bool stores = FinishStored(step_.empty() && !ended ? kLook : Duration::zero());
  if (step_.empty()) return stores || ended;
  const Rows<const float> logits = transformer_->Step(step_, arena_->pool());
  int64_t row = 0;
  for (size_t i = 0; i < step_.size(); ++i) {
    const std::span<const float> own =
        step_[i].logits ? std::span(logits.row(row++), static_cast<size_t>(config_.vocabulary))
                        : std::span<const float>();
    LacksSlices(*step_jobs_[i]) ? Restart(*step_jobs_[i]) : AfterStep(*step_jobs_[i], own);
  }
  const double seconds = Since(start);
  scheduler_->Observe(seconds);
  CountStep(decoding, seconds);
  return true;
}

void Engine::AfterStep(Job& job, std::span<const float> logits) {
  if (job.compression != nullptr && job.compression->eviction != nullptr) Evict(job);
  if (job.probing()) {
    if (job.compression->probe_done == job.compression->probe_size()) AfterProbe(job);
    if (job.probing() || job.held_logits.empty()) return;  // what was read before it is told in the next step
    return EndPrompt(job, std::exchange(job.held_logits, {}));
  }
  if (job.state == Job::State::kDecode) return Emit(job, logits);
  const MoverStats before = mover_->stats();
  SealFull(job);
  CountSpilled(job, before);
  TellPrefill(job);
  while (PassStop(job, job.prefilled < job.length())) {
  }
  if (job.probing()) job.held_logits.assign(logits.begin(), logits.end());
  if (job.prefilled < job.length() || job.probing()) return;
  EndPrompt(job, logits);
}

// The prompt is there, and these are the logits behind it.
void Engine::EndPrompt(Job& job, std::span<const float> logits) {
  if (job.request.top > 0 && job.emitted == 0) job.outcome.top = TopTokens(logits, job.request.top);
  AfterPrompt(job);
  if (job.state == Job::State::kDecode) Emit(job, logits);
}

void Engine::TellPrefill(Job& job) {
  const int64_t done = std::min(job.prefilled, job.prompt_tokens);
  if (done <= job.told) return;
  job.told = done;
  if (job.request.on_prefill) job.request.on_prefill(done, job.prompt_tokens);
}

void Engine::AfterPrompt(Job& job) {
  const bool first = job.emitted == 0;  // not again after giving way
  job.prompt_done = options_.clock->Now();
  proto::Receipt& receipt = job.outcome.receipt;
  if (first) {
    receipt.set_resident_tokens(ResidentTokens(job));
    receipt.mutable_device_bytes()->set_resident(job.sequence->resident_tiles() * arena_->tile_bytes());
    if (Recalls(job) && !job.request.watched.empty()) {
      const Compression& c = *job.compression;
      job.outcome.watched_seen =
          c.document != nullptr && c.document->sees_all() ? 1 : c.recall->WatchedSeen();
    }
    const double seconds = Seconds(job.prompt_done - job.admitted) - job.load_seconds;
    receipt.mutable_seconds()->set_load(job.load_seconds);
    receipt.mutable_seconds()->set_prefill(seconds);
    if (job.gave_way == 0) CountPrefill(job, seconds);
  }
  if (job.max_tokens == 0) return StoreBelow(job);
  if (first) job.decode_start = job.prompt_done;
  job.state = Job::State::kDecode;
}

bool Engine::EndsAnswer(const Job& job, int32_t token) const {
  return tokenizer_ != nullptr && tokenizer_->IsEnd(token) && !job.request.ignore_end;
}

// Takes a token into the answer; returns the text that became certain with it. A finish reason is set if the
// answer ends here.
std::string Engine::Append(Job& job, int32_t token) const {
  Outcome& outcome = job.outcome;
  outcome.tokens.push_back(token);
  const bool end = EndsAnswer(job, token);
  std::string text;
  if (tokenizer_ != nullptr && !end) text = job.text.Push(token);
  outcome.text += text;
  if (end || job.text.stopped()) {
    outcome.finish_reason = "stop";
  } else if (static_cast<int64_t>(outcome.tokens.size()) >= job.max_tokens) {
    outcome.finish_reason = "length";
  }
  return text;
}

void Engine::Emit(Job& job, std::span<const float> logits) {
  Outcome& outcome = job.outcome;
  const int64_t sequence = static_cast<int64_t>(outcome.tokens.size());
  const int32_t token = job.sampler->Next(logits, sequence);
  const std::string text = Append(job, token);
  ++stats_.generated_tokens;
  if (job.compression != nullptr && job.compression->wants_losses) {
    const size_t at = static_cast<size_t>(job.prompt_tokens + sequence);
    backend_->TokenLosses({.logits = {logits.data(), 1, config_.vocabulary, config_.vocabulary},
                           .targets = std::span(&token, 1),
                           .out = std::span(job.compression->losses).subspan(at, 1)});
  }
  if (++job.emitted == 1) {
    outcome.receipt.mutable_seconds()->set_first_token(Since(job.submitted));
    job.decode_start = options_.clock->Now();
  }
  if (!text.empty() && job.request.on_text) job.request.on_text(text, token);
  if (job.request.on_token) {
    AnswerToken told{.sequence = sequence, .token = token, .text = text, .log_probability = 0, .top = {}};
    std::vector<TopToken> top;
    if (job.request.logprobs)
      told.log_probability = LogSoftmax(logits).Of(logits[static_cast<size_t>(token)]);
    if (job.request.top_logprobs > 0) top = TopTokens(logits, job.request.top_logprobs);
    told.top = top;
    job.request.on_token(told);
  }
  if (!outcome.finish_reason.empty()) Finish(job, absl::OkStatus(), outcome.finish_reason);
}

absl::StatusOr<Outcome> Engine::Run(Request request) {
  PALIMPSEST_ASSIGN_OR_RETURN(const JobId id, Submit(std::move(request)));
  while (true) {
    const bool more = Step();
    if (std::unique_ptr<Outcome> outcome = Take(id)) return std::move(*outcome);
    PALIMPSEST_CHECK(more, "request {} neither runs nor ends", id);
  }
}

}  // namespace palimpsest
