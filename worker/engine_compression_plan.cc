// What a request asks of compression: checked, and turned into stops, budgets and reservations.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "storage/resident_blocks.h"
#include "worker/compression/view_format.h"
#include "worker/engine_compression.h"
#include "worker/engine_job.h"

namespace palimpsest {
namespace {

// What rests does so exactly, however it is written on the device.
std::string SelectionText(PolicySpec spec) {
  spec.kv = PolicySpec::Resident::kBf16;
  return PolicyText(spec);
}

// Percentages become tokens, and places in the documents places in the prompt. Where spans are scored one by
// one, roco's volatile tokens stay a part of each.
PolicySpec Resolved(PolicySpec spec, int64_t context, int64_t prefix, bool by_spans) {
  const int64_t keep = spec.KeepOf(context);
  spec.heavy = {spec.heavy.Of(context)};
  if (!by_spans) spec.volatile_tokens = {spec.volatile_tokens.Of(context)};
  for (PolicySpec::Image& image : spec.images) image = {image.first + prefix, image.end + prefix};
  spec.budget = {spec.budget.Of(context)};
  spec.recent = {spec.recent.Of(context)};
  spec.pot = {spec.pot.Of(context)};
  spec.keep = {keep};
  return spec;
}

void AppendBytes(const auto& values, std::string* out) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
}

}  // namespace

// Where prefix, spans and question are, from the segments.
absl::Status Engine::PlanContext(const Request& request, Compression& c) {
  int64_t at = 0;
  bool context = false;
  for (const Segment& segment : request.segments) {
    const int64_t size = static_cast<int64_t>(segment.tokens.size());
    if (size == 0) continue;
    if (c.has_question)
      return InvalidArgument("a part of {} tokens after the question, which must be the last", size);
    switch (segment.role) {
      case Segment::Role::kPrefix:
        if (context)
          return InvalidArgument("a prefix of {} tokens after other parts; prefixes come first", size);
        c.fixed += size;
        break;
      case Segment::Role::kContext:
        context = true;
        c.spans.push_back({at, at + size});
        break;
      case Segment::Role::kQuestion:
        c.has_question = true;
        break;
    }
    if (segment.role != Segment::Role::kQuestion) c.context_end = at + size;
    at += size;
  }
  return absl::OkStatus();
}

// A question is part of what is chosen from if the policy may see it and it is read behind the rest.
absl::Status Engine::PlanCompression(Job& job) const {
  const Request& request = job.request;
  auto c = std::make_unique<Compression>();
  c->mode = request.prefill;
  c->spec = request.policy;
  PALIMPSEST_RETURN_IF_ERROR(PlanContext(request, *c));
  PALIMPSEST_RETURN_IF_ERROR(CheckMode(job, *c));
  if (c->spec.kind == PolicySpec::Kind::kFull && !c->anchored() && c->residual() == 0)
    return absl::OkStatus();
  c->question_first = c->context_end;
  if (c->mode == PrefillMode::kExact && (request.question_visible || !c->has_question)) {
    c->context_end = job.prompt_tokens;
    c->has_question = false;
  }
  c->goes_on = !c->has_question && (request.sampling.max_tokens() > 0 || request.top > 0);
  const int64_t context = c->context_end;
  c->spec = Resolved(c->spec, context, c->fixed, c->anchored());
  c->policy = MakePolicy(c->spec);
  if (c->policy != nullptr) c->needs = c->policy->needs();
  if (c->needs.catalyst && request.catalyst.empty()) {
    return InvalidArgument("policy {} needs a catalyst, and there is none", c->spec.name());
  }
  if (c->needs.catalyst) c->probe = request.catalyst;
  if (c->anchored() && request.question_visible && c->needs.window > 0) {
    c->probe.assign(job.tokens.begin() + context, job.tokens.begin() + job.prompt_tokens);
  }
  if (c->policy != nullptr) {
    const int64_t probe = c->pot() && c->needs.repeat > 0 ? std::ssize(request.catalyst) : c->probe_size();
    PALIMPSEST_RETURN_IF_ERROR(
        CheckPolicyFits(request.policy, context, probe, c->fixed, context - c->question_first));
  }
  if (c->pot()) {
    c->budget = c->spec.keep.value;
    c->wants_losses = c->spec.alpha > 0;
    if (c->needs.repeat > 0) PALIMPSEST_RETURN_IF_ERROR(PlanRepetition(request, *c));
    // The largest head leaves half of what the others leave for reading.
    if (c->spec.distils_shares()) c->most = (c->budget + c->spec.pot.value) / 2 - c->fixed;
    // Nothing will ever be distilled: the same as reading it exactly, and its blocks can be shared.
    if (job.prompt_tokens < config_.context &&
        job.prompt_tokens + request.sampling.max_tokens() <= c->spec.pot.value - c->probe_max())
      return absl::OkStatus();
    NamePotBlocks(job, *c);
  } else if (c->policy != nullptr) {
    c->budget = c->spec.BudgetOf(context);
    // With room for all of it nothing is dropped; where the answer drops some, it must own its tiles.
    PALIMPSEST_RETURN_IF_ERROR(PlanEviction(request, *c, job.prompt_tokens));
    const bool fills = c->policy->sliding().has_value() ||
                       (c->held_max > 0 && job.prompt_tokens + request.sampling.max_tokens() > c->held_max);
    if (c->mode == PrefillMode::kExact && c->budget >= context && !fills) {
      if (c->residual() == 0) return absl::OkStatus();
      c->policy = nullptr;  // but all of it goes to 2 bits
      c->needs = {};
      c->probe.clear();
    }
    if (const int64_t asked = c->spec.budget.value;
        c->spec.kind == PolicySpec::Kind::kLookM && c->budget > asked) {
      job.outcome.receipt.add_degraded(fmt::format(
          "policy lookm keeps all text: {} tokens, {} over its budget", c->budget, c->budget - asked));
    }
    c->budget = std::min(c->budget, context);
    // Where kept tokens stand at their own positions, a large head costs nothing but its tiles.
    c->most = (c->anchored() || !c->spec.shares() ? c->spec.MostOf(context) : context) - c->fixed;
    PALIMPSEST_RETURN_IF_ERROR(
        CheckQuestionStays(c->spec, context, c->budget, c->fixed, context - c->question_first));
  }
  if (c->policy == nullptr) c->budget = context;
  if (c->needs.repeat > 0 && !c->pot()) PALIMPSEST_RETURN_IF_ERROR(PlanRepetition(request, *c));
  PALIMPSEST_RETURN_IF_ERROR(PlanRecall(request, *c));
  c->wants_losses = c->wants_losses || c->needs.losses;
  if (!request.question_visible && !c->goes_on && c->policy != nullptr && !c->policy->sliding().has_value())
    c->view_key = ViewKey(job, *c, SelectionText(c->spec) + request.measured_as);
  if (c->repeat_tokens > 0 && !c->pot()) c->scores_key = ScoresKey(job, *c);
  job.compression = std::move(c);
  return absl::OkStatus();
}

