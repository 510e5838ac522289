// How a request becomes a job: what is refused, how the prompt is cut into blocks, where a resumed answer
// stands.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/engine_job.h"

namespace palimpsest {

absl::Status Engine::CheckTokens(std::span<const int32_t> tokens) const {
  for (const int32_t id : tokens) {
    if (id < 0 || id >= config_.vocabulary) {
      return InvalidArgument("token id {} is not in the vocabulary of {}", id, config_.vocabulary);
    }
  }
  return absl::OkStatus();
}

absl::Status Engine::CheckRequest(const Request& request) const {
  PALIMPSEST_RETURN_IF_ERROR(CheckSampling(request.sampling));
  if (request.top_logprobs < 0 || request.top_logprobs > config_.vocabulary) {
    return InvalidArgument("top_logprobs is {}, expected 0 to {}", request.top_logprobs, config_.vocabulary);
  }
  int64_t total = 0;
  bool own = false;
  for (const Segment& segment : request.segments) {
    if (segment.tokens.empty()) continue;
    // A block's id names all that its keys depend on, which what is not shared would have to be part of.
    if (segment.shared && own) {
      return InvalidArgument("a shared segment of {} tokens after one that is not shared; shared ones first",
                             segment.tokens.size());
    }
    own = !segment.shared || segment.full_blocks;
    total += static_cast<int64_t>(segment.tokens.size());
    PALIMPSEST_RETURN_IF_ERROR(CheckTokens(segment.tokens));
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckTokens(request.generated));
  if (total == 0) return InvalidArgument("the prompt is empty");
  constexpr int64_t kTokensMax = 1 << 30;  // positions and indices are 32 bits wide
  if (total <= kTokensMax) return absl::OkStatus();
  return InvalidArgument("the prompt has {} tokens, at most {} are possible", total, kTokensMax);
}

// Whoever reads the disk without its key cannot test what was asked: ids stand under a secret, too.
CacheDomain Engine::DomainOf(const Job& job) const {
  const CacheDomain& named =
      job.request.cache_domain.has_value() ? *job.request.cache_domain : options_.tenant_key;
  if (id_key_ == Hash256{}) return named;
  const auto bytes = [](const auto& key) {
    return std::string_view(reinterpret_cast<const char*>(key.data()), key.size());
  };
  return HmacSha256(bytes(id_key_.bytes), bytes(named)).bytes;
}

BlockKeySchema Engine::KeySchemaOf(const Job& job) const {
  BlockKeySchema schema = schema_;
  schema.tenant_key = DomainOf(job);
  return schema;
}

// Cuts each segment into blocks and names the shared ones; blocks of the question and the answer are 64 wide.
// What is computed over a compressed context is the request's own: a block's name does not tell what was
// dropped. A pot cuts its blocks as it goes.
void Engine::PlanBlocks(Job& job) const {
  const Compression* c = job.compression.get();
  if (c != nullptr && c->pot()) return;
  BlockKeySchema schema = KeySchemaOf(job);
  const BlockChain of_context(schema);
  schema.prefill_parameters = job.request.measured_as;
  const BlockChain of_question(schema);
  BlockId parent = of_context.Root(), anchor = parent;
  int64_t at = 0;
  for (const Segment& segment : job.request.segments) {
    const int64_t size = static_cast<int64_t>(segment.tokens.size());
    const bool compressed = c != nullptr && at + size <= c->context_end;
    const bool span = c != nullptr && c->anchored() && segment.role == Segment::Role::kContext;
    if (c != nullptr && !compressed) break;  // the question
    if (span) parent = anchor;
    const BlockChain& chain = segment.role == Segment::Role::kQuestion ? of_question : of_context;
    // In a span positions begin anew behind the anchor.
    const int64_t position = span ? c->fixed : at;
    for (int64_t first = 0; first < size; first += kTileSlots) {
      const int64_t rows = std::min(kTileSlots, size - first);
      const bool shared = compressed || (segment.shared && (rows == kTileSlots || !segment.full_blocks));
      Job::Block block{
          .first = at + first, .rows = rows, .position = position + first, .shared = shared, .id = {}};
      if (shared) {
        parent = chain.Next(
            parent, position + first,
            std::span(segment.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(rows)));
        block.id = parent;
      }
      job.blocks.push_back(block);
    }
    if (segment.role == Segment::Role::kPrefix) anchor = parent;
    at += size;
  }
}

// Takes in the tokens the client has, so that text, stop strings and counts stand where they stood.
absl::Status Engine::Replay(Job& job) const {
  const std::vector<int32_t>& generated = job.request.generated;
  const int64_t count = static_cast<int64_t>(generated.size());
  if (count > job.max_tokens) {
    return InvalidArgument("{} tokens were generated already, the answer has at most {}", count,
                           job.max_tokens);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (job.outcome.finish_reason == "stop") {
      return InvalidArgument("{} tokens were generated already, but the answer ended with number {}", count,
                             i);
    }
    Append(job, generated[static_cast<size_t>(i)]);
  }
  job.tokens.insert(job.tokens.end(), generated.begin(), generated.end());
  return absl::OkStatus();
}

absl::StatusOr<Engine::JobId> Engine::Submit(Request request) {
  PALIMPSEST_RETURN_IF_ERROR(CheckRequest(request));
  auto job = std::make_unique<Job>(next_id_, std::move(request), tokenizer_);
  for (const Segment& segment : job->request.segments) {
    job->tokens.insert(job->tokens.end(), segment.tokens.begin(), segment.tokens.end());
  }
  job->prompt_tokens = job->length();
  PALIMPSEST_RETURN_IF_ERROR(PlanCompression(*job));
  PALIMPSEST_RETURN_IF_ERROR(CheckWindow(*job));
  PlanBlocks(*job);
  job->max_tokens = job->request.sampling.max_tokens();
  if (job->compression == nullptr || !job->compression->pot()) {
    job->max_tokens = std::min(job->max_tokens, config_.context - PromptPositions(*job));
  }
  PALIMPSEST_RETURN_IF_ERROR(Replay(*job));
  job->worst_tiles = WorstTiles(*job);
  job->groups_max = job->worst_tiles / store_->shape().tiles();
  if (job->compression != nullptr) job->groups_max += DivideUp(job->compression->most, kTileSlots);
  if (job->worst_tiles > arena_->capacity_tiles()) {
    return ResourceExhausted(
        "a prompt of {} tokens and an answer of up to {} need {} bytes of device memory, the arena has {}; "
        "raise device.arena_bytes or ask for fewer tokens",
        job->prompt_tokens, job->max_tokens, job->worst_tiles * arena_->tile_bytes(),
        arena_->capacity_tiles() * arena_->tile_bytes());
  }
  job->submitted = job->waiting_since = options_.clock->Now();
  // All of it is there already: nothing needs to run.
  if (!job->outcome.finish_reason.empty()) Finish(*job, absl::OkStatus(), job->outcome.finish_reason);
  jobs_.push_back(std::move(job));
  return next_id_++;
}

}  // namespace palimpsest
