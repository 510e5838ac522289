#include "coordinator/prompt_request.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "proto/base/ids.h"
#include "proto/base/status.h"
#include "storage/resident_blocks.h"

namespace palimpsest {
namespace {

// The memory of the worker that holds most tokens; all zeros if none is alive.
struct Memory {
  int64_t arena_bytes = 0;
  int64_t bytes_per_token = 0;
  int64_t blocks() const { return bytes_per_token == 0 ? 0 : arena_bytes / bytes_per_token / kTileSlots; }
};

Memory BiggestWorker(const Registry& registry) {
  Memory biggest;
  for (const Registry::Worker& worker : registry.Alive()) {
    const Memory memory{worker.hello.arena_bytes(), worker.hello.bytes_per_token()};
    if (biggest.bytes_per_token == 0 || memory.blocks() > biggest.blocks()) biggest = memory;
  }
  return biggest;
}

proto::PromptPart::Sharing SharingOf(const PromptSegment& segment) {
  return segment.shared() ? proto::PromptPart::WHOLE : proto::PromptPart::FULL_BLOCKS;
}

// A conversation without documents is what a policy chooses from itself.
proto::PromptPart::Role RoleOf(const PromptSegment& segment, const PromptPlan& plan) {
  if (segment.kind == PromptSegment::Kind::kPrefix) return proto::PromptPart::PREFIX;
  const bool question = segment.kind == PromptSegment::Kind::kConversation && plan.sizes.documents > 0;
  return question ? proto::PromptPart::QUESTION : proto::PromptPart::CONTEXT;
}

void AddPrompt(PromptPlan plan, proto::GenerateRequest* generate) {
  for (PromptSegment& segment : plan.segments) {
    proto::PromptPart& part = *generate->add_parts();
    part.mutable_tokens()->Assign(segment.tokens.begin(), segment.tokens.end());
    part.set_sharing(SharingOf(segment));
    part.set_known(segment.known);
    part.set_role(RoleOf(segment, plan));
    segment.tokens = {};
  }
  generate->set_prefill(plan.mode.prefill);
  generate->set_policy(PolicyText(plan.mode.policy));
  generate->set_recall(RecallText(plan.mode.recall));
  generate->set_question_visible(plan.question_visible);
  generate->mutable_catalyst()->Assign(plan.catalyst.begin(), plan.catalyst.end());
}

// What a prompt takes of one worker, for one choice.
struct Footprint {
  static constexpr int64_t kUnbounded = -1;
  int64_t positions = 0;    // before the answer's first token; kUnbounded: a pot goes on in another cycle
  int64_t peak_blocks = 0;  // while the prompt is read
  int64_t kept_blocks = 0;  // while the answer is generated, beside those of the answer
  int64_t behind = 0;       // tokens of the question, if it goes to 2 bits with the answer
  int64_t residual = 0;     // then, exact ones
  int64_t answer_held = std::numeric_limits<int64_t>::max();  // tokens of it: then others go for them
  int64_t DecodeBlocks(int64_t answer) const {
    const int64_t held = std::min(answer, answer_held);
    return kept_blocks + (residual == 0 ? BlocksOf(held) : BlocksBehind(behind, held, residual));
  }
  int64_t Blocks(int64_t answer) const {
    if (positions == kUnbounded) return peak_blocks;
    return std::max(peak_blocks, DecodeBlocks(answer));
  }
};

// Each segment starts a block of its own, and the answer may begin in one that is nearly full.
int64_t PromptBlocks(const PromptPlan& plan) {
  int64_t blocks = 1;
  for (const PromptSegment& segment : plan.segments) {
    blocks += BlocksOf(static_cast<int64_t>(segment.tokens.size()));
  }
  return blocks;
}

int64_t RepeatedOf(const PromptPlan& plan) {
  const int64_t text = plan.mode.prefill == proto::ANCHORED ? plan.longest_span : plan.mode.candidates;
  return plan.mode.policy.RepeatedOf(text, static_cast<int64_t>(plan.catalyst.size()));
}

// As the engine reserves it (Engine::WorstTiles), in blocks of all KV heads.
Footprint FootprintOf(const PromptPlan& plan) {
  const PromptMode& mode = plan.mode;
  const bool drops_later = mode.policy.kind == PolicySpec::Kind::kStreaming || mode.policy.evicts();
  const bool drops_nothing = mode.prefill == proto::EXACT && mode.kept >= mode.candidates && !drops_later;
  const int64_t residual = mode.policy.residual_tokens();
  if (residual == 0 && (!mode.policy.compresses() || drops_nothing)) {
    return {.positions = plan.tokens, .peak_blocks = PromptBlocks(plan), .kept_blocks = PromptBlocks(plan)};
  }
  if (mode.prefill == proto::POT) {
    constexpr int64_t kPartial = 3;  // the ends of catalyst, context and prompt
    return {.positions = Footprint::kUnbounded, .peak_blocks = BlocksOf(mode.kept) + kPartial};
  }
  constexpr int64_t kPicksPartial = 2;  // what is picked ends in a block of its own, and so does its window
  const int64_t picks =
      KeptBlocks(mode.kept, mode.policy.shares(), residual) + BlocksOf(mode.recalled) + kPicksPartial;
  const int64_t behind = plan.tokens - mode.candidates;  // the question, unless it was chosen from too
  const int64_t kept = residual > 0 ? picks : picks + BlocksOf(behind) + 1;
  if (mode.prefill == proto::EXACT) {
    const int64_t looks = BlocksOf(RepeatedOf(plan));
    Footprint exact{.positions = plan.tokens,
                    .peak_blocks = PromptBlocks(plan) + std::max(picks, looks),
                    .kept_blocks = kept,
                    .behind = behind,
                    .residual = residual};
    if (mode.policy.evicts()) exact.answer_held = mode.policy.LimitOf(mode.candidates) - mode.kept;
    return exact;
  }
  const int64_t prefix = BlocksOf(plan.sizes.prefix) + 1;
  const int64_t most = std::max(mode.kept, mode.policy.MostOf(mode.candidates));
  return {
      .positions = most + mode.recalled + behind,
      .peak_blocks = prefix + BlocksOf(plan.longest_span) + BlocksOf(behind) + BlocksOf(RepeatedOf(plan)) + 1,
      .kept_blocks = prefix + kept,
      .behind = behind,
      .residual = residual};
}

}  // namespace

absl::Status CheckAnswerRequest(const AnswerRequest& request, const Config::Limits& limits) {
  if (request.choices < 1 || request.choices > limits.choices) {
    return InvalidArgument("{} choices were asked for, limits.choices allows 1 to {}", request.choices,
                           limits.choices);
  }
  if (request.sampling.max_tokens() < 0) {
    return InvalidArgument("max_tokens {} is negative", request.sampling.max_tokens());
  }
  if (request.top_logprobs < 0 || request.top_logprobs > limits.logprobs) {
    return InvalidArgument("{} log-probabilities for each token were asked for, limits.logprobs allows {}",
                           request.top_logprobs, limits.logprobs);
  }
  return absl::OkStatus();
}

absl::StatusOr<PromptPlan> PlanPrompt(const PromptPlanner& planner, std::vector<PromptDocument> documents,
                                      const AnswerRequest& request) {
  if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&request.prompt)) {
    return planner.PlanChat(std::move(documents), *messages, request.options);
  }
  if (!documents.empty()) {
    return InvalidArgument("a plain prompt with {} documents: documents go with a conversation",
                           documents.size());
  }
  if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    return planner.PlanText(*text, request.options);
  }
  return planner.PlanTokens(std::get<std::vector<int32_t>>(request.prompt), request.options);
}

