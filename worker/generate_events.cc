#include "worker/generate_events.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::StatusOr<Segment::Role> RoleOf(const proto::PromptPart& part) {
  switch (part.role()) {
    case proto::PromptPart::CONTEXT:
      return Segment::Role::kContext;
    case proto::PromptPart::PREFIX:
      return Segment::Role::kPrefix;
    case proto::PromptPart::QUESTION:
      return Segment::Role::kQuestion;
    default:
      return InvalidArgument("role {} of a part is not known", static_cast<int>(part.role()));
  }
}

absl::StatusOr<PrefillMode> PrefillOf(proto::Prefill prefill) {
  switch (prefill) {
    case proto::EXACT:
      return PrefillMode::kExact;
    case proto::ANCHORED:
      return PrefillMode::kAnchored;
    case proto::POT:
      return PrefillMode::kPot;
    default:
      return InvalidArgument("prefill {} is not known", static_cast<int>(prefill));
  }
}

absl::StatusOr<Segment> SegmentOf(const proto::PromptPart& part) {
  Segment segment{.tokens = {part.tokens().begin(), part.tokens().end()}, .known = part.known()};
  PALIMPSEST_ASSIGN_OR_RETURN(segment.role, RoleOf(part));
  switch (part.sharing()) {
    case proto::PromptPart::OWN:
      return segment;
    case proto::PromptPart::WHOLE:
      segment.shared = true;
      return segment;
    case proto::PromptPart::FULL_BLOCKS:
      segment.shared = segment.full_blocks = true;
      return segment;
    default:
      return InvalidArgument("sharing {} of a part is not known", static_cast<int>(part.sharing()));
  }
}

absl::StatusOr<CacheDomain> CacheDomainOf(const std::string& bytes) {
  CacheDomain domain;
  if (bytes.size() != domain.size()) {
    return InvalidArgument("cache_domain has {} bytes, expected {}", bytes.size(), domain.size());
  }
  std::transform(bytes.begin(), bytes.end(), domain.begin(), [](char c) { return static_cast<uint8_t>(c); });
  return domain;
}

}  // namespace

absl::StatusOr<Request> RequestOf(const proto::GenerateRequest& from) {
  constexpr int32_t kTopLogprobsMax = 20;
  if (from.top_logprobs() < 0 || from.top_logprobs() > kTopLogprobsMax) {
    return InvalidArgument("top_logprobs is {}, expected 0 to {}", from.top_logprobs(), kTopLogprobsMax);
  }
  if (!proto::Priority_IsValid(from.priority())) {
    return InvalidArgument("priority {} is not known", static_cast<int>(from.priority()));
  }
  Request request;
  for (const proto::PromptPart& part : from.parts()) {
    PALIMPSEST_ASSIGN_OR_RETURN(Segment segment, SegmentOf(part));
    request.segments.push_back(std::move(segment));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(request.prefill, PrefillOf(from.prefill()));
  if (!from.policy().empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(request.policy, ParsePolicy(from.policy()));
    if (request.policy.kind == PolicySpec::Kind::kAuto) {
      return InvalidArgument("policy auto is the coordinator's to decide");
    }
  }
  if (!from.recall().empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(request.recall, ParseRecall(from.recall()));
  }
  request.question_visible = from.question_visible();
  request.catalyst.assign(from.catalyst().begin(), from.catalyst().end());
  request.sampling = from.sampling();
  request.generated.assign(from.generated().begin(), from.generated().end());
  request.logprobs = from.logprobs() || from.top_logprobs() > 0;
  request.top_logprobs = from.top_logprobs();
  request.background = from.priority() == proto::BACKGROUND;
  request.ignore_end = from.ignore_end();
  if (!from.cache_domain().empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(request.cache_domain, CacheDomainOf(from.cache_domain()));
  }
  return request;
}

proto::GenerateEvent TokenEventOf(const AnswerToken& token) {
  proto::GenerateEvent event;
  proto::TokenEvent& to = *event.mutable_token();
  to.set_sequence(token.sequence);
  to.set_token(token.token);
  to.set_text(std::string(token.text));
  to.set_logprob(token.log_probability);
  for (const TopToken& best : token.top) {
    proto::TokenLogprob& logprob = *to.add_top();
    logprob.set_token(best.id);
    logprob.set_logprob(best.log_probability);
  }
  return event;
}

proto::GenerateEvent PrefillEventOf(int64_t done_tokens, int64_t total_tokens, int64_t cached_tokens) {
  proto::GenerateEvent event;
  event.mutable_prefill()->set_done_tokens(done_tokens);
  event.mutable_prefill()->set_total_tokens(total_tokens);
  event.mutable_prefill()->set_cached_tokens(cached_tokens);
  return event;
}

proto::GenerateEvent DoneEventOf(const Outcome& outcome) {
  proto::GenerateEvent event;
  proto::DoneEvent& to = *event.mutable_done();
  to.set_text(outcome.rest);
  to.set_finish_reason(outcome.finish_reason);
  *to.mutable_usage() = outcome.usage;
  *to.mutable_receipt() = outcome.receipt;
  to.set_blocks(outcome.blocks);
  return event;
}

}  // namespace palimpsest
