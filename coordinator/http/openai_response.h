// Answers as OpenAI's clients read them: whole objects, and the chunks of a stream.
//
// A receipt is at palimpsest.receipt: of the first choice in a whole answer (with several choices, all of
// them at palimpsest.receipts), of its own choice in the chunk that ends it.
//
// Threads: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "proto/worker.pb.h"
#include "text/tokenizer.h"

namespace boost::json {
class object;
class value;
}  // namespace boost::json

namespace palimpsest::http {

// One choice of an answer as it grows.
struct ChoiceAnswer {
  std::string text;
  std::vector<proto::TokenEvent> tokens;  // with log-probabilities; empty unless asked for
  std::optional<proto::DoneEvent> done;
};

class OpenAiFormat {
 public:
  struct Options {
    bool chat = true;
    bool logprobs = false;
    bool include_usage = false;  // in a stream
    std::string model;           // as served
    std::string fingerprint;     // of what computes: equal ones give equal answers to equal seeds
    int64_t created = 0;         // Unix seconds
    std::shared_ptr<const Tokenizer> tokenizer;
  };
  // Draws the answer's id.
  explicit OpenAiFormat(Options options);

  const Options& options() const { return options_; }
  // REQUIRES: every choice is done.
  std::string Whole(std::span<const ChoiceAnswer> choices, std::span<const std::string> documents) const;

  // Events of a stream, "data: ...\n\n" each.
  std::string RoleEvent(int64_t choice) const;  // of a chat, first
  // `characters`: of the choice's tokens before this one, for a completion's text_offset.
  std::string TokenEvent(int64_t choice, const proto::TokenEvent& token, int64_t characters) const;
  std::string DoneEvent(int64_t choice, const proto::DoneEvent& done,
                        std::span<const std::string> documents) const;
  std::string UsageEvent(const proto::Usage& usage) const;
  static std::string_view LastEvent();  // [DONE]
  // In its place, of an answer that failed.
  static std::string ErrorEvent(const absl::Status& status, std::string_view request_id);

  // Characters of one token as it is shown, where a byte that is no text counts as one.
  int64_t Characters(int32_t token) const;

 private:
  boost::json::object Frame(std::string_view object) const;
  boost::json::object Chunk(boost::json::object choice) const;
  boost::json::value Logprobs(std::span<const proto::TokenEvent> tokens, int64_t characters) const;
  boost::json::object ChatLogprob(const proto::TokenEvent& token) const;
  boost::json::object CompletionLogprobs(std::span<const proto::TokenEvent> tokens, int64_t characters) const;
  std::string Shown(int32_t token) const;
  bool IsTold(const proto::TokenEvent& token) const { return !options_.tokenizer->IsEnd(token.token()); }

  const Options options_;
  const std::string id_;
};

// Of all choices: one prompt, and what each generated.
proto::Usage TotalUsage(std::span<const proto::Usage> choices);

}  // namespace palimpsest::http
