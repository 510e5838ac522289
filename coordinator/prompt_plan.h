// From documents and a conversation to the segments of a prompt: prefix | documents | conversation
// (design.md 6). A question is a conversation of one message, so commands and HTTP make the same prompts.
//
// Each segment, and in a conversation each message's text, is tokenized on its own, so that it has the same
// ids whatever stands around it. Only the template's own text may hold special tokens: those in a user's text
// are text. In anchored prefill each span of a document is a segment.
//
// Length : documents of any; how longer prompts than the model's window are read is prompt_mode.h's to say.
// Errors : InvalidArgument: what does not fit the window however it is read (both numbers; IsOverWindow), an
//          empty question, a role that is not known, a conversation that the template refuses, text that is
//          not UTF-8, a catalyst without its text or its question; those of prompt_mode.h.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/prompt_mode.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace palimpsest {

// A document as the catalog has it.
struct PromptDocument {
  std::string name;  // its path or id, for errors
  std::vector<int32_t> tokens;
  bool known = false;  // ingested before this request
};

struct PromptSegment {
  // Prefixes and documents are shared whole; of a conversation, the full blocks are, for its next turn.
  enum class Kind { kPrefix, kDocument, kConversation } kind;
  std::vector<int32_t> tokens;
  bool known = false;                                          // of documents: see PromptDocument
  bool shared() const { return kind != Kind::kConversation; }  // whole
};

struct PromptPlan {
  std::vector<PromptSegment> segments;
  PromptMode mode;
  PromptSizes sizes;
  int64_t longest_span = 0;       // of anchored prefill
  std::vector<int32_t> catalyst;  // of policies that run one
  bool question_visible = false;
  std::string prefill;         // exact | anchored | pot
  std::string prefill_reason;  // for people
  int64_t tokens = 0;          // of all segments
};

class PromptPlanner {
 public:
  struct Limits {
    std::string model;           // its name, for errors
    int64_t window_tokens = 0;   // that the model was trained for
    int64_t question_bytes = 0;  // text of one question with its history
    int64_t span_tokens = 2048;  // of anchored prefill, at most
  };
  // `options` hold for all conversations: a template that tells the date tells that of the start.
  static absl::StatusOr<PromptPlanner> Create(std::shared_ptr<const Tokenizer> tokenizer,
                                              std::shared_ptr<const ChatTemplate> chat_template,
                                              ChatTemplate::Options options, Limits limits);

  const Limits& limits() const { return limits_; }

  // `path` is for errors.
  absl::StatusOr<std::vector<int32_t>> TokenizeDocument(std::string_view path, std::string_view text) const;

  // Prefix and document: what ingesting prefills, in the way in which a question about it alone would that
  // asks for this prefill.
  absl::StatusOr<PromptPlan> PlanDocument(PromptDocument document,
                                          PrefillChoice prefill = PrefillChoice::kAuto) const;
  // The whole prompt of a question about documents, or about none.
  absl::StatusOr<PromptPlan> PlanQuestion(std::vector<PromptDocument> documents, std::string_view question,
                                          const PromptOptions& options) const;
  // The same of a conversation. A conversation that begins as the frame does has the prefix as a segment of
  // its own. With documents, which stand before the first user's text, system texts at its head join that
  // text. The options' answer_prefix ends the conversation's segment.
  absl::StatusOr<PromptPlan> PlanChat(std::vector<PromptDocument> documents,
                                      std::vector<ChatMessage> messages, const PromptOptions& options) const;
  // The catalyst of infinipot with catalyst=@FILE, whose text is given, or with the default one, or what asks
  // to repeat the text for kvzip: ended as a question is.
  absl::StatusOr<std::vector<int32_t>> TextCatalyst(const PolicySpec& policy, std::string_view text) const;
  // Text or ids as they are, without the template; special tokens in a text are text.
  absl::StatusOr<PromptPlan> PlanText(std::string_view text, const PromptOptions& options) const;
  absl::StatusOr<PromptPlan> PlanTokens(std::vector<int32_t> tokens, const PromptOptions& options) const;

 private:
  PromptPlanner(std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const ChatTemplate> chat_template,
                ChatTemplate::Options options, Limits limits)
      : tokenizer_(std::move(tokenizer)),
        chat_template_(std::move(chat_template)),
        options_(std::move(options)),
        limits_(std::move(limits)) {}
  absl::Status CheckMessages(const std::vector<ChatMessage>& messages) const;
  absl::StatusOr<std::vector<int32_t>> Encode(const std::vector<ChatPiece>& pieces) const;
  absl::Status CheckIds(std::span<const int32_t> ids, std::string_view what) const;
  PromptModel Model() const { return {limits_.model, limits_.window_tokens, limits_.span_tokens}; }
  absl::Status CheckConversation(int64_t tokens, int64_t messages) const;
  // `segments` may end with the conversation; documents are whole still.
  absl::StatusOr<PromptPlan> Assemble(std::vector<PromptSegment> segments, const PromptSizes& sizes,
                                      const PromptOptions& options) const;
  void CutDocuments(PromptPlan* plan) const;
  absl::StatusOr<std::vector<int32_t>> CatalystOf(const PromptPlan& plan, const PromptOptions& options) const;
  void AddBos(std::vector<int32_t>* tokens) const;

  std::shared_ptr<const Tokenizer> tokenizer_;         // shared with the engine
  std::shared_ptr<const ChatTemplate> chat_template_;  // shared with copies of this planner
  ChatTemplate::Options options_;                      // of the template
  Limits limits_;
  std::string prefix_text_;
  std::vector<int32_t> prefix_, tail_;
};

}  // namespace palimpsest
