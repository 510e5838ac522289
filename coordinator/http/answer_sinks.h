// Where an answer goes over HTTP: into one object, or out as it comes.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/answer_request.h"
#include "coordinator/http/http.h"
#include "coordinator/http/openai_response.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"

namespace palimpsest::http {

// Keeps all of it. Threads: as AnswerSink's calls come; Answer() after the last.
class CollectingSink final : public AnswerSink {
 public:
  CollectingSink(int64_t choices, bool logprobs)
      : choices_(static_cast<size_t>(choices)), logprobs_(logprobs) {}

  bool OnStart(int64_t prompt_tokens, const std::vector<std::string>& documents) override;
  bool OnPrefill(int64_t done_tokens, int64_t total_tokens) override;
  bool OnToken(int64_t choice, const proto::TokenEvent& token) override;
  bool OnDone(int64_t choice, const proto::DoneEvent& done) override;

  bool AllDone() const;
  const std::vector<ChoiceAnswer>& choices() const { return choices_; }
  const std::vector<std::string>& documents() const { return documents_; }

 private:
  std::vector<ChoiceAnswer> choices_;
  const bool logprobs_;
  std::vector<std::string> documents_;
};

// Server-sent events. The stream begins when the request is admitted: what fails before has a status of its
// own, what fails later is an event. While nothing is sent, a comment goes out every `heartbeat`, so that no
// proxy takes the connection for dead.
//
// Owns   : a thread while the stream is open.
// Threads: as AnswerSink's calls come; Finish once, after the last.
class StreamingSink final : public AnswerSink {
 public:
  static constexpr Duration kHeartbeat = std::chrono::seconds(10);

  // `format` and `response` outlive the sink.
  StreamingSink(const OpenAiFormat& format, int64_t choices, Response& response,
                Duration heartbeat = kHeartbeat);
  ~StreamingSink() override;

  // Set when the client is gone.
  const CancelToken& cancel() const { return cancel_; }

  bool OnStart(int64_t prompt_tokens, const std::vector<std::string>& documents) override;
  bool OnPrefill(int64_t done_tokens, int64_t total_tokens) override;
  bool OnToken(int64_t choice, const proto::TokenEvent& token) override;
  bool OnDone(int64_t choice, const proto::DoneEvent& done) override;
  // The end of the stream, or the whole answer if it never began.
  void Finish(const absl::Status& status);

 private:
  bool Write(std::string_view event);  // REQUIRES: mu_ is held
  void Beat();
  void StopBeating();

  const OpenAiFormat& format_;
  const Duration heartbeat_;
  CancelToken cancel_;
  std::mutex mu_;  // guards all below
  std::condition_variable stopped_;
  Response& response_;
  bool begun_ = false, stop_ = false, wrote_ = false;
  std::vector<std::string> documents_;
  std::vector<int64_t> characters_;   // by choice, of its tokens so far
  std::vector<proto::Usage> usages_;  // by choice
  int64_t done_ = 0;                  // choices
  std::thread beats_;
};

}  // namespace palimpsest::http
