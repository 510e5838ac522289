#include "coordinator/prompt_plan.h"

#include <algorithm>
#include <utility>

#include "coordinator/spans.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Between the last document and the question, and between a system text and the question that it joins: what
// the model saw between paragraphs in training.
constexpr std::string_view kParagraph = "\n\n";
constexpr int64_t kAnswerTokensMin = 1;
// What a pot's tokens are asked before some of them go (algorithms.md 2.2), unless a request says otherwise.
constexpr std::string_view kCatalyst =
    "\n\nSummarize the previous context highlighting the most important parts.";
// What asks for each part of a text to be repeated (algorithms.md, KVzip).
constexpr std::string_view kRepeat = "\n\nRepeat the previous context exactly.";

int64_t Size(const std::vector<int32_t>& tokens) { return static_cast<int64_t>(tokens.size()); }

std::string Name(std::string_view document) { return Quoted(document, 1024); }

PromptSegment DocumentSegment(PromptDocument document) {
  return {PromptSegment::Kind::kDocument, std::move(document.tokens), document.known};
}

template <typename... Args>
absl::Status OverWindow(fmt::format_string<Args...> format, Args&&... args) {
  return MarkOverWindow(InvalidArgument(format, std::forward<Args>(args)...));
}

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

// System texts at the head join the first user's text: the prefix before the documents is always the same.
absl::Status JoinSystemTexts(std::vector<ChatMessage>* messages) {
  std::string joined;
  size_t first = 0;
  for (; first < messages->size() && (*messages)[first].role == "system"; ++first) {
    joined += (*messages)[first].content;
    joined += kParagraph;
  }
  if (first == messages->size() || (*messages)[first].role != "user" || (*messages)[first].content.empty()) {
    return InvalidArgument(
        "messages[{}]: about documents, the first message after system messages must be the user's and have "
        "a "
        "text",
        std::min(first, messages->size() - 1));
  }
  (*messages)[first].content.insert(0, joined);
  messages->erase(messages->begin(), messages->begin() + static_cast<std::ptrdiff_t>(first));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PromptPlanner> PromptPlanner::Create(std::shared_ptr<const Tokenizer> tokenizer,
                                                    std::shared_ptr<const ChatTemplate> chat_template,
                                                    ChatTemplate::Options options, Limits limits) {
  PromptPlanner planner(std::move(tokenizer), std::move(chat_template), std::move(options),
                        std::move(limits));
  PALIMPSEST_ASSIGN_OR_RETURN(PromptFrame frame, MakePromptFrame(*planner.chat_template_, planner.options_));
  const Tokenizer& words = *planner.tokenizer_;
  PALIMPSEST_ASSIGN_OR_RETURN(planner.prefix_, words.Encode(frame.prefix, Tokenizer::Special::kParse));
  PALIMPSEST_ASSIGN_OR_RETURN(planner.tail_, words.Encode(frame.tail, Tokenizer::Special::kParse));
  planner.AddBos(&planner.prefix_);
  planner.prefix_text_ = std::move(frame.prefix);
  return planner;
}

// Some templates write the first token themselves, others leave it to the tokenizer.
void PromptPlanner::AddBos(std::vector<int32_t>* tokens) const {
  const bool has_bos = !tokens->empty() && tokens->front() == tokenizer_->bos();
  if (tokenizer_->add_bos() && tokenizer_->bos() >= 0 && !has_bos) {
    tokens->insert(tokens->begin(), tokenizer_->bos());
  }
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::TokenizeDocument(std::string_view path,
                                                                     std::string_view text) const {
  if (text.empty()) return InvalidArgument("document {} is empty; give a file with text", Name(path));
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer_->Encode(text, Tokenizer::Special::kAsText);
  if (tokens.ok()) return tokens;
  return Error(tokens.status().code(), "document {}: {}", Name(path), Message(tokens.status()));
}

absl::Status PromptPlanner::CheckMessages(const std::vector<ChatMessage>& messages) const {
  if (messages.empty()) return InvalidArgument("there are no messages; give at least one");
  const bool one = messages.size() == 1;
  int64_t bytes = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      return InvalidArgument("messages[{}]: role {} is not system, user or assistant", i,
                             Quoted(message.role));
    }
    if (const absl::Status utf8 = CheckUtf8(message.content); !utf8.ok()) {
      const std::string subject = one ? "the question" : fmt::format("messages[{}]", i);
      return Error(utf8.code(), "{}: {}", subject, Message(utf8));
    }
    bytes += static_cast<int64_t>(message.content.size());
  }
  if (messages.back().role == "user" && IsBlank(messages.back().content)) {
    return InvalidArgument("the question is empty");
  }
  if (bytes > limits_.question_bytes) {
    return InvalidArgument("the {} bytes, limits.question_bytes allows {}",
                           one ? fmt::format("question has {}", bytes)
                               : fmt::format("{} messages have {}", messages.size(), bytes),
                           limits_.question_bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::Encode(const std::vector<ChatPiece>& pieces) const {
  std::vector<int32_t> all;
  for (const ChatPiece& piece : pieces) {
    const auto special = piece.message.has_value() ? Tokenizer::Special::kAsText : Tokenizer::Special::kParse;
    PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, tokenizer_->Encode(piece.text, special));
    all.insert(all.end(), tokens.begin(), tokens.end());
  }
  return all;
}

absl::Status PromptPlanner::CheckConversation(int64_t tokens, int64_t messages) const {
  if (tokens + kAnswerTokensMin <= limits_.window_tokens) return absl::OkStatus();
  return OverWindow(
      "the {} has {} tokens with the chat template; {} was trained for {}: shorten it, or ingest the long "
      "part "
      "as a document",
      messages == 1 ? "question" : "conversation", tokens, limits_.model, limits_.window_tokens);
}

// Documents become their spans, in place.
void PromptPlanner::CutDocuments(PromptPlan* plan) const {
  const int64_t most = SpanTokens(Model(), plan->sizes.prefix);
  std::vector<PromptSegment> whole = std::exchange(plan->segments, {});
  for (PromptSegment& segment : whole) {
    if (segment.kind != PromptSegment::Kind::kDocument) {
      plan->segments.push_back(std::move(segment));
      continue;
    }
    const std::vector<int32_t>& tokens = segment.tokens;
    size_t begin = 0;
    for (const size_t end : CutSpans(tokens, most, *tokenizer_)) {
      plan->segments.push_back({.kind = segment.kind,
                                .tokens = {tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                           tokens.begin() + static_cast<std::ptrdiff_t>(end)},
                                .known = segment.known});
      plan->longest_span = std::max(plan->longest_span, static_cast<int64_t>(end - begin));
      begin = end;
    }
    segment.tokens = {};  // two copies of one document at most
  }
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::CatalystOf(const PromptPlan& plan,
                                                               const PromptOptions& options) const {
  const PolicySpec& policy = plan.mode.policy;
  if (!policy.runs_catalyst()) return std::vector<int32_t>();
  switch (policy.catalyst) {
    case PolicySpec::Catalyst::kIds:
      PALIMPSEST_RETURN_IF_ERROR(CheckIds(policy.catalyst_ids, "catalyst"));
      return policy.catalyst_ids;
    case PolicySpec::Catalyst::kQuestion:
      if (plan.sizes.question == 0) {
        return InvalidArgument(
            "catalyst=question: this prompt has 0 documents, so there is no question behind them; leave the "
            "catalyst out");
      }
      if (!plan.question_visible) {
        return InvalidArgument("catalyst=question needs the question; add --question visible");
      }
      return plan.segments.back().tokens;
    case PolicySpec::Catalyst::kFile:
    case PolicySpec::Catalyst::kDefault:
      break;
  }
  return TextCatalyst(policy, options.catalyst);
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::TextCatalyst(const PolicySpec& policy,
                                                                 std::string_view text) const {
  const bool own = policy.catalyst == PolicySpec::Catalyst::kFile;
  if (own && IsBlank(text)) return InvalidArgument("the catalyst's text is empty");
  const std::string_view given = policy.repeats() ? kRepeat : kCatalyst;
  absl::StatusOr<std::vector<int32_t>> tokens =
      tokenizer_->Encode(own ? text : given, Tokenizer::Special::kAsText);
  if (!tokens.ok()) return Error(tokens.status().code(), "the catalyst: {}", Message(tokens.status()));
  tokens->insert(tokens->end(), tail_.begin(), tail_.end());
  return tokens;
}

absl::StatusOr<PromptPlan> PromptPlanner::Assemble(std::vector<PromptSegment> segments,
                                                   const PromptSizes& sizes,
                                                   const PromptOptions& options) const {
  PromptPlan plan;
  plan.segments = std::move(segments);
  plan.sizes = sizes;
  plan.tokens = sizes.total();
  plan.question_visible = options.question_visible;
  PALIMPSEST_ASSIGN_OR_RETURN(plan.mode, DecidePromptMode(options, sizes, Model()));
  PolicySpec& policy = plan.mode.policy;
  if (options.question_visible && sizes.question > 0 && policy.kind == PolicySpec::Kind::kInfiniPot &&
      policy.score == "cap" && policy.catalyst == PolicySpec::Catalyst::kDefault) {
    policy.catalyst = PolicySpec::Catalyst::kQuestion;  // what the pot is asked, where it is known
  }
  PALIMPSEST_ASSIGN_OR_RETURN(plan.catalyst, CatalystOf(plan, options));
  if (plan.mode.prefill == proto::ANCHORED) CutDocuments(&plan);
  const PromptParts parts{.longest_span = plan.longest_span,
                          .catalyst = Size(plan.catalyst),
                          .question_visible = plan.question_visible};
  PALIMPSEST_RETURN_IF_ERROR(CheckPromptMode(plan.mode, sizes, parts, Model()));
  plan.prefill = PrefillName(plan.mode.prefill);
  plan.prefill_reason = plan.mode.reason;
  return plan;
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanDocument(PromptDocument document, PrefillChoice prefill) const {
  // The shortest question is the template's tail: what fits with it is read as a question will find it.
  PromptSizes sizes{
      .documents = 1, .prefix = Size(prefix_), .context = Size(document.tokens), .question = Size(tail_)};
  std::vector<PromptSegment> segments = {{PromptSegment::Kind::kPrefix, prefix_}};
  segments.push_back(DocumentSegment(std::move(document)));
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlan plan,
                              Assemble(std::move(segments), sizes, {.prefill = prefill, .recall = {}}));
  plan.sizes.question = 0;
  plan.tokens = plan.sizes.total();
  return plan;
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanQuestion(std::vector<PromptDocument> documents,
                                                       std::string_view question,
                                                       const PromptOptions& options) const {
  return PlanChat(std::move(documents), {{"user", std::string(question)}}, options);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanChat(std::vector<PromptDocument> documents,
                                                   std::vector<ChatMessage> messages,
                                                   const PromptOptions& options) const {
  PALIMPSEST_RETURN_IF_ERROR(CheckMessages(messages));
  const int64_t count = static_cast<int64_t>(messages.size());
  if (!documents.empty()) PALIMPSEST_RETURN_IF_ERROR(JoinSystemTexts(&messages));
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<ChatPiece> pieces,
                              RenderChatPieces(*chat_template_, messages, options_));
  std::vector<PromptSegment> segments;
  const bool framed = pieces.size() > 1 && !pieces[0].message.has_value() && pieces[0].text == prefix_text_ &&
                      pieces[1].message == size_t{0} && messages[0].role == "user";
  if (framed) {
    pieces.erase(pieces.begin());
    segments.push_back({PromptSegment::Kind::kPrefix, prefix_});
  }
  if (!documents.empty()) {
    if (!framed) {
      return InvalidArgument(
          "the model's chat template begins this conversation in another way than a question alone, so "
          "documents cannot be put before it; ask in one message");
    }
    pieces.front().text.insert(0, kParagraph);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<int32_t> conversation, Encode(pieces));
  const auto begun = tokenizer_->Encode(options.answer_prefix, Tokenizer::Special::kAsText);
  if (!begun.ok())
    return Error(begun.status().code(), "the answer's first words: {}", Message(begun.status()));
  conversation.insert(conversation.end(), begun->begin(), begun->end());
  if (!framed) AddBos(&conversation);
  PromptSizes sizes{.documents = static_cast<int64_t>(documents.size()),
                    .prefix = framed ? Size(prefix_) : 0};
  if (documents.empty()) {
    sizes.context = Size(conversation);
  } else {
    sizes.question = Size(conversation);
    PALIMPSEST_RETURN_IF_ERROR(CheckConversation(sizes.prefix + sizes.question, count));
  }
  for (PromptDocument& document : documents) {
    sizes.context += Size(document.tokens);
    segments.push_back(DocumentSegment(std::move(document)));
  }
  segments.push_back({PromptSegment::Kind::kConversation, std::move(conversation)});
  return Assemble(std::move(segments), sizes, options);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanText(std::string_view text,
                                                   const PromptOptions& options) const {
  if (text.empty()) return InvalidArgument("the prompt is empty");
  if (static_cast<int64_t>(text.size()) > limits_.question_bytes) {
    return InvalidArgument("the prompt has {} bytes, limits.question_bytes allows {}", text.size(),
                           limits_.question_bytes);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                              tokenizer_->Encode(text, Tokenizer::Special::kAsText));
  AddBos(&tokens);
  return PlanTokens(std::move(tokens), options);
}

absl::Status PromptPlanner::CheckIds(std::span<const int32_t> ids, std::string_view what) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < tokenizer_->vocabulary_size()) continue;
    return InvalidArgument("token {} of the {} has the id {}; {} has ids from 0 to {}", i, what, ids[i],
                           limits_.model, tokenizer_->vocabulary_size() - 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanTokens(std::vector<int32_t> tokens,
                                                     const PromptOptions& options) const {
  if (tokens.empty()) return InvalidArgument("the prompt is empty");
  PALIMPSEST_RETURN_IF_ERROR(CheckIds(tokens, "prompt"));
  const PromptSizes sizes{.context = Size(tokens)};
  return Assemble({{PromptSegment::Kind::kConversation, std::move(tokens)}}, sizes, options);
}

}  // namespace palimpsest
