#include "coordinator/answer_run.h"

#include <system_error>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {

// The other choices may run still if the sink threw in the first one.
AnswerRun::~AnswerRun() {
  if (others_.empty()) return;
  options_.cancel->Set();
  JoinOthers();
}

void AnswerRun::JoinOthers() {
  for (std::thread& other : others_) other.join();
  others_.clear();
}

absl::Status AnswerRun::Run() {
  const auto choices = static_cast<size_t>(options_.request->choices);
  last_token_.resize(choices);
  first_token_seconds_.resize(choices);
  const absl::Status first = RunChoice(0);
  {
    // A first choice that failed has set the cancel token: the others then end at once.
    const std::lock_guard<std::mutex> lock(mu_);
    StartOthers();
  }
  JoinOthers();
  if (stopped_) return Error(absl::StatusCode::kCancelled, "nobody listens any more");
  return failed_;
}

absl::Status AnswerRun::RunChoice(int64_t choice) {
  proto::GenerateRequest generate = options_.generate;
  generate.mutable_sampling()->set_seed(generate.sampling().seed() + static_cast<uint64_t>(choice));
  absl::Status status = options_.dispatcher->Run(
      std::move(generate), [&](const proto::GenerateEvent& event) { return OnEvent(choice, event); },
      *options_.cancel);
  if (status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mu_);
  if (failed_.ok()) failed_ = status;
  options_.cancel->Set();  // half an answer is of no use
  return status;
}

// REQUIRES: mu_. Once.
void AnswerRun::StartOthers() {
  if (std::exchange(others_begun_, true)) return;
  try {
    for (int64_t choice = 1; choice < options_.request->choices; ++choice) {
      others_.emplace_back([this, choice] { (void)RunChoice(choice); });
    }
  } catch (const std::system_error&) {
    if (failed_.ok()) {
      failed_ = WithRetryAfter(
          Error(absl::StatusCode::kUnavailable, "the machine gives no more threads; come again in 1 s"), 1);
    }
    options_.cancel->Set();
  }
}

bool AnswerRun::OnEvent(int64_t choice, const proto::GenerateEvent& event) {
  const std::lock_guard<std::mutex> lock(mu_);  // held over the sink: its calls are serialized
  if (stopped_) return false;
  if (!event.has_prefill()) {
    prompt_read_ = true;
    StartOthers();
  }
  bool more = true;
  if (event.has_prefill()) {
    const proto::PrefillEvent& prefill = event.prefill();
    more = choice != 0 || options_.sink->OnPrefill(prefill.done_tokens(), prefill.total_tokens());
  } else if (event.has_token()) {
    more = OnToken(choice, event.token());
  } else if (event.has_done()) {
    const proto::DoneEvent done = Complete(choice, event.done());
    options_.metrics->ObserveDone(done);
    options_.metrics->CountFinished(done.finish_reason() == "length" ? ServingMetrics::Finish::kLength
                                                                     : ServingMetrics::Finish::kStop);
    more = options_.sink->OnDone(choice, done);
  }
  if (!more) {
    stopped_ = true;
    options_.cancel->Set();
  }
  return more;
}

// REQUIRES: mu_.
bool AnswerRun::OnToken(int64_t choice, const proto::TokenEvent& token) {
  const TimePoint now = options_.clock->Now();
  TimePoint& last = last_token_[static_cast<size_t>(choice)];
  if (last == TimePoint()) {
    first_token_seconds_[static_cast<size_t>(choice)] = Seconds(now - options_.arrived);
    options_.metrics->ObserveFirstToken(Seconds(now - options_.arrived));
  } else {
    options_.metrics->ObserveGap(Seconds(now - last));
  }
  last = now;
  return options_.sink->OnToken(choice, token);
}

// What the worker cannot know. Its clock began when the request reached it; ours when the client's did.
proto::DoneEvent AnswerRun::Complete(int64_t choice, const proto::DoneEvent& done) const {
  proto::DoneEvent complete = done;
  proto::Receipt& receipt = *complete.mutable_receipt();
  if (receipt.policy().empty()) receipt.set_policy(options_.policy);
  if (receipt.prefill().empty()) receipt.set_prefill(options_.prefill);
  if (receipt.recall().empty()) receipt.set_recall(RecallText(RecallSpec{}));
  receipt.set_prefill_reason(options_.prefill_reason);
  receipt.set_question(options_.question_visible ? "visible" : "hidden");
  proto::Receipt::Seconds& seconds = *receipt.mutable_seconds();
  seconds.set_queue(seconds.queue() + options_.queue_seconds);
  const double first_token = first_token_seconds_[static_cast<size_t>(choice)];
  if (first_token > 0) seconds.set_first_token(first_token);
  return complete;
}

}  // namespace palimpsest