absl::StatusOr<Admission::Need> FitAnswer(const PromptPlan& plan, int64_t max_tokens,
                                          const AnswerLimits& limits, const Registry& registry) {
  const bool ingest = limits.window_tokens == 0;
  const bool may_cut = limits.may_cut || max_tokens == 0;
  const Footprint footprint = FootprintOf(plan);
  int64_t answer = max_tokens;
  if (!ingest && footprint.positions == Footprint::kUnbounded) {
    if (max_tokens == 0) answer = limits.default_tokens;
  } else if (!ingest) {
    const int64_t room = limits.window_tokens - footprint.positions;
    if (room < 1 || (max_tokens > room && !may_cut)) {
      return MarkOverWindow(InvalidArgument(
          "the prompt has {} tokens, of which {} stay, and the answer may have {}: together {}, the model's "
          "window is {}; ask for a shorter answer, or shorten the prompt",
          plan.tokens, footprint.positions, max_tokens, footprint.positions + max_tokens,
          limits.window_tokens));
    }
    answer = max_tokens == 0 ? room : std::min(max_tokens, room);
  }
  const Memory memory = BiggestWorker(registry);
  if (memory.bytes_per_token > 0 && footprint.Blocks(answer) > memory.blocks()) {
    const int64_t left = (memory.blocks() - footprint.DecodeBlocks(0)) * kTileSlots;
    if (ingest || left < 1 || !may_cut || footprint.peak_blocks > memory.blocks()) {
      return MarkOverWindow(ResourceExhausted(
          "a prompt of {} tokens read by prefill {} with policy {} and an answer of {} need {} bytes of "
          "device "
          "memory, the biggest worker has {}; raise device.arena_bytes, or shorten them",
          plan.tokens, plan.prefill, plan.mode.policy.name(), ingest ? 0 : answer,
          footprint.Blocks(ingest ? 0 : answer) * kTileSlots * memory.bytes_per_token, memory.arena_bytes));
    }
    answer = std::min(answer, left);
  }
  const int64_t bytes = footprint.Blocks(answer) * kTileSlots * memory.bytes_per_token;
  return Admission::Need{.prompt_tokens = plan.tokens,
                         .answer_tokens = answer * limits.choices,
                         .bytes = bytes * limits.choices,
                         .slots = limits.choices};
}

