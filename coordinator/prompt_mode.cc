#include "coordinator/prompt_mode.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

using Kind = PolicySpec::Kind;

constexpr char kOverWindow[] = "palimpsest/over-window";  // marks a status
constexpr int64_t kAnswerTokensMin = 1;

template <typename... Args>
absl::Status OverWindow(fmt::format_string<Args...> format, Args&&... args) {
  return MarkOverWindow(InvalidArgument(format, std::forward<Args>(args)...));
}

bool Fits(const PromptSizes& sizes, const PromptModel& model) {
  return sizes.total() + kAnswerTokensMin <= model.window_tokens;
}

// "9000 tokens (8000 of 2 documents and 1000 of the question)", for errors.
std::string Described(const PromptSizes& sizes) {
  if (sizes.documents == 0) return fmt::format("{} tokens", sizes.total());
  return fmt::format("{} tokens ({} of {} and {} of the rest)", sizes.total(), sizes.context,
                     sizes.documents == 1 ? "the document" : fmt::format("{} documents", sizes.documents),
                     sizes.prefix + sizes.question);
}

// infinipot with its defaults, in a pot that the model's positions hold.
PolicySpec DefaultPot(const PromptModel& model) {
  PolicySpec policy{.kind = Kind::kInfiniPot};
  policy.pot.value = std::min(policy.pot.value, model.window_tokens);
  return policy;
}

// snapkv with its defaults. Of a small window half is left to the question and the answer.
PolicySpec DefaultSnapKv(const PromptModel& model) {
  PolicySpec policy{.kind = Kind::kSnapKv};
  policy.budget.value = std::min(policy.budget.value, std::max<int64_t>(1, model.window_tokens / 2));
  return policy;
}

absl::StatusOr<PrefillChoice> DecidePrefill(const PromptOptions& options, const PromptSizes& sizes,
                                            const PromptModel& model) {
  const PrefillChoice asked = options.prefill;
  if (options.policy.kind == Kind::kInfiniPot) {
    if (asked == PrefillChoice::kAuto || asked == PrefillChoice::kPot) return PrefillChoice::kPot;
    return InvalidArgument(
        "policy infinipot reads a prompt through its pot, and prefill {} was asked for: take prefill pot or "
        "auto with it, or another policy",
        PrefillName(asked));
  }
  if (asked == PrefillChoice::kAnchored && sizes.documents == 0) {
    return InvalidArgument(
        "prefill anchored reads documents span by span, and there are 0 documents: name one, or take prefill "
        "auto");
  }
  if (asked == PrefillChoice::kExact && !Fits(sizes, model)) {
    return OverWindow(
        "prefill exact reads a prompt as one text: this one has {}, {} was trained for {} with the answer; "
        "take prefill auto, which reads longer ones too, or shorten it",
        Described(sizes), model.name, model.window_tokens);
  }
  if (asked != PrefillChoice::kAuto) return asked;
  if (sizes.documents > 1) return PrefillChoice::kAnchored;
  if (Fits(sizes, model)) return PrefillChoice::kExact;
  return sizes.documents == 1 ? PrefillChoice::kAnchored : PrefillChoice::kPot;
}

// Any policy's score can pick in the pot; how much stays is the pot's to say.
absl::StatusOr<PolicySpec> PolicyInPot(const PromptOptions& options, const PromptSizes& sizes,
                                       const PromptModel& model) {
  const PolicySpec& asked = options.policy;
  if (asked.kind == Kind::kInfiniPot) return asked;
  PolicySpec policy = DefaultPot(model);
  if (asked.kind == Kind::kAuto) return policy;
  if (asked.residual_tokens() > 0) {
    return InvalidArgument(
        "policy {} with kv=kivi2 in a pot, whose tokens move: take prefill exact or anchored, or kv=bf16",
        asked.name());
  }
  if (asked.kind == Kind::kFull) {
    if (options.prefill == PrefillChoice::kPot) return policy;
    return OverWindow(
        "policy full keeps all of a prompt: this one has {}, {} was trained for {} with the answer; take "
        "policy infinipot or auto, or shorten it",
        Described(sizes), model.name, model.window_tokens);
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckDistiller(asked.name()));
  if (PolicyText(asked) != PolicyText(PolicySpec::Of(asked.kind))) {
    return InvalidArgument(
        "policy {} would pick in a pot here, whose sizes its own parameters do not say: take policy "
        "infinipot:score={} with pot=TOKENS and keep=TOKENS",
        PolicyText(asked), asked.name());
  }
  if (asked.merge != PolicySpec::Merge::kNone) {
    return InvalidArgument(
        "policy {} merges what it drops, which a pot cannot: take policy infinipot:score={}, which merges "
        "nothing, or prefill exact with at most {} tokens",
        asked.name(), asked.name(), model.window_tokens);
  }
  policy.score = asked.name();
  return policy;
}

