// Sees one request through on the workers: chooses one, passes its events on, and goes on elsewhere when it
// dies.
//
// Exactly once (I-9): each token's sequence number is the next one, or it is dropped (delivered before) or
// an error (a gap). The next worker gets the tokens that were delivered and computes on from there. Prefill
// progress never goes back. Failover : a worker that breaks off is not asked again for a while, so one that
// is gone but still listed is left alone; others take over at once. Waits for a worker at most
// `worker_wait` without an event. kDeathsMax workers that die of the same request without a new token end
// it: it may be what kills them.
// Errors   : Unavailable with RetryAfter: no worker came in time. Internal: too many died, or a worker
//            broke the order. Cancelled. InvalidArgument, ResourceExhausted: the worker's.
// Threads  : any thread; Run blocks, its events come on the caller's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/placement.h"
#include "coordinator/registry.h"
#include "coordinator/worker_link.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"

namespace palimpsest {

class Dispatcher {
 public:
  static constexpr int64_t kDeathsMax = 5;

  struct Options {
    std::shared_ptr<Registry> registry;  // shared with who writes it
    Duration worker_wait = std::chrono::seconds(120);
    std::function<void()> on_failover;  // counts
  };
  explicit Dispatcher(Options options) : options_(std::move(options)) {}

  // `incarnation` and `generated` of the request are this class's to set. The last event is the done event,
  // with what was survived in receipt.degraded.
  absl::Status Run(proto::GenerateRequest request, const WorkerLink::Listener& listener,
                   const CancelToken& cancel);

 private:
  struct Job;
  absl::StatusOr<Registry::Worker> WaitForWorker(Job& job);
  std::optional<Registry::Worker> Choose(Job& job);
  absl::Status Broke(const Registry::Worker& worker, Job& job) const;
  absl::Status CountDeaths(Job& job) const;
  absl::Status RunOn(const Registry::Worker& worker, Job& job);
  bool OnEvent(const proto::GenerateEvent& event, Job& job) const;
  bool OnToken(const proto::GenerateEvent& event, Job& job) const;

  const Options options_;
  std::mutex mu_;
  Placement placement_;  // guarded by mu_
};

}  // namespace palimpsest
