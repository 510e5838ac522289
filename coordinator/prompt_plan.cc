#include "coordinator/prompt_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

// Between the last document and the question, and between a system text and the question that it joins: what
// the model saw between paragraphs in training.
constexpr std::string_view kParagraph = "\n\n";
constexpr char kOverWindow[] = "palimpsest/over-window";  // marks a status
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

absl::Status MarkOverWindow(absl::Status status) {
  status.SetPayload(kOverWindow, absl::Cord());
  return status;
}
bool IsOverWindow(const absl::Status& status) { return status.GetPayload(kOverWindow).has_value(); }

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
  for (int64_t id = 0; id < words.vocabulary_size(); ++id) {
    const auto bytes = static_cast<int64_t>(words.TokenText(static_cast<int32_t>(id)).size());
    planner.longest_token_bytes_ = std::max(planner.longest_token_bytes_, bytes);
  }
  return planner;
}

// Some templates write the first token themselves, others leave it to the tokenizer.
void PromptPlanner::AddBos(std::vector<int32_t>* tokens) const {
  const bool has_bos = !tokens->empty() && tokens->front() == tokenizer_->bos();
  if (tokenizer_->add_bos() && tokenizer_->bos() >= 0 && !has_bos) {
    tokens->insert(tokens->begin(), tokenizer_->bos());
  }
}

absl::Status PromptPlanner::CheckDocumentBytes(std::string_view path, int64_t bytes) const {
  constexpr int64_t kSmall = 1 << 20;  // is cut into tokens all the same, to tell how many there are
  const int64_t tokens = (bytes + longest_token_bytes_ - 1) / longest_token_bytes_;
  if (bytes <= kSmall || tokens <= limits_.window_tokens) return absl::OkStatus();
  return OverWindow(
      "document {} has {} bytes, which are {} tokens or more; {} was trained for {}; "
      "split the document, or use a model with a longer window ({})",
      Name(path), bytes, tokens, limits_.model, limits_.window_tokens, kNotYet);
}

absl::StatusOr<std::vector<int32_t>> PromptPlanner::TokenizeDocument(std::string_view path,
                                                                     std::string_view text) const {
  if (text.empty()) return InvalidArgument("document {} is empty; give a file with text", Name(path));
  PALIMPSEST_RETURN_IF_ERROR(CheckDocumentBytes(path, static_cast<int64_t>(text.size())));
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer_->Encode(text, Tokenizer::Special::kAsText);
  if (tokens.ok()) return tokens;
  return Error(tokens.status().code(), "document {}: {}", Name(path), Message(tokens.status()));
}

absl::Status PromptPlanner::CheckDocument(const PromptDocument& document) const {
  const int64_t frame = Size(prefix_) + Size(tail_) + kAnswerTokensMin;
  if (Size(document.tokens) + frame <= limits_.window_tokens) return absl::OkStatus();
  return OverWindow(
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
      "part as "
      "a document",
      messages == 1 ? "question" : "conversation", tokens, limits_.model, limits_.window_tokens);
}

// `segments` end with the conversation.
absl::StatusOr<PromptPlan> PromptPlanner::Assemble(std::vector<PromptSegment> segments, int64_t messages,
                                                   PrefillChoice prefill) const {
  PromptPlan plan{.segments = std::move(segments), .prefill = "exact", .prefill_reason = "", .tokens = 0};
  plan.tokens = CountTokens(plan.segments);
  int64_t documents = 0, document_tokens = 0;
  for (const PromptSegment& segment : plan.segments) {
    if (segment.kind != PromptSegment::Kind::kDocument) continue;
    ++documents;
    document_tokens += Size(segment.tokens);
  }
  if (plan.tokens + kAnswerTokensMin > limits_.window_tokens) {
    return OverWindow(
        "the prompt has {} tokens ({} of {} and {} of the {}), {} was trained for {} with the answer; {} "
        "({})",
        plan.tokens, document_tokens, documents == 1 ? "the document" : "documents",
        plan.tokens - document_tokens, messages == 1 ? "question" : "conversation", limits_.model,
        limits_.window_tokens,
        documents > 1 ? "ask about fewer at once" : "shorten the question or split the document", kNotYet);
  }
  plan.prefill_reason = Reason(prefill, static_cast<size_t>(documents), plan.tokens, limits_.window_tokens);
  return plan;
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanQuestion(std::vector<PromptDocument> documents,
                                                       std::string_view question,
                                                       PrefillChoice prefill) const {
  return PlanChat(std::move(documents), {{"user", std::string(question)}}, prefill);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanChat(std::vector<PromptDocument> documents,
                                                   std::vector<ChatMessage> messages,
                                                   PrefillChoice prefill) const {
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
  if (!framed) AddBos(&conversation);
  PALIMPSEST_RETURN_IF_ERROR(CheckConversation(CountTokens(segments) + Size(conversation), count));
  for (PromptDocument& document : documents) {
    PALIMPSEST_RETURN_IF_ERROR(CheckDocument(document));
    segments.push_back(DocumentSegment(std::move(document)));
  }
  segments.push_back({PromptSegment::Kind::kConversation, std::move(conversation)});
  return Assemble(std::move(segments), count, prefill);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanText(std::string_view text, PrefillChoice prefill) const {
  if (text.empty()) return InvalidArgument("the prompt is empty");
  if (static_cast<int64_t>(text.size()) > limits_.question_bytes) {
    return InvalidArgument("the prompt has {} bytes, limits.question_bytes allows {}", text.size(),
                           limits_.question_bytes);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                              tokenizer_->Encode(text, Tokenizer::Special::kAsText));
  AddBos(&tokens);
  return PlanTokens(std::move(tokens), prefill);
}

absl::StatusOr<PromptPlan> PromptPlanner::PlanTokens(std::vector<int32_t> tokens,
                                                     PrefillChoice prefill) const {
  if (tokens.empty()) return InvalidArgument("the prompt is empty");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < tokenizer_->vocabulary_size()) continue;
    return InvalidArgument("token {} of the prompt has the id {}; {} has ids from 0 to {}", i, tokens[i],
                           limits_.model, tokenizer_->vocabulary_size() - 1);
  }
  if (Size(tokens) + kAnswerTokensMin > limits_.window_tokens) {
    return OverWindow("the prompt has {} tokens, {} was trained for {} with the answer; shorten it",
                      tokens.size(), limits_.model, limits_.window_tokens);
  }
  return Assemble({{PromptSegment::Kind::kConversation, std::move(tokens)}}, 1, prefill);
}

}  // namespace palimpsest