absl::Status Engine::CheckMode(const Job& job, const Compression& c) const {
  const Request& request = job.request;
  const bool answers = request.sampling.max_tokens() > 0;
  if ((c.spec.kind == PolicySpec::Kind::kInfiniPot) != c.pot()) {
    return InvalidArgument("policy {} with {} prefill: infinipot and the pot go together", c.spec.name(),
                           c.pot() ? "pot" : "another");
  }
  if (c.spec.kind == PolicySpec::Kind::kAuto)
    return InvalidArgument("policy auto must be resolved before it comes here");
  if (c.residual() > 0 && c.anchored() && c.spec.kind == PolicySpec::Kind::kFull) {
    return InvalidArgument(
        "policy full with kv=kivi2 and prefill anchored, which moves documents behind each other: use "
        "prefill "
        "exact with at most {} tokens, a policy that keeps fewer, or kv=bf16",
        config_.context);
  }
  if (c.residual() > 0 && (c.pot() || c.spec.kind == PolicySpec::Kind::kStreaming))
    return InvalidArgument("policy {} with kv=kivi2, whose tokens move: use another, or kv=bf16",
                           c.spec.name());
  if (c.anchored()) {
    if (c.spans.empty())
      return InvalidArgument("anchored prefill without a document; give one, or use exact");
    if (answers && !c.has_question) return InvalidArgument("anchored prefill of a prompt without a question");
  }
  if (c.spec.merge != PolicySpec::Merge::kNone && request.prefill != PrefillMode::kExact) {
    return InvalidArgument(
        "policy {} merges what it drops, which needs all of it at once: take prefill exact with at most {} "
        "tokens, or merge=none",
        c.spec.name(), config_.context);
  }
  if (c.spec.target > 0 && request.prefill != PrefillMode::kExact) {
    return InvalidArgument(
        "policy {}: target={} is measured in a text that is read as one: take prefill exact with at most {} "
        "tokens, or leave target out",
        c.spec.name(), c.spec.target, config_.context);
  }
  return CheckTokens(request.catalyst);
}

// Blocks of a pot depend on all that was distilled before, so also on how: the chain begins with that.
void Engine::NamePotBlocks(const Job& job, Compression& c) const {
  BlockKeySchema schema = KeySchemaOf(job);
  schema.prefill_mode = "pot";
  std::string parameters = PolicyText(c.spec);
  AppendBytes(c.probe, &parameters);
  AppendBytes(c.lead, &parameters);
  schema.prefill_parameters = Sha256(parameters).ToHex() + std::to_string(c.fixed);
  c.chain = std::make_unique<BlockChain>(schema);
}

