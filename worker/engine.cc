#include "worker/engine.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/engine_job.h"

namespace palimpsest {

Engine::Engine(const EngineOptions& options) : options_(options) {}
Engine::~Engine() = default;

bool Engine::Admit(Job& job) {
  if (reserved_tiles_ + job.worst_tiles > arena_->capacity_tiles()) return false;
  reserved_tiles_ += job.worst_tiles;
  if (!job.was_admitted) job.admitted = options_.clock->Now();
  job.was_admitted = true;
  job.sequence = std::make_unique<Sequence>(store_.get(), job.worst_tiles / store_->shape().tiles());
  if (job.max_tokens > 0) {
    job.sampler = std::make_unique<Sampler>(job.request.sampling, config_.vocabulary, job.tokens);
    job.outcome.tokens.reserve(static_cast<size_t>(job.max_tokens));
    // A token is 4 bytes or so; what goes on for longer pays a copy each time the text has doubled.
    constexpr int64_t kTextBytesPerToken = 8, kTextBytesMax = 1 << 16;
    job.outcome.text.reserve(
        std::max(job.outcome.text.size(),
                 static_cast<size_t>(std::min(job.max_tokens * kTextBytesPerToken, kTextBytesMax))));
  }
  FindCached(job);
  job.state = Job::State::kPrompt;
  return true;
}

// Takes the longest run of shared blocks from here on that some tier holds. The last token is always run if
// its logits are needed.
void Engine::FindCached(Job& job) {
  const int64_t before = job.cached;
  while (job.next_block < job.blocks.size()) {
    Job::Block& block = job.blocks[job.next_block];
    const bool last = block.first + block.rows == job.length();
    if (!block.shared || (last && job.wants_logits())) break;
    const TimePoint start = options_.clock->Now();
    std::optional<TieredStore::Found> found = store_->Find(block.id, block.first, /*base=*/0, block.rows);
    if (!found.has_value()) break;
    if (found->source == TieredStore::Source::kBelow) job.load_seconds += Since(start);
    job.sequence->AddPinned(std::move(found->pin));
    block.cached = true;
    job.cached += block.rows;
    job.prefilled += block.rows;
    ++job.next_block;
  }
  job.next_seal = job.next_block;
  if (job.cached == before) return;
  stats_.cached_tokens += job.cached - before;
  if (job.request.on_found) job.request.on_found(job.cached);
}

// Opens the next group: of the prompt as planned, of what follows it as decoding does.
void Engine::OpenGroup(Job& job) {
  const bool planned =
      job.next_block < job.blocks.size() && job.blocks[job.next_block].first == job.sequence->length();
  const bool shared = planned && job.blocks[job.next_block].shared;
  const absl::Status opened =
      job.sequence->OpenGroup(shared ? job.blocks[job.next_block].rows : kTileSlots, shared);
  PALIMPSEST_CHECK(opened.ok(), "an admitted request found no room: {}", Message(opened));
  if (planned) ++job.next_block;
}

// Takes up to `budget` tokens into the step; false if none were taken.
bool Engine::AddPromptRows(Job& job, int64_t budget) {
  const int64_t first = job.prefilled;
  const int64_t end = std::min(job.length(), first + budget);
  while (job.prefilled < end) {
    // Where the open group ends: a block of the prompt may leave slots of it empty.
    const bool border =
        job.next_block < job.blocks.size() && job.blocks[job.next_block].first == job.prefilled;
    if (border || job.sequence->room() == 0) OpenGroup(job);
    const int64_t block_end =
        job.next_block < job.blocks.size() ? job.blocks[job.next_block].first : job.length();
    const int64_t n = std::min({end - job.prefilled, block_end - job.prefilled, job.sequence->room()});
    job.sequence->Extend(n);
    job.prefilled += n;
  }
  const int64_t taken = job.prefilled - first;
  if (taken == 0) return false;
  job.computed += taken;
  stats_.prefilled_tokens += taken;
  step_.push_back(
      {.sequence = job.sequence.get(),
       .tokens = std::span(job.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(taken)),
       .logits = job.prefilled == job.length() && job.wants_logits()});
  step_jobs_.push_back(&job);
  return true;
}

void Engine::AddDecodeRow(Job& job) {
  if (job.sequence->room() == 0) OpenGroup(job);
  job.sequence->Extend(1);
  step_.push_back(
      {.sequence = job.sequence.get(), .tokens = std::span(job.outcome.tokens).last(1), .logits = true});
  step_jobs_.push_back(&job);
}

bool Engine::Step() {
  step_.clear();
  step_jobs_.clear();
  arena_->ResetPeak();
  bool active = false, full = false;
  for (auto& job : jobs_) {  // who is cancelled leaves before the step
    if (job->state != Job::State::kDone && job->request.cancel->IsSet()) {
      Finish(*job, absl::CancelledError("cancelled"), "");
    }
  }
  for (auto& job : jobs_) {  // first come, first served
    if (job->state == Job::State::kWaiting && !full) full = !Admit(*job);
  }
  int64_t budget = options_.chunk_tokens, decoding = 0;
  for (auto& job : jobs_) {
    if (job->state == Job::State::kDecode && budget > 0 && !job->decoding_paused()) {
      AddDecodeRow(*job);
      --budget;
      ++decoding;
    }
  }
  for (auto& job : jobs_) {
    if (job->state != Job::State::kPrompt) continue;
    if (job->prefilled == job->length()) {  // all of it was cached
      AfterPrompt(*job);
      active = true;
    } else if (budget > 0 && AddPromptRows(*job, budget)) {
      budget -= static_cast<int64_t>(step_.back().tokens.size());
    }
  }
  for (auto& job : jobs_) {
    if (job->sequence != nullptr) job->peak_tiles = std::max(job->peak_tiles, arena_->peak_tiles());
  }
  if (step_.empty()) return active;
  const TimePoint start = options_.clock->Now();
  const Rows<const float> logits = transformer_->Step(step_, arena_->pool());
  int64_t row = 0;
  for (size_t i = 0; i < step_.size(); ++i) {
    const std::span<const float> own =
        step_[i].logits ? std::span(logits.row(row++), static_cast<size_t>(config_.vocabulary))
                        : std::span<const float>();
    AfterStep(*step_jobs_[i], own);
  }
  CountStep(decoding, Since(start));
  return true;
}

void Engine::AfterStep(Job& job, std::span<const float> logits) {
  if (job.state == Job::State::kDecode) return Emit(job, logits);
  const int64_t spilled_before = store_->stats().spilled_bytes;
  while (job.next_seal < job.blocks.size() && job.blocks[job.next_seal].shared &&
         job.sequence->SealOldest(job.blocks[job.next_seal].id)) {
    ++job.next_seal;
  }
  job.spilled_bytes += store_->stats().spilled_bytes - spilled_before;
  const int64_t done = std::min(job.prefilled, job.prompt_tokens);
  if (job.request.on_prefill && done > job.told) job.request.on_prefill(done, job.prompt_tokens);
  job.told = done;
  if (job.prefilled < job.length()) return;
  if (job.request.top > 0 && job.emitted == 0) job.outcome.top = TopTokens(logits, job.request.top);
  AfterPrompt(job);
  if (job.state == Job::State::kDecode) Emit(job, logits);
}

void Engine::AfterPrompt(Job& job) {
  const bool first = job.emitted == 0;  // not again after giving way
  job.prompt_done = options_.clock->Now();
  proto::Receipt& receipt = job.outcome.receipt;
  if (first) {
    receipt.set_resident_tokens(static_cast<double>(job.sequence->length()));
    receipt.mutable_device_bytes()->set_resident(job.sequence->resident_tiles() * arena_->tile_bytes());
    const double seconds = Seconds(job.prompt_done - job.admitted) - job.load_seconds;
    receipt.mutable_seconds()->set_load(job.load_seconds);
    receipt.mutable_seconds()->set_prefill(seconds);
    CountPrefill(job, seconds);
  }
  if (job.max_tokens == 0)
    return Finish(job, absl::OkStatus(), job.request.sampling.max_tokens() == 0 ? "stop" : "length");
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

// Gives back what it holds of the device; sealed blocks stay, unpinned.
void Engine::Release(Job& job) {
  if (job.sequence == nullptr) return;
  job.sequence.reset();
  reserved_tiles_ -= job.worst_tiles;
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
