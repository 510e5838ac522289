#include "worker/engine.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/answer_text.h"

namespace palimpsest {
struct Engine::Job {
  // A block of the prompt, planned before anything runs.
  struct Block {
    int64_t first, rows;  // tokens of the prompt
    size_t segment;
    bool shared;
    BlockId id;  // of shared blocks
  };

  Job(JobId job_id, Request r, std::shared_ptr<const Tokenizer> tokenizer)
      : id(job_id),
        request(std::move(r)),
        text(std::move(tokenizer), {request.sampling.stop().begin(), request.sampling.stop().end()}) {}

  const JobId id;
  Request request;
  AnswerText text;
  std::vector<int32_t> prompt;  // all segments, one after the other
  std::vector<Block> blocks;
  size_t next_block = 0;  // to be opened
  size_t next_seal = 0;   // to be sealed
  int64_t worst_tiles = 0;
  int64_t max_tokens = 0;  // the request's, bounded by the window
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<Sampler> sampler;
  int64_t prefilled = 0;  // prompt tokens whose KV is there
  int64_t cached = 0;
  Outcome outcome;
  enum class State { kWaiting, kPrompt, kDecode, kDone } state = State::kWaiting;
  TimePoint submitted, admitted, prompt_done, decode_start, ended;
  int64_t peak_tiles = 0;     // most the arena held in the steps of this request before the last
  int64_t spilled_bytes = 0;  // by sealing this request's blocks
};

Engine::Engine(const EngineOptions& options) : options_(options) {}
Engine::~Engine() = default;

absl::Status Engine::CheckRequest(const Request& request) const {
  PALIMPSEST_RETURN_IF_ERROR(CheckSampling(request.sampling));
  int64_t total = 0;
  bool own = false;
  for (const Segment& segment : request.segments) {
    if (segment.tokens.empty()) continue;
    // A block's id names all that its keys depend on, which what is not shared would have to be part of.
    if (segment.shared && own) {
      return InvalidArgument("a shared segment of {} tokens after one that is not shared; shared ones first",
                             segment.tokens.size());
    }
    own = !segment.shared;
    total += static_cast<int64_t>(segment.tokens.size());
    for (const int32_t id : segment.tokens) {
      if (id < 0 || id >= config_.vocabulary) {
        return InvalidArgument("token id {} is not in the vocabulary of {}", id, config_.vocabulary);
      }
    }
  }
  if (total == 0) return InvalidArgument("the prompt is empty");
  const int64_t room = config_.context - (request.sampling.max_tokens() > 0 ? 1 : 0);
  if (total > room) {
    return InvalidArgument(
        "the prompt has {} tokens, but {} was trained for a window of {}; longer prompts need the anchored "
        "or pot prefill, "
        "which this version does not have: shorten the text",
        total, config_.name, config_.context);
  }
  return absl::OkStatus();
}

// Cuts each segment into blocks and names the shared ones; blocks of the question and the answer are 64 wide.
void Engine::PlanBlocks(Job& job) const {
  BlockId parent = chain_->Root();
  int64_t position = 0;
  for (size_t s = 0; s < job.request.segments.size(); ++s) {
    const Segment& segment = job.request.segments[s];
    const int64_t size = static_cast<int64_t>(segment.tokens.size());
    for (int64_t first = 0; first < size; first += kTileSlots) {
      const int64_t rows = std::min(kTileSlots, size - first);
      Job::Block block{position + first, rows, s, segment.shared, {}};
      if (segment.shared) {
        parent = chain_->Next(
            parent, position + first,
            std::span(segment.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(rows)));
        block.id = parent;
      }
      job.blocks.push_back(block);
    }
    position += size;
    job.prompt.insert(job.prompt.end(), segment.tokens.begin(), segment.tokens.end());
  }
}

absl::StatusOr<Engine::JobId> Engine::Submit(Request request) {
  PALIMPSEST_RETURN_IF_ERROR(CheckRequest(request));
  auto job = std::make_unique<Job>(next_id_, std::move(request), tokenizer_);
  PlanBlocks(*job);
  const int64_t length = static_cast<int64_t>(job->prompt.size());
  job->max_tokens = std::min<int64_t>(job->request.sampling.max_tokens(), config_.context - length);
  const int64_t groups = static_cast<int64_t>(job->blocks.size()) + DivideUp(job->max_tokens, kTileSlots) + 1;
  job->worst_tiles = groups * store_->shape().tiles();
  if (job->worst_tiles > arena_->capacity_tiles()) {
    return ResourceExhausted(
        "a prompt of {} tokens and an answer of up to {} need {} bytes of device memory, the arena has {}; "
        "raise "
        "device.arena_bytes or ask for fewer tokens",
        length, job->max_tokens, job->worst_tiles * arena_->tile_bytes(),
        arena_->capacity_tiles() * arena_->tile_bytes());
  }
  job->submitted = options_.clock->Now();
  const JobId id = next_id_++;
  jobs_.push_back(std::move(job));
  return id;
}

bool Engine::Admit(Job& job) {
  if (reserved_tiles_ + job.worst_tiles > arena_->capacity_tiles()) return false;
  reserved_tiles_ += job.worst_tiles;
  job.admitted = options_.clock->Now();
  job.sequence = std::make_unique<Sequence>(store_.get(), job.worst_tiles / store_->shape().tiles());
  if (job.max_tokens > 0) {
    job.sampler = std::make_unique<Sampler>(job.request.sampling, config_.vocabulary, job.prompt);
    job.outcome.tokens.reserve(static_cast<size_t>(job.max_tokens));
    // A token is 4 bytes or so; what goes on for longer pays a copy each time the text has doubled.
    constexpr int64_t kTextBytesPerToken = 8, kTextBytesMax = 1 << 16;
    job.outcome.text.reserve(
        static_cast<size_t>(std::min(job.max_tokens * kTextBytesPerToken, kTextBytesMax)));
  }
  FindCached(job);
  job.state = Job::State::kPrompt;
  return true;
}

// Takes the longest run of shared blocks from the front that some tier holds. The last token of the prompt is
// always run, since its logits are needed.
void Engine::FindCached(Job& job) {
  double below_seconds = 0;  // whole blocks that are loaded; slices are recall's
  while (job.next_block < job.blocks.size()) {
    const Job::Block& block = job.blocks[job.next_block];
    const bool last = block.first + block.rows == static_cast<int64_t>(job.prompt.size());
    if (!block.shared || (last && (job.max_tokens > 0 || job.request.top > 0))) break;
    const TimePoint before = options_.clock->Now();
    std::optional<TieredStore::Found> found = store_->Find(block.id, block.first, /*base=*/0, block.rows);
    if (!found.has_value()) break;
    if (found->source == TieredStore::Source::kBelow) below_seconds += Since(before);
    job.sequence->AddPinned(std::move(found->pin));
    job.cached += block.rows;
    ++job.next_block;
  }
  job.next_seal = job.next_block;
  job.prefilled = job.cached;
  job.outcome.receipt.mutable_seconds()->set_load(below_seconds);
}

// Takes up to `budget` prompt tokens into the step; false if none were taken.
bool Engine::AddPromptRows(Job& job, int64_t budget) {
  const int64_t length = static_cast<int64_t>(job.prompt.size());
  const int64_t first = job.prefilled;
  int64_t taken = 0;
  while (taken < budget && first + taken < length) {
    if (job.sequence->room() == 0 ||
        first + taken == job.blocks[job.next_block - 1].first + job.blocks[job.next_block - 1].rows) {
      const Job::Block& block = job.blocks[job.next_block];
      const absl::Status opened =
          job.sequence->OpenGroup(block.shared ? block.rows : kTileSlots, block.shared);
      PALIMPSEST_CHECK(opened.ok(), "an admitted request found no room: {}", Message(opened));
      ++job.next_block;
    }
    const Job::Block& block = job.blocks[job.next_block - 1];
    const int64_t n = std::min(budget - taken, block.first + block.rows - (first + taken));
    job.sequence->Extend(n);
    taken += n;
  }
  if (taken == 0) return false;
  job.prefilled += taken;
  step_.push_back(
      {.sequence = job.sequence.get(),
       .tokens = std::span(job.prompt).subspan(static_cast<size_t>(first), static_cast<size_t>(taken)),
       .logits = job.prefilled == length && (job.max_tokens > 0 || job.request.top > 0)});
  step_jobs_.push_back(&job);
  return true;
}

void Engine::AddDecodeRow(Job& job) {
  if (job.sequence->room() == 0) {
    const absl::Status opened = job.sequence->OpenGroup(kTileSlots, /*keep_rest=*/false);
    PALIMPSEST_CHECK(opened.ok(), "an admitted request found no room: {}", Message(opened));
  }
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
  int64_t budget = options_.chunk_tokens;
  for (auto& job : jobs_) {
    if (job->state == Job::State::kDecode && budget > 0) {
      AddDecodeRow(*job);
      --budget;
    }
  }
  for (auto& job : jobs_) {
    if (job->state != Job::State::kPrompt) continue;
    if (job->prefilled == static_cast<int64_t>(job->prompt.size())) {  // all of it was cached
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
  const Rows<const float> logits = transformer_->Step(step_, arena_->pool());
  int64_t row = 0;
  for (size_t i = 0; i < step_.size(); ++i) {
    const std::span<const float> own =
        step_[i].logits ? std::span(logits.row(row++), static_cast<size_t>(config_.vocabulary))
                        : std::span<const float>();
    AfterStep(*step_jobs_[i], own);
  }
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
  const int64_t length = static_cast<int64_t>(job.prompt.size());
  if (job.request.on_prefill) job.request.on_prefill(job.prefilled, length);
  if (job.prefilled < length) return;
  if (job.request.top > 0) job.outcome.top = TopTokens(logits, job.request.top);
  AfterPrompt(job);
  if (job.state == Job::State::kDecode) Emit(job, logits);
}

void Engine::AfterPrompt(Job& job) {
  job.prompt_done = options_.clock->Now();
  proto::Receipt& receipt = job.outcome.receipt;
  receipt.set_resident_tokens(static_cast<double>(job.sequence->length()));
  receipt.mutable_device_bytes()->set_resident(job.sequence->resident_tiles() * arena_->tile_bytes());
  receipt.mutable_seconds()->set_prefill(Seconds(job.prompt_done - job.admitted) - receipt.seconds().load());
  if (job.max_tokens == 0)
    return Finish(job, absl::OkStatus(), job.request.sampling.max_tokens() == 0 ? "stop" : "length");
  job.decode_start = job.prompt_done;
  job.state = Job::State::kDecode;
}

void Engine::Emit(Job& job, std::span<const float> logits) {
  Outcome& outcome = job.outcome;
  const int32_t token = job.sampler->Next(logits, static_cast<int64_t>(outcome.tokens.size()));
  outcome.tokens.push_back(token);
  if (outcome.tokens.size() == 1) {
    outcome.receipt.mutable_seconds()->set_first_token(Since(job.submitted));
    job.decode_start = options_.clock->Now();
  }
  const bool end = tokenizer_ != nullptr && tokenizer_->IsEnd(token) && !job.request.ignore_end;
  if (tokenizer_ != nullptr) {
    const std::string text = end ? std::string() : job.text.Push(token);
    if (!text.empty() && job.request.on_text) job.request.on_text(text, token);
    outcome.text += text;
  }
  if (end || job.text.stopped()) return Finish(job, absl::OkStatus(), "stop");
  if (static_cast<int64_t>(outcome.tokens.size()) >= job.max_tokens) Finish(job, absl::OkStatus(), "length");
}

void Engine::Finish(Job& job, absl::Status status, std::string reason) {
  job.ended = options_.clock->Now();
  Outcome& outcome = job.outcome;
  outcome.status = std::move(status);
  outcome.finish_reason = std::move(reason);
  if (tokenizer_ != nullptr) {
    const std::string rest = job.text.Finish();
    if (!rest.empty() && job.request.on_text)
      job.request.on_text(rest, outcome.tokens.empty() ? -1 : outcome.tokens.back());
    outcome.text += rest;
  }
  if (job.sequence != nullptr) FillReceipt(job);
  if (job.state != Job::State::kWaiting) reserved_tiles_ -= job.worst_tiles;
  job.sequence.reset();
  job.sampler.reset();
  job.state = Job::State::kDone;
}

void Engine::FillReceipt(Job& job) {
  Outcome& outcome = job.outcome;
  const int64_t prompt = static_cast<int64_t>(job.prompt.size());
  int64_t generated = static_cast<int64_t>(outcome.tokens.size());
  if (tokenizer_ != nullptr && generated > 0 && tokenizer_->IsEnd(outcome.tokens.back()) &&
      !job.request.ignore_end) {
    --generated;
  }
  outcome.usage.set_prompt_tokens(prompt);
  outcome.usage.set_completion_tokens(generated);
  outcome.usage.set_cached_tokens(job.cached);
  int64_t position = 0, recomputed = 0;
  for (const Segment& segment : job.request.segments) {
    const int64_t size = static_cast<int64_t>(segment.tokens.size());
    if (segment.known) recomputed += size - std::clamp<int64_t>(job.cached - position, 0, size);
    position += size;
  }
  for (const Job::Block& block : job.blocks) outcome.blocks += block.shared ? 1 : 0;
  proto::Receipt& receipt = outcome.receipt;
  receipt.set_policy("full");
  receipt.set_recall("none");
  receipt.set_prefill("exact");
  receipt.set_question("hidden");
  receipt.set_prompt_tokens(prompt);
  receipt.set_recomputed_tokens(recomputed);
  receipt.set_workers(1);
  receipt.mutable_device_bytes()->set_peak(std::max(job.peak_tiles, arena_->peak_tiles()) *
                                           arena_->tile_bytes());
  receipt.mutable_spilled_bytes()->set_host(job.spilled_bytes);
  proto::Receipt::Seconds& seconds = *receipt.mutable_seconds();
  seconds.set_queue(Seconds(job.admitted - job.submitted));
  const int64_t computed = job.prefilled - job.cached;
  if (seconds.prefill() > 0) {
    receipt.mutable_tokens_per_second()->set_prefill(static_cast<double>(computed) / seconds.prefill());
  }
  const int64_t steps =
      static_cast<int64_t>(outcome.tokens.size()) - 1;  // the first token came with the prefill
  if (steps > 0) {
    seconds.set_decode(Seconds(job.ended - job.decode_start));
  }
  if (seconds.decode() > 0) {
    receipt.mutable_tokens_per_second()->set_decode(static_cast<double>(steps) / seconds.decode());
  }
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

absl::StatusOr<Outcome> Engine::Run(Request request) {
  PALIMPSEST_ASSIGN_OR_RETURN(const JobId id, Submit(std::move(request)));
  while (true) {
    const bool more = Step();
    if (std::unique_ptr<Outcome> outcome = Take(id)) return std::move(*outcome);
    PALIMPSEST_CHECK(more, "request {} neither runs nor ends", id);
  }
}

}  // namespace palimpsest