absl::StatusOr<PolicySpec> DecidePolicy(const PromptOptions& options, PrefillChoice prefill,
                                        const PromptSizes& sizes, const PromptModel& model) {
  if (prefill == PrefillChoice::kPot) return PolicyInPot(options, sizes, model);
  const bool fits = Fits(sizes, model);
  if (options.policy.kind == Kind::kAuto) {
    return fits ? PolicySpec{.kind = Kind::kFull} : DefaultSnapKv(model);
  }
  if (options.policy.kind != Kind::kFull || fits) return options.policy;
  return OverWindow(
      "policy full keeps all of a prompt: this one has {}, {} was trained for {} with the answer; take "
      "policy "
      "snapkv or auto, which keep fewer",
      Described(sizes), model.name, model.window_tokens);
}

std::string Reason(const PromptOptions& options, PrefillChoice prefill, const PromptSizes& sizes,
                   const PromptModel& model) {
  if (options.prefill != PrefillChoice::kAuto) return "asked for";
  if (options.policy.kind == Kind::kInfiniPot) return "policy infinipot reads through a pot";
  if (prefill == PrefillChoice::kExact) {
    return fmt::format("{} tokens fit the model's window of {}", sizes.total(), model.window_tokens);
  }
  if (sizes.documents > 1) return fmt::format("{} documents, each read by itself", sizes.documents);
  return fmt::format("{} tokens are more than the model's window of {}", sizes.total(), model.window_tokens);
}

proto::Prefill ModeOf(PrefillChoice prefill) {
  if (prefill == PrefillChoice::kAnchored) return proto::ANCHORED;
  return prefill == PrefillChoice::kPot ? proto::POT : proto::EXACT;
}

// Of the largest head.
int64_t KeptAtMost(const PromptMode& mode, const PromptSizes& sizes) {
  return std::max(mode.kept, mode.policy.MostOf(mode.candidates, sizes.prefix));
}

// Slices come back to a question about documents whose blocks stand where they were read.
absl::Status CheckRecall(const RecallSpec& recall, const PromptOptions& options, const PromptSizes& sizes,
                         const PromptMode& mode) {
  const std::string name = RecallText(recall);
  if (mode.prefill == proto::POT) {
    return InvalidArgument(
        "recall {} with a pot, whose positions go with what it drops: take prefill anchored, or recall none",
        name);
  }
  if (sizes.documents == 0) {
    return InvalidArgument(
        "recall {} brings back parts of documents, and there are 0: name one, or take recall none", name);
  }
  if (mode.policy.kind == Kind::kStreaming) {
    return InvalidArgument(
        "recall {} with policy streaming, whose window slides: take another policy, or recall none", name);
  }
  if (mode.policy.residual_tokens() > 0) {
    return InvalidArgument("recall {} with policy {} and kv=kivi2: take kv=bf16, or recall none", name,
                           mode.policy.name());
  }
  if (mode.policy.merge != PolicySpec::Merge::kNone) {
    return InvalidArgument(
        "recall {} with policy {}, whose tokens hold what was merged into them: it would be seen twice; take "
        "merge=none, or recall none",
        name, mode.policy.name());
  }
  if (mode.policy.evicts()) {
    return InvalidArgument(
        "recall {} with policy {} and decode=evict, which lets go what came back: take decode=keep, or "
        "recall none",
        name, mode.policy.name());
  }
  if (options.question_visible && mode.prefill == proto::EXACT) {
    return InvalidArgument(
        "recall {} is for a question that the policy did not see: take question hidden, or recall none",
        name);
  }
  return absl::OkStatus();
}

// Beyond the window more of what resembles the answer distracts from it (docs/results.md, "Beyond the
// window").
constexpr int64_t kAnchoredBudget = 512;

// Where it can be and something was dropped behind the question's back: the default budget, or as much as
// leaves half of the free window to the answer.
RecallSpec DefaultRecall(const PromptOptions& options, const PromptSizes& sizes, const PromptMode& mode,
                         const PromptModel& model) {
  RecallSpec recall{.kind = RecallSpec::Kind::kSlices};
  if (mode.prefill == proto::ANCHORED) recall.budget = std::min(recall.budget, kAnchoredBudget);
  const int64_t kept = KeptAtMost(mode, sizes);
  const int64_t room = (model.window_tokens - kept - sizes.question) / 2;
  recall.budget = std::min(recall.budget, room / recall.slice * recall.slice);
  const bool helps = sizes.question > 0 && !options.question_visible && mode.kept < mode.candidates &&
                     recall.budget >= recall.slice;
  return helps && CheckRecall(recall, options, sizes, mode).ok() ? recall : RecallSpec{};
}

