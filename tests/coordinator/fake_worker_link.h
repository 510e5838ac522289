// A worker without an engine: answers are a function of the prompt, the seed and the place, so that any two
// workers give the same ones, and a test can say what the whole answer is. What goes wrong is scripted.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coordinator/registry.h"
#include "coordinator/worker_link.h"

namespace palimpsest::testing {

// The token at `place` of the answer.
int32_t FakeToken(const proto::GenerateRequest& request, int64_t place);
std::string FakeText(int32_t token);

class FakeWorkerLink final : public WorkerLink {
 public:
  struct Script {
    int64_t prefill_events = 2;
    Duration before_prefill{}, between_tokens{};
    int64_t die_after_tokens = -1;    // of those it sends: Unavailable, and it is gone; -1: never
    int64_t die_after_prefills = -1;  // the same while the prompt is read
    int64_t skip_token = -1;          // this sequence number is left out
    int64_t repeat_from = -1;         // starts again at this sequence number, whatever was generated
    bool never_ends = false;          // until it is cancelled
    absl::Status refuse;              // at once
  };
  // Asked once for each call.
  using Scripts = std::function<Script(const proto::GenerateRequest& request)>;

  explicit FakeWorkerLink(Scripts scripts) : scripts_(std::move(scripts)) {}
  absl::Status Generate(const proto::GenerateRequest& request, const Listener& listener,
                        const CancelToken& cancel) override;
  const std::string& address() const override { return address_; }

  std::function<void()> on_death;  // before the call returns

  std::vector<proto::GenerateRequest> requests() const;
  int64_t running() const { return running_; }
  int64_t running_most() const { return running_most_; }

 private:
  absl::Status Play(const proto::GenerateRequest& request, const Script& script, const Listener& listener,
                    const CancelToken& cancel);
  absl::Status Die();
  void Finish(const proto::GenerateRequest& request, const Listener& listener) const;

  const std::string address_ = "fake";
  const Scripts scripts_;
  std::atomic<bool> dead_{false};
  std::atomic<int64_t> running_{0}, running_most_{0};
  mutable std::mutex mu_;
  std::vector<proto::GenerateRequest> requests_;  // guarded by mu_
};

// A registry whose workers are fakes, and that starts a new one when one dies.
class FakeCluster {
 public:
  explicit FakeCluster(FakeWorkerLink::Scripts scripts, int64_t arena_bytes = 1 << 30);
  // Joins one; false if the registry refuses it.
  bool AddWorker();
  void RemoveAll();
  bool restart = true;           // the dead come back as a new incarnation
  int64_t bytes_per_token = 64;  // of the next worker

  const std::shared_ptr<Registry>& registry() const { return registry_; }
  std::vector<std::shared_ptr<FakeWorkerLink>> links() const;
  int64_t running() const;

 private:
  const FakeWorkerLink::Scripts scripts_;
  const int64_t arena_bytes_;
  std::shared_ptr<Registry> registry_;
  mutable std::mutex mu_;
  std::vector<std::shared_ptr<FakeWorkerLink>> links_;  // guarded by mu_
};

}  // namespace palimpsest::testing
