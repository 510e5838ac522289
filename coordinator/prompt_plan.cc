#include "coordinator/prompt_plan.h"

#include <algorithm>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

// Between the last document and the question: what the model saw between paragraphs in training.
constexpr std::string_view kBeforeQuestion = "\n\n";
constexpr int64_t kAnswerTokensMin = 1;
constexpr std::string_view kNotYet =
    "the anchored and pot prefill, which read longer texts, are not there yet";

int64_t Size(const std::vector<int32_t>& tokens) { return static_cast<int64_t>(tokens.size()); }

std::string Name(std::string_view document) { return Quoted(document, 1024); }

PromptSegment DocumentSegment(PromptDocument document) {
  return {PromptSegment::Kind::kDocument, std::move(document.tokens), document.known};
}

int64_t CountTokens(const std::vector<PromptSegment>& segments) {
  int64_t tokens = 0;
  for (const PromptSegment& segment : segments) tokens += Size(segment.tokens);
  return tokens;
}

std::string Reason(PrefillChoice prefill, size_t documents, int64_t tokens, int64_t window) {
  if (prefill == PrefillChoice::kExact) return "asked for";
  const std::string fits = fmt::format("{} tokens fit the model's window of {}", tokens, window);
  if (documents < 2) return fits;
  return fmt::format("{}, so {} documents are read as one text", fits, documents);
}

}  // namespace

absl::StatusOr<PrefillChoice> ParsePrefill(std::string_view name) {
  if (name == "auto") return PrefillChoice::kAuto;
  if (name == "exact") return PrefillChoice::kExact;
  if (name == "anchored" || name == "pot") {
    return Unimplemented("prefill {} is not there yet; auto and exact work today", name);
  }
  const std::vector<std::string> names = {"auto", "exact", "anchored", "pot"};
  return InvalidArgument("prefill {} is not auto, exact, anchored or pot{}", Quoted(name),
                         DidYouMean(name, names));
}

absl::StatusOr<PromptPlanner> PromptPlanner::Create(std::shared_ptr<const Tokenizer> tokenizer,
                                                    const PromptFrame& frame, Limits limits) {
  PromptPlanner planner(std::move(tokenizer), std::move(limits));
  const Tokenizer& words = *planner.tokenizer_;
  PALIMPSEST_ASSIGN_OR_RETURN(planner.prefix_, words.Encode(frame.prefix, Tokenizer::Special::kParse));
  PALIMPSEST_ASSIGN_OR_RETURN(planner.tail_, words.Encode(frame.tail, Tokenizer::Special::kParse));
  // Some templates write the first token themselves, others leave it to the tokenizer.
  const bool has_bos = !planner.prefix_.empty() && planner.prefix_.front() == words.bos();
  if (words.add_bos() && words.bos() >= 0 && !has_bos) {
    planner.prefix_.insert(planner.prefix_.begin(), words.bos());
  }
  return planner;
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::TokenizeDocument(std::string_view path,
                                                                     std::string_view text) const {
  if (text.empty()) return InvalidArgument("document {} is empty; give a file with text", Name(path));
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer_->Encode(text, Tokenizer::Special::kAsText);
  if (tokens.ok()) return tokens;
  return Error(tokens.status().code(), "document {}: {}", Name(path), Message(tokens.status()));
}

absl::Status PromptPlanner::CheckDocument(const PromptDocument& document) const {
  const int64_t frame = Size(prefix_) + Size(tail_) + kAnswerTokensMin;
  if (Size(document.tokens) + frame <= limits_.window_tokens) return absl::OkStatus();
  return InvalidArgument(
      "document {} has {} tokens; {} was trained for {}, of which the chat template and an answer need {}; "
      "split the document, or use a model with a longer window ({})",
      Name(document.name), document.tokens.size(), limits_.model, limits_.window_tokens, frame, kNotYet);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanDocument(PromptDocument document) const {
  PALIMPSEST_RETURN_IF_ERROR(CheckDocument(document));
  PromptPlan plan{.segments = {}, .prefill = "exact", .prefill_reason = "", .tokens = 0};
  plan.segments.push_back({PromptSegment::Kind::kPrefix, prefix_});
  plan.segments.push_back(DocumentSegment(std::move(document)));
  plan.tokens = CountTokens(plan.segments);
  plan.prefill_reason = Reason(PrefillChoice::kAuto, 1, plan.tokens, limits_.window_tokens);
  return plan;
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::QuestionTokens(std::string_view question,
                                                                   bool after_document) const {
  if (question.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return InvalidArgument("the question is empty");
  }
  if (static_cast<int64_t>(question.size()) > limits_.question_bytes) {
    return InvalidArgument("the question has {} bytes, limits.question_bytes allows {}", question.size(),
                           limits_.question_bytes);
  }
  std::string text(after_document ? kBeforeQuestion : "");
  text += question;
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer_->Encode(text, Tokenizer::Special::kAsText);
  if (!tokens.ok()) {
    return Error(tokens.status().code(), "the question: {}", Message(CheckUtf8(question)));
  }
  tokens->insert(tokens->end(), tail_.begin(), tail_.end());
  return tokens;
}

absl::Status PromptPlanner::CheckQuestion(int64_t tokens) const {
  if (Size(prefix_) + tokens + kAnswerTokensMin <= limits_.window_tokens) return absl::OkStatus();
  return InvalidArgument(
      "the question has {} tokens with the chat template; {} was trained for {}: shorten it, or ingest the "
      "long part as a document",
      Size(prefix_) + tokens, limits_.model, limits_.window_tokens);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanQuestion(std::vector<PromptDocument> documents,
                                                       std::string_view question,
                                                       PrefillChoice prefill) const {
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<int32_t> question_tokens,
                              QuestionTokens(question, !documents.empty()));
  PALIMPSEST_RETURN_IF_ERROR(CheckQuestion(Size(question_tokens)));
  for (const PromptDocument& document : documents) PALIMPSEST_RETURN_IF_ERROR(CheckDocument(document));
  const int64_t question_size = Size(question_tokens);
  const size_t count = documents.size();

  PromptPlan plan{.segments = {}, .prefill = "exact", .prefill_reason = "", .tokens = 0};
  plan.segments.push_back({PromptSegment::Kind::kPrefix, prefix_});
  for (PromptDocument& document : documents) plan.segments.push_back(DocumentSegment(std::move(document)));
  plan.segments.push_back({PromptSegment::Kind::kQuestion, std::move(question_tokens)});
  plan.tokens = CountTokens(plan.segments);
  if (plan.tokens + kAnswerTokensMin > limits_.window_tokens) {
    return InvalidArgument(
        "the prompt has {} tokens ({} of {} and {} of the question), {} was trained for {} with the answer; "
        "{} "
        "({})",
        plan.tokens, plan.tokens - question_size - Size(prefix_), count == 1 ? "the document" : "documents",
        question_size + Size(prefix_), limits_.model, limits_.window_tokens,
        count > 1 ? "ask about fewer at once" : "shorten the question or split the document", kNotYet);
  }
  plan.prefill_reason = Reason(prefill, count, plan.tokens, limits_.window_tokens);
  return plan;
}

}  // namespace palimpsest
