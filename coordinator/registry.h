// Who is alive: the workers that joined, what they hold, and where to reach them. Plain data with a lock; the
// Join service and the embedding process are its writers, the dispatcher its reader.
//
// Join   : compares versions, protocol, cluster id and model with the coordinator's, and the key schema
//          with that of the first worker that ever joined: other numerics would change tokens in the middle
//          of an answer.
// Errors : Join: FailedPrecondition "worker at ADDRESS: model hash A, the coordinator serves B".
// Threads: any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/worker_link.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"
#include "proto/coordinator.pb.h"

namespace palimpsest {

inline constexpr uint32_t kWorkerProtocol = 1;

class Registry {
 public:
  struct Identity {
    std::string version, cluster_id, model_hash;
    Duration lease = std::chrono::seconds(6);
  };
  struct Worker {
    uint64_t incarnation = 0;
    proto::Hello hello;
    proto::WorkerStatus status;  // of its last beat
    TimePoint heard;
    bool leaving = false;
    std::shared_ptr<WorkerLink> link;
  };

  Registry(Identity identity, const Clock& clock) : identity_(std::move(identity)), clock_(clock) {}

  absl::StatusOr<proto::Welcome> Join(const proto::Hello& hello, std::shared_ptr<WorkerLink> link);
  // False: this incarnation is not known any more (its lease ran out): the caller must end the stream.
  bool Beat(uint64_t incarnation, const proto::Beat& beat);
  void Leave(uint64_t incarnation);
  // Forgets those not heard for a lease; returns how many.
  int64_t Expire();

  // Alive and not leaving, by incarnation.
  std::vector<Worker> Alive() const;
  // Waits until one is alive; false after `limit` or once cancelled.
  bool WaitForOne(Duration limit, const CancelToken& cancel) const;
  int64_t joins() const;  // ever; more than the number of workers means that some came back
  const Identity& identity() const { return identity_; }

 private:
  const Identity identity_;
  const Clock& clock_;
  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
  std::map<uint64_t, Worker> workers_;     // guarded by mu_, as all below
  std::optional<std::string> key_schema_;  // of the first that joined
  uint64_t next_incarnation_ = 1;
  int64_t joins_ = 0;
};

}  // namespace palimpsest
