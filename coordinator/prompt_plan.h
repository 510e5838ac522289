// From documents and a question to the segments of a prompt: prefix | documents | question (design.md 6).
//
// Each segment is tokenized on its own, so that a document has the same ids whatever stands around it. Only
// the template's own text may hold special tokens: those in a user's text are text.
//
// Window : a prompt and one token of the answer must fit the tokens that the model was trained for.
// Errors : InvalidArgument: too long (both numbers, and the document where one alone is too long), an empty
//          question, text that is not UTF-8. Unimplemented: a prefill that this version does not have.
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace palimpsest {

enum class PrefillChoice { kAuto, kExact };

// auto exact anchored pot. Unimplemented for the last two, InvalidArgument for anything else.
absl::StatusOr<PrefillChoice> ParsePrefill(std::string_view name);

// A document as the catalog has it.
struct PromptDocument {
  std::string name;  // its path or id, for errors
  std::vector<int32_t> tokens;
  bool known = false;  // ingested before this request
};

struct PromptSegment {
  enum class Kind { kPrefix, kDocument, kQuestion } kind;
  std::vector<int32_t> tokens;
  bool known = false;  // of documents: see PromptDocument
  bool shared() const { return kind != Kind::kQuestion; }
};

struct PromptPlan {
  std::vector<PromptSegment> segments;
  std::string prefill;         // exact
  std::string prefill_reason;  // for people
  int64_t tokens = 0;          // of all segments
};

class PromptPlanner {
 public:
  struct Limits {
    std::string model;           // its name, for errors
    int64_t window_tokens = 0;   // that the model was trained for
    int64_t question_bytes = 0;  // text of one question
  };
  static absl::StatusOr<PromptPlanner> Create(std::shared_ptr<const Tokenizer> tokenizer,
                                              const PromptFrame& frame, Limits limits);

  // `path` is for errors.
  absl::StatusOr<std::vector<int32_t>> TokenizeDocument(std::string_view path, std::string_view text) const;
  // Is there room for this document and some question? Both numbers if not.
  absl::Status CheckDocument(const PromptDocument& document) const;

  // Prefix and document: what ingesting prefills.
  absl::StatusOr<PromptPlan> PlanDocument(PromptDocument document) const;
  // The whole prompt of a question about documents, or about none.
  absl::StatusOr<PromptPlan> PlanQuestion(std::vector<PromptDocument> documents, std::string_view question,
                                          PrefillChoice prefill) const;

 private:
  PromptPlanner(std::shared_ptr<const Tokenizer> tokenizer, Limits limits)
      : tokenizer_(std::move(tokenizer)), limits_(std::move(limits)) {}
  absl::StatusOr<std::vector<int32_t>> QuestionTokens(std::string_view question, bool after_document) const;
  absl::Status CheckQuestion(int64_t tokens) const;

  std::shared_ptr<const Tokenizer> tokenizer_;  // shared with the engine
  Limits limits_;
  std::vector<int32_t> prefix_, tail_;
};

}  // namespace palimpsest
