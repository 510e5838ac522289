// A request for an answer, whoever asks: HTTP, `ask`, the harness. Plain data; limits are checked where it is
// made.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/prompt_plan.h"
#include "proto/types.pb.h"
#include "proto/worker.pb.h"
#include "text/chat_template.h"

namespace palimpsest {

struct AnswerRequest {
  // A conversation, through the chat template; or plain text or token ids, as they are.
  std::variant<std::vector<ChatMessage>, std::string, std::vector<int32_t>> prompt;
  std::vector<std::string> documents;  // ids of the catalog, in the order in which they are read
  PromptOptions options;
  // max_tokens 0: as many as the window and the workers' memory allow. One that does not fit is refused.
  proto::Sampling sampling;
  bool may_cut = false;     // max_tokens is a default, nobody's wish: what does not fit of it is cut off
  int64_t choices = 1;      // choice i is sampled with seed + i
  bool ignore_end = false;  // generate past end tokens, for measurements
  bool logprobs = false;
  int32_t top_logprobs = 0;
  std::string tenant;      // whose request this is; "" with no keys
  std::string cache_salt;  // narrows further who may find these blocks
  std::string request_id;
};

// Where an answer goes. Calls are serialized, from any thread; events of one choice are in order and none
// comes twice, whatever happened to workers meanwhile. False: nobody listens any more, which cancels the
// request.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  // Admitted and planned; nothing has been computed. Once.
  virtual bool OnStart(int64_t prompt_tokens, const std::vector<std::string>& documents) = 0;
  virtual bool OnPrefill(int64_t done_tokens, int64_t total_tokens) = 0;  // of the first choice
  virtual bool OnToken(int64_t choice, const proto::TokenEvent& token) = 0;
  virtual bool OnDone(int64_t choice, const proto::DoneEvent& done) = 0;
};

}  // namespace palimpsest
