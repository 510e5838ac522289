#include "apps/niah/prompt.h"

#include <algorithm>
#include <utility>

#include "coordinator/answer_request.h"
#include "coordinator/prompt_request.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kDocumentName = "sample";

PromptDocument DocumentOf(std::vector<int32_t> tokens) {
  return {.name = std::string(kDocumentName), .tokens = std::move(tokens)};
}

}  // namespace

std::vector<ChatMessage> NiahMessages(const NiahSample& sample, std::span<const std::string> answers) {
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < answers.size(); ++i) {
    messages.push_back({"user", sample.turns[i].question});
    messages.push_back({"assistant", sample.turns[i].answer_prefix + answers[i]});
  }
  messages.push_back({"user", sample.turns[answers.size()].question});
  return messages;
}

NiahPrompter::NiahPrompter(PromptPlanner planner, std::shared_ptr<const Tokenizer> tokenizer,
                           PrefillChoice prefill, const proto::Sampling& sampling)
    : planner_(std::move(planner)),
      tokenizer_(std::move(tokenizer)),
      prefill_(prefill),
      sampling_(sampling) {}

absl::StatusOr<std::vector<int32_t>> NiahPrompter::Encode(const std::string& text) const {
  return tokenizer_->Encode(text, Tokenizer::Special::kAsText);
}

absl::StatusOr<int64_t> NiahPrompter::CountTokens(const NiahSample& sample) {
  std::string questions = fmt::format("{}\n{}\n", sample.answer_tokens, sample.turns.back().answer_prefix);
  for (const NiahTurn& turn : sample.turns) questions += turn.question + "\n";
  if (questions != counted_questions_) {
    // Segments are cut into tokens each on its own, so a context of one token costs the rest what any costs.
    const std::vector<std::string> answers(sample.turns.size() - 1);
    PALIMPSEST_ASSIGN_OR_RETURN(const PromptPlan plan,
                                planner_.PlanChat({DocumentOf({0})}, NiahMessages(sample, answers),
                                                  {.answer_prefix = sample.turns.back().answer_prefix}));
    counted_tokens_ = plan.tokens - 1 + static_cast<int64_t>(sample.turns.size()) * sample.answer_tokens;
    counted_questions_ = std::move(questions);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t context, CountContextTokens(sample));
  return counted_tokens_ + context;
}

absl::StatusOr<int64_t> NiahPrompter::CountContextTokens(const NiahSample& sample) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<int32_t> context, Encode(sample.context));
  return static_cast<int64_t>(context.size());
}

bool NiahPrompter::FindsBlocks(const NiahPolicy& policy) const {
  if (policy.full()) return true;
  return policy.spec.kind != PolicySpec::Kind::kInfiniPot && prefill_ != PrefillChoice::kPot;
}

std::optional<int64_t> NiahPrompter::LongestFor(const NiahPolicy& policy) const {
  if (!policy.full() && prefill_ != PrefillChoice::kExact) return std::nullopt;
  return planner_.limits().window_tokens;
}

absl::StatusOr<std::vector<proto::GenerateRequest>> NiahPrompter::Read(const NiahSample& sample) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<int32_t> context, Encode(sample.context));
  std::vector<proto::GenerateRequest> requests;
  for (const PrefillChoice prefill : {PrefillChoice::kAuto, PrefillChoice::kAnchored}) {
    if (prefill != PrefillChoice::kAuto && prefill != prefill_) continue;
    PALIMPSEST_ASSIGN_OR_RETURN(PromptPlan plan, planner_.PlanDocument(DocumentOf(context), prefill));
    if (!requests.empty() && requests.front().prefill() == plan.mode.prefill) continue;
    requests.push_back(IngestRequest(std::move(plan), ""));
  }
  return requests;
}

absl::StatusOr<std::vector<int32_t>> NiahPrompter::NeedleTokens(const NiahSample& sample, size_t turn) const {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<int32_t> context, Encode(sample.context));
  std::vector<std::pair<size_t, size_t>> needles;  // bytes [first, end)
  for (const std::string& needle : sample.turns[turn].needles) {
    const size_t first = sample.context.find(needle);
    PALIMPSEST_CHECK(first != std::string::npos, "a sample without its needle");
    needles.emplace_back(first, first + needle.size());
  }
  std::vector<int32_t> tokens;
  size_t end = 0;  // byte
  for (size_t i = 0; i < context.size(); ++i) {
    const size_t first = end;
    end += tokenizer_->TokenText(context[i]).size();
    const bool holds = std::any_of(needles.begin(), needles.end(), [&](const auto& needle) {
      return end > needle.first && first < needle.second;
    });
    if (holds) tokens.push_back(static_cast<int32_t>(i));
  }
  return tokens;
}

PromptOptions NiahPrompter::OptionsOf(const NiahSample& sample, size_t turn, const NiahPolicy& policy,
                                      bool question_visible) const {
  return {.prefill = policy.full() ? PrefillChoice::kExact : prefill_,
          .policy = policy.spec,
          .recall = policy.recall,
          .question_visible = question_visible,
          .catalyst = policy.catalyst,
          .answer_prefix = sample.turns[turn].answer_prefix};
}

absl::StatusOr<proto::GenerateRequest> NiahPrompter::Ask(const NiahSample& sample,
                                                         std::span<const std::string> answers,
                                                         const NiahPolicy& policy,
                                                         bool question_visible) const {
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<int32_t> context, Encode(sample.context));
  PALIMPSEST_ASSIGN_OR_RETURN(
      PromptPlan plan, planner_.PlanChat({DocumentOf(std::move(context))}, NiahMessages(sample, answers),
                                         OptionsOf(sample, answers.size(), policy, question_visible)));
  AnswerRequest request;
  request.sampling = sampling_;
  request.sampling.set_max_tokens(sample.answer_tokens);
  return GenerateRequestOf(std::move(plan), request, sample.answer_tokens, "");
}

}  // namespace palimpsest