absl::Status DecideRecall(const PromptOptions& options, const PromptSizes& sizes, const PromptModel& model,
                          PromptMode* mode) {
  if (!mode->policy.compresses()) return absl::OkStatus();
  if (options.recall.kind == RecallSpec::Kind::kAuto) {
    mode->recall = DefaultRecall(options, sizes, *mode, model);
  } else if (options.recall.on()) {
    PALIMPSEST_RETURN_IF_ERROR(CheckRecall(options.recall, options, sizes, *mode));
    mode->recall = options.recall;
  }
  mode->recalled = mode->recall.BudgetOf(std::max<int64_t>(0, mode->candidates - sizes.prefix));
  return absl::OkStatus();
}

absl::Status CheckPot(const PromptMode& mode, const PromptSizes& sizes, int64_t catalyst,
                      const PromptModel& model) {
  const PolicySpec& policy = mode.policy;
  const int64_t pot = mode.kept, keep = policy.KeepOf(mode.candidates);
  if (pot > model.window_tokens) {
    return OverWindow("policy {} has a pot of {} tokens, {} was trained for {}: at most that many",
                      policy.name(), pot, model.name, model.window_tokens);
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckPolicyFits(policy, mode.candidates, catalyst, sizes.prefix));
  // A question behind documents stays whole, and the answer needs a place.
  int64_t room = pot - keep;
  if (policy.repeats()) {
    room -= catalyst + PolicySpec::kRepeatLead;
    room -= PolicySpec::RepeatedInPot(room);
  }
  if (policy.distils_shares()) room /= 2;  // behind the largest head
  room -= kAnswerTokensMin;
  if (sizes.question <= room) return absl::OkStatus();
  return OverWindow(
      "the question has {} tokens, which stay; a pot of {} that keeps {} has room for {}: shorten it, or "
      "take "
      "a larger pot",
      sizes.question, pot, keep, std::max<int64_t>(0, room));
}

}  // namespace

std::string_view PrefillName(PrefillChoice choice) {
  constexpr std::array<std::string_view, 4> kNames = {"auto", "exact", "anchored", "pot"};
  return kNames[static_cast<size_t>(choice)];
}

std::string_view PrefillName(proto::Prefill mode) {
  if (mode == proto::ANCHORED) return PrefillName(PrefillChoice::kAnchored);
  return PrefillName(mode == proto::POT ? PrefillChoice::kPot : PrefillChoice::kExact);
}

absl::StatusOr<PrefillChoice> ParsePrefill(std::string_view name) {
  std::vector<std::string> names;
  for (const PrefillChoice choice :
       {PrefillChoice::kAuto, PrefillChoice::kExact, PrefillChoice::kAnchored, PrefillChoice::kPot}) {
    if (name == PrefillName(choice)) return choice;
    names.emplace_back(PrefillName(choice));
  }
  return InvalidArgument("prefill {} is not auto, exact, anchored or pot{}", Quoted(name),
                         DidYouMean(name, names));
}

absl::StatusOr<bool> ParseQuestionVisible(std::string_view name) {
  if (name == "hidden" || name == "visible") return name == "visible";
  const std::vector<std::string> names = {"hidden", "visible"};
  return InvalidArgument("question {} is not hidden or visible{}", Quoted(name), DidYouMean(name, names));
}

absl::Status MarkOverWindow(absl::Status status) {
  status.SetPayload(kOverWindow, absl::Cord());
  return status;
}
bool IsOverWindow(const absl::Status& status) { return status.GetPayload(kOverWindow).has_value(); }

int64_t SpanTokens(const PromptModel& model, int64_t prefix) {
  return std::max<int64_t>(1, std::min(model.span_tokens, (model.window_tokens - prefix) / 2));
}