// Of `what` a policy left of the context, or said of it.
Hash256 Engine::ViewKey(const Job& job, const Compression& c, std::string_view what) const {
  // It outlives this process, so all that its bytes depend on is in it, as in a block's id.
  std::string text = fmt::format("picks {}\n{}\n{}\n{}\n{}", kPicksVersion, model_hash_, key_schema_, what,
                                 static_cast<int>(c.mode));
  std::vector<int64_t> borders = {c.fixed, c.probe_max()};
  for (const Compression::Span& span : c.spans) borders.push_back(span.end);
  AppendBytes(borders, &text);
  AppendBytes(c.probe, &text);
  AppendBytes(c.lead, &text);
  AppendBytes(std::span(job.tokens).first(static_cast<size_t>(c.context_end)), &text);
  const CacheDomain domain = DomainOf(job);
  return HmacSha256({reinterpret_cast<const char*>(domain.data()), domain.size()}, text);
}

// Of what a repetition says of the context, whatever is kept of it. None where that would take too much of
// host memory while it is collected: of an 8B model with 256 heads, for a text of more than 262,144 tokens.
std::optional<Hash256> Engine::ScoresKey(const Job& job, const Compression& c) const {
  constexpr int64_t kBytesMax = int64_t{256} << 20;
  const int64_t scores = (c.context_end - c.fixed) * store_->shape().tiles();
  if (scores * static_cast<int64_t>(sizeof(float)) > kBytesMax) return std::nullopt;
  PolicySpec spec = PolicySpec::Of(c.spec.kind);
  spec.chunk = c.spec.chunk;
  spec.attend = c.spec.attend;
  return ViewKey(job, c, "scores of " + PolicyText(spec));
}

// Positions that the prompt takes, of those that the model was trained for.
int64_t Engine::PromptPositions(const Job& job) {
  const Compression* c = job.compression.get();
  if (c == nullptr || c->mode == PrefillMode::kExact) return job.prompt_tokens;
  if (c->pot()) return c->spec.pot.value;
  const int64_t question = job.prompt_tokens - c->context_end;
  return (c->policy == nullptr ? c->context_end : c->fixed + std::max<int64_t>(c->most, 0)) +
         c->recall_tokens + question;
}

absl::Status Engine::CheckWindow(const Job& job) const {
  const Compression* c = job.compression.get();
  const int64_t positions = PromptPositions(job), answer = job.request.sampling.max_tokens() > 0 ? 1 : 0;
  if (c != nullptr && c->pot()) {
    if (positions <= config_.context) return absl::OkStatus();
    return InvalidArgument("a pot of {} tokens, but {} was trained for a window of {}; give a pot of 1 to {}",
                           positions, config_.name, config_.context, config_.context);
  }
  if (positions + answer > config_.context) {
    return InvalidArgument(
        "the prompt has {} tokens of which {} would be at once on the device, but {} was trained for a "
        "window of {}; "
        "{}",
        job.prompt_tokens, positions, config_.name, config_.context,
        c == nullptr || c->mode == PrefillMode::kExact
            ? "use anchored or pot prefill, or shorten the text"
            : "give a policy with a smaller budget, or shorten the question");
  }
  if (c == nullptr || !c->anchored()) return absl::OkStatus();
  for (const Compression::Span& span : c->spans) {
    const int64_t together = c->fixed + span.end - span.first + c->probe_size();
    if (together <= config_.context) continue;
    return InvalidArgument(
        "a span of {} tokens does not fit the window of {} tokens of {} beside {} others; "
        "lower prefill.span_tokens",
        span.end - span.first, config_.context, config_.name, together - (span.end - span.first));
  }
  return absl::OkStatus();
}

// Most tiles that it will hold at once.
int64_t Engine::WorstTiles(const Job& job) const {
  const Compression* c = job.compression.get();
  const int64_t answer = BlocksOf(AnswerHeld(job)) + 1;
  const int64_t question = c == nullptr ? 0 : job.prompt_tokens - c->context_end;
  int64_t groups = 0;
  if (c == nullptr) {
    groups = static_cast<int64_t>(job.blocks.size()) + answer;
  } else if (c->pot()) {
    // The ends of prefix, context and what precedes the probe leave slots empty.
    groups = BlocksOf(c->spec.pot.value) + 3;
  } else {
    const int64_t kept = KeptBlocks(c->budget, c->spec.shares(), c->residual());
    const int64_t after =
        kept + BlocksOf(c->recall_tokens) + 2 + BlocksBehind(question, AnswerHeld(job), c->residual());
    const int64_t blocks = static_cast<int64_t>(job.blocks.size());
    if (c->mode == PrefillMode::kExact) {
      groups = std::max(blocks + 1 + std::max(kept + 2, BlocksOf(c->probe_max())), after);
    } else if (c->policy == nullptr) {
      groups = blocks + BlocksOf(question) + answer;
    } else {
      int64_t longest = 0, anchor = 0;
      for (const Job::Block& block : job.blocks) anchor += block.first < c->fixed ? 1 : 0;
      for (const Compression::Span& span : c->spans) longest = std::max(longest, span.end - span.first);
      groups = anchor + std::max(BlocksOf(longest) + BlocksOf(c->probe_max()) + 1, after);
    }
  }
  return groups * store_->shape().tiles();
}

}  // namespace palimpsest
