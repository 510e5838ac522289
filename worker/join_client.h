// Keeps a worker in its cluster: joins, beats every third of the lease, and joins again when the stream
// breaks, each time as a new incarnation.
//
// Fencing: `on_incarnation` gets the number of each Welcome, and 0 as soon as the stream broke or nothing
//          was heard for half a lease: the coordinator gives the worker's requests to others after a whole
//          one (I-10).
// Errors : what cannot get better by waiting ends it (Ended): FailedPrecondition, the coordinator serves
//          something else, in its words; InvalidArgument; Unimplemented, no coordinator listens there. All
//          else is tried again after 0.1 s to 2 s, with jitter.
// Threads: any thread. Callbacks come from a thread of its own and must not block for long.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "proto/base/clock.h"
#include "proto/coordinator.pb.h"
#include "proto/rpc/rpc.h"

namespace palimpsest {

class JoinClient {
 public:
  struct Options {
    std::string coordinator;  // cluster.coordinator
    ClusterTls tls;
    proto::Hello hello;
    std::function<void(uint64_t incarnation)> on_incarnation;
    std::function<proto::WorkerStatus()> status;  // for each beat
    uint64_t seed = 0;  // of the jitter: the process id, so that workers do not come in step
    const Clock* clock = &RealClock();
  };
  static absl::StatusOr<std::unique_ptr<JoinClient>> Start(Options options);
  virtual ~JoinClient() = default;  // Stop

  // The error that ended it; none while it runs or tries.
  virtual std::optional<absl::Status> Ended() const = 0;
  // Tells the coordinator to send nothing new; true once that is said, false if it is not in the cluster.
  virtual bool Leave(Duration limit) = 0;
  // Leaves at once. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace palimpsest