absl::StatusOr<PromptMode> DecidePromptMode(const PromptOptions& options, const PromptSizes& sizes,
                                            const PromptModel& model) {
  PALIMPSEST_ASSIGN_OR_RETURN(const PrefillChoice prefill, DecidePrefill(options, sizes, model));
  PromptMode mode{.prefill = ModeOf(prefill), .policy = {}, .reason = Reason(options, prefill, sizes, model)};
  PALIMPSEST_ASSIGN_OR_RETURN(mode.policy, DecidePolicy(options, prefill, sizes, model));
  if (mode.policy.target > 0 && mode.prefill == proto::ANCHORED) {
    return InvalidArgument(
        "policy {}: target={} is measured in a text that is read as one, and this prompt is read span by "
        "span ({}): "
        "take prefill exact with at most {} tokens, or leave target out",
        mode.policy.name(), mode.policy.target, mode.reason, model.window_tokens);
  }
  if (mode.policy.merge != PolicySpec::Merge::kNone && mode.prefill == proto::ANCHORED) {
    return InvalidArgument(
        "policy {} merges what it drops, which needs all of it at once, and this prompt is read span by span "
        "({}): take prefill exact with at most {} tokens, or merge=none",
        mode.policy.name(), mode.reason, model.window_tokens);
  }
  if (mode.policy.residual_tokens() > 0 && mode.policy.kind == Kind::kFull &&
      mode.prefill == proto::ANCHORED) {
    return InvalidArgument(
        "policy full with kv=kivi2, and this prompt is read span by span and moved together ({}): take "
        "prefill "
        "exact with at most {} tokens, a policy that keeps fewer, such as snapkv, or kv=bf16",
        mode.reason, model.window_tokens);
  }
  if (mode.policy.evicts() && mode.prefill == proto::ANCHORED) {
    return InvalidArgument(
        "policy {}: decode=evict goes on from what all of one text said, and this prompt is read span by "
        "span ({}): take prefill exact with at most {} tokens, or decode=keep",
        mode.policy.name(), mode.reason, model.window_tokens);
  }
  // In one text with a question in view the policy chooses from all of it.
  const bool with_question = mode.prefill == proto::EXACT && options.question_visible;
  mode.candidates = sizes.prefix + sizes.context + (with_question ? sizes.question : 0);
  mode.kept = mode.policy.BudgetOf(mode.candidates, sizes.prefix);
  if (mode.prefill != proto::POT) mode.kept = std::max(mode.kept, sizes.prefix);
  PALIMPSEST_RETURN_IF_ERROR(DecideRecall(options, sizes, model, &mode));
  return mode;
}

absl::Status CheckPromptMode(const PromptMode& mode, const PromptSizes& sizes, const PromptParts& parts,
                             const PromptModel& model) {
  if (!mode.policy.compresses()) return absl::OkStatus();
  if (mode.prefill == proto::POT) return CheckPot(mode, sizes, parts.catalyst, model);
  const int64_t seen = mode.candidates - sizes.prefix - sizes.context;  // of the question
  PALIMPSEST_RETURN_IF_ERROR(
      CheckPolicyFits(mode.policy, mode.candidates, parts.catalyst, sizes.prefix, seen));
  if (mode.prefill == proto::EXACT) {  // all of it fits the window
    if (!parts.question_visible || mode.kept >= mode.candidates) return absl::OkStatus();
    return CheckQuestionStays(mode.policy, mode.candidates, mode.kept, sizes.prefix, sizes.question);
  }
  const int64_t room = model.window_tokens - kAnswerTokensMin;
  const int64_t beside_span = room - sizes.prefix - parts.longest_span;  // a visible question is read there
  if (parts.question_visible && sizes.question > beside_span) {
    return OverWindow(
        "the question has {} tokens and is to be seen beside a span of the document of {} and the prefix of "
        "{}; {} was trained for {} with the answer: shorten the question to {}, or set a smaller "
        "prefill.span_tokens",
        sizes.question, parts.longest_span, sizes.prefix, model.name, model.window_tokens,
        std::max<int64_t>(0, beside_span));
  }
  const int64_t kept = KeptAtMost(mode, sizes);
  if (mode.recalled > 0 && kept + mode.recalled + sizes.question > room && kept + sizes.question <= room) {
    return OverWindow(
        "recall of {} tokens beside {} that policy {} keeps and {} of the question, {} was trained for {} "
        "with "
        "the answer: recall at most {}",
        mode.recalled, kept, mode.policy.name(), sizes.question, model.name, model.window_tokens,
        room - kept - sizes.question);
  }
  if (kept + sizes.question <= room) return absl::OkStatus();
  return OverWindow(
      "policy {} keeps {} tokens{} beside {} of the question, {} was trained for {} with the answer: keep at "
      "most {}, or shorten the question",
      mode.policy.name(), kept, mode.policy.shares() ? " of its largest head" : "", sizes.question,
      model.name, model.window_tokens,
      std::max<int64_t>(0, room - sizes.question) / (mode.policy.shares() ? 2 : 1));
}

}  // namespace palimpsest
