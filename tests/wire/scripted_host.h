// A worker without an engine: what a request's `request_id` says happens.
//   "tokens"        as many token events as sampling.max_tokens, then done
//   "hang"          the same events, then nothing until it is cancelled
//   "fail CODE"     an error of ours with that number
#pragma once

#include <atomic>
#include <thread>

#include "proto/base/status.h"
#include "worker/worker_host.h"

namespace palimpsest::testing {

class ScriptedHost final : public WorkerHost {
 public:
  absl::Status Generate(const proto::GenerateRequest& request, const EventListener& listener,
                        const CancelToken& cancel) override {
    ++running_;
    const absl::Status status = Run(request, listener, cancel);
    --running_;
    if (status.code() == absl::StatusCode::kCancelled) ++cancelled_;
    return status;
  }
  proto::WorkerStatus Status() const override {
    proto::WorkerStatus status;
    status.set_running(running_);
    status.set_arena_bytes(123);
    return status;
  }
  const WorkerFacts& facts() const override { return facts_; }
  bool Drain(Duration) override { return true; }
  void Stop() override {}

  int running() const { return running_; }
  int cancelled() const { return cancelled_; }

 private:
  static absl::Status Run(const proto::GenerateRequest& request, const EventListener& listener,
                          const CancelToken& cancel) {
    const std::string& script = request.request_id();
    if (script.starts_with("fail ")) {
      return {static_cast<absl::StatusCode>(std::stoi(script.substr(5))), "as the script says"};
    }
    proto::GenerateEvent event;
    for (int64_t i = 0; i < request.sampling().max_tokens(); ++i) {
      proto::TokenEvent& token = *event.mutable_token();
      token.set_sequence(i);
      token.set_token(static_cast<int32_t>(i % 300));
      token.set_text(fmt::format("t{}", i));
      if (!listener(event) || cancel.IsSet()) return absl::CancelledError("cancelled");
    }
    while (script == "hang") {
      if (cancel.IsSet()) return absl::CancelledError("cancelled");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    event.mutable_done()->set_finish_reason("length");
    listener(event);
    return absl::OkStatus();
  }

  const WorkerFacts facts_{.model_hash = "00",
                           .key_schema = "schema",
                           .arena_bytes = 123,
                           .bytes_per_token = 1,
                           .window_tokens = 10};
  std::atomic<int> running_ = 0, cancelled_ = 0;
};

inline proto::GenerateRequest Script(const std::string& script, int64_t tokens = 3,
                                     uint64_t incarnation = 0) {
  proto::GenerateRequest request;
  request.set_request_id(script);
  request.set_incarnation(incarnation);
  request.mutable_sampling()->set_max_tokens(tokens);
  return request;
}

// Waits for what another thread does; false after a bound that only a failure reaches.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace palimpsest::testing
