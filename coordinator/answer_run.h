// One admitted answer: its choices on the workers, its events to one sink, its receipt.
//
// Choices run side by side on threads of their own. The others begin when the first one has read the
// prompt, so that they find its shared parts instead of reading them too.
// Threads: one at a time; the sink is called from several, one call at a time.
#pragma once

#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "coordinator/answer_request.h"
#include "coordinator/dispatcher.h"
#include "coordinator/serving_metrics.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"

namespace palimpsest {

class AnswerRun {
 public:
  struct Options {
    const AnswerRequest* request = nullptr;  // these outlive the run
    AnswerSink* sink = nullptr;
    Dispatcher* dispatcher = nullptr;
    ServingMetrics* metrics = nullptr;
    CancelToken* cancel = nullptr;    // set here when nobody listens or a choice has failed
    proto::GenerateRequest generate;  // of the first choice
    // Of the plan; what the worker says of the first two wins.
    std::string policy, prefill, prefill_reason;
    bool question_visible = false;
    TimePoint arrived;
    double queue_seconds = 0;
    const Clock* clock = &RealClock();
  };
  explicit AnswerRun(Options options) : options_(std::move(options)) {}
  ~AnswerRun();

  // The first error of a choice; Cancelled if the sink wanted no more.
  absl::Status Run();
  // The prompt was read to its end.
  bool prompt_read() const { return prompt_read_; }

 private:
  absl::Status RunChoice(int64_t choice);
  bool OnEvent(int64_t choice, const proto::GenerateEvent& event);
  bool OnToken(int64_t choice, const proto::TokenEvent& token);
  void StartOthers();
  void JoinOthers();
  proto::DoneEvent Complete(int64_t choice, const proto::DoneEvent& done) const;

  const Options options_;
  std::mutex mu_;
  bool prompt_read_ = false;  // guarded by mu_, as all below; read alone once Run is over
  bool stopped_ = false;
  bool others_begun_ = false;
  absl::Status failed_;
  std::vector<TimePoint> last_token_;  // by choice; the epoch before its first
  std::vector<double> first_token_seconds_;
  std::vector<std::thread> others_;
};

}  // namespace palimpsest
