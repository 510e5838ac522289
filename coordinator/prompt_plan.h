// From documents and a conversation to the segments of a prompt: prefix | documents | conversation
// (design.md 6). A question is a conversation of one message, so commands and HTTP make the same prompts.
//
// Each segment, and in a conversation each message's text, is tokenized on its own, so that it has the same
// ids whatever stands around it. Only the template's own text may hold special tokens: those in a user's text
// are text.
//
// Window : a prompt and one token of the answer must fit the tokens that the model was trained for.
// Errors : InvalidArgument: too long (both numbers, and the document where one alone is too long;
// IsOverWindow),
//          an empty question, a role that is not known, a conversation that the template refuses, text that
//          is not UTF-8. Unimplemented: a prefill that this version does not have.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/policy_spec.h"
#include "proto/worker.pb.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace palimpsest {

enum class PrefillChoice { kAuto, kExact, kAnchored, kPot };

// auto exact anchored pot; InvalidArgument for anything else.
absl::StatusOr<PrefillChoice> ParsePrefill(std::string_view name);

// How a prompt is to be read and what of it may stay.
struct PromptOptions {
  PrefillChoice prefill = PrefillChoice::kAuto;
  PolicySpec policy{.kind = PolicySpec::Kind::kAuto};
  bool question_visible = false;
  std::string catalyst;  // text, for infinipot with catalyst=@FILE
};

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
  std::string prefill;         // exact
  std::string prefill_reason;  // for people
  int64_t tokens = 0;          // of all segments
};

// Whether a request was refused because its prompt is longer than the model's window.
bool IsOverWindow(const absl::Status& status);
absl::Status MarkOverWindow(absl::Status status);

class PromptPlanner {
 public:
  struct Limits {
    std::string model;           // its name, for errors
    int64_t window_tokens = 0;   // that the model was trained for
    int64_t question_bytes = 0;  // text of one question with its history
  };
  // `options` hold for all conversations: a template that tells the date tells that of the start.
  static absl::StatusOr<PromptPlanner> Create(std::shared_ptr<const Tokenizer> tokenizer,
                                              std::shared_ptr<const ChatTemplate> chat_template,
                                              ChatTemplate::Options options, Limits limits);

  // Refuses a text of so many bytes that it cannot fit, whatever it says: before it is read and cut into
  // tokens, which take several times its memory. `path` is for errors; the same below.
  absl::Status CheckDocumentBytes(std::string_view path, int64_t bytes) const;
  absl::StatusOr<std::vector<int32_t>> TokenizeDocument(std::string_view path, std::string_view text) const;
  // Is there room for this document and some question? Both numbers if not.
  absl::Status CheckDocument(const PromptDocument& document) const;

  // Prefix and document: what ingesting prefills.
  absl::StatusOr<PromptPlan> PlanDocument(PromptDocument document) const;
  // The whole prompt of a question about documents, or about none.
  absl::StatusOr<PromptPlan> PlanQuestion(std::vector<PromptDocument> documents, std::string_view question,
                                          PrefillChoice prefill) const;
  // The same of a conversation. A conversation that begins as the frame does has the prefix as a segment of
  // its own. With documents, which stand before the first user's text, system texts at its head join that
  // text.
  absl::StatusOr<PromptPlan> PlanChat(std::vector<PromptDocument> documents,
                                      std::vector<ChatMessage> messages, PrefillChoice prefill) const;
  // Text or ids as they are, without the template; special tokens in a text are text.
  absl::StatusOr<PromptPlan> PlanText(std::string_view text, PrefillChoice prefill) const;
  absl::StatusOr<PromptPlan> PlanTokens(std::vector<int32_t> tokens, PrefillChoice prefill) const;

 private:
  PromptPlanner(std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const ChatTemplate> chat_template,
                ChatTemplate::Options options, Limits limits)
      : tokenizer_(std::move(tokenizer)),
        chat_template_(std::move(chat_template)),
        options_(std::move(options)),
        limits_(std::move(limits)) {}
  absl::Status CheckMessages(const std::vector<ChatMessage>& messages) const;
  absl::StatusOr<std::vector<int32_t>> Encode(const std::vector<ChatPiece>& pieces) const;
  absl::Status CheckConversation(int64_t tokens, int64_t messages) const;
  absl::StatusOr<PromptPlan> Assemble(std::vector<PromptSegment> segments, int64_t messages,
                                      PrefillChoice prefill) const;
  void AddBos(std::vector<int32_t>* tokens) const;

  std::shared_ptr<const Tokenizer> tokenizer_;         // shared with the engine
  std::shared_ptr<const ChatTemplate> chat_template_;  // shared with copies of this planner
  ChatTemplate::Options options_;
  Limits limits_;
  int64_t longest_token_bytes_ = 1;
  std::string prefix_text_;
  std::vector<int32_t> prefix_, tail_;
};

}  // namespace palimpsest