proto::GenerateRequest GenerateRequestOf(PromptPlan plan, const AnswerRequest& request, int64_t max_tokens,
                                         std::string cache_domain) {
  proto::GenerateRequest generate;
  generate.set_request_id(request.request_id);
  AddPrompt(std::move(plan), &generate);
  *generate.mutable_sampling() = request.sampling;
  generate.mutable_sampling()->set_max_tokens(max_tokens);
  generate.set_logprobs(request.logprobs);
  generate.set_top_logprobs(request.top_logprobs);
  generate.set_ignore_end(request.ignore_end);
  generate.set_cache_domain(std::move(cache_domain));
  generate.set_priority(proto::INTERACTIVE);
  return generate;
}

proto::GenerateRequest IngestRequest(PromptPlan plan, std::string cache_domain) {
  proto::GenerateRequest generate;
  AddPrompt(std::move(plan), &generate);
  generate.mutable_sampling()->set_top_p(1);
  generate.mutable_sampling()->set_repetition_penalty(1);
  generate.set_cache_domain(std::move(cache_domain));
  generate.set_priority(proto::BACKGROUND);
  return generate;
}

absl::StatusOr<std::string> NewSecret() {
  std::string secret(32, '\0');
  if (getrandom(secret.data(), secret.size(), 0) == static_cast<ssize_t>(secret.size())) return secret;
  return Internal("the system gave no random bytes: {}", std::strerror(errno));
}

std::string CacheDomain(const std::string& secret, const std::string& tenant, const std::string& salt) {
  // The length keeps ("ab", "c") and ("a", "bc") apart.
  const Hash256 domain = HmacSha256(secret, fmt::format("{} {}{}", tenant.size(), tenant, salt));
  return {reinterpret_cast<const char*>(domain.bytes.data()), domain.bytes.size()};
}

}  // namespace palimpsest
