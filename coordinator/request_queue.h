// The queue of requests: Admission with a lock and the workers' numbers, and the wait for one's turn.
//
// Errors : Admission's. Cancelled.
// Threads: any thread; a Turn one at a time.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/admission.h"
#include "coordinator/registry.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"

namespace palimpsest {

class RequestQueue {
 public:
  RequestQueue(const Admission::Limits& limits, std::shared_ptr<const Registry> registry, const Clock& clock)
      : limits_(limits), registry_(std::move(registry)), clock_(clock), admission_(limits) {}

  // A place in the queue, then the right to run; given back when it is destroyed. The queue outlives it.
  class Turn {
   public:
    Turn(Turn&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)), id_(other.id_) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn();
    // Once, before Wait. Refused if its tokens are too many beside those that wait.
    absl::Status SetNeed(const Admission::Need& need);
    // Blocks until it may run; at most limits.waiting_seconds.
    absl::Status Wait(const CancelToken& cancel);

   private:
    friend class RequestQueue;
    Turn(RequestQueue* queue, Admission::Id id) : queue_(queue), id_(id) {}
    RequestQueue* queue_;
    const Admission::Id id_;
  };
  // Quick: neither plans nor waits.
  absl::StatusOr<Turn> Enter(const std::string& tenant);

  struct Numbers {
    int64_t running = 0, waiting = 0, waiting_tokens = 0;
  };
  Numbers numbers() const;

 private:
  Admission::Capacity CapacityNow() const;
  absl::Status WaitForTurn(Admission::Id id, const CancelToken& cancel);

  const Admission::Limits limits_;
  const std::shared_ptr<const Registry> registry_;  // shared with who writes it
  const Clock& clock_;
  mutable std::mutex mu_;
  std::condition_variable turn_;  // somebody left, or was let in
  Admission admission_;           // guarded by mu_
};

}  // namespace palimpsest
