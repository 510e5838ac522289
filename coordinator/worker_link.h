// How the coordinator reaches one worker, whether in this process or over gRPC.
//
// Errors : the worker's (proto/worker.proto). Unavailable: the worker is gone or leaving; what it had sent
//          until then is valid, and another worker can go on from there.
// Threads: any thread; calls run side by side.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "proto/base/cancel.h"
#include "proto/rpc/rpc.h"
#include "proto/worker.pb.h"

namespace palimpsest {

class WorkerLink {
 public:
  // Events in order, on the caller's thread; false from the listener ends the call with Cancelled.
  using Listener = std::function<bool(const proto::GenerateEvent& event)>;

  virtual ~WorkerLink() = default;
  // Blocks until the request is done.
  virtual absl::Status Generate(const proto::GenerateRequest& request, const Listener& listener,
                                const CancelToken& cancel) = 0;
  // For logs and the status page: "in this process", "unix:/run/...".
  virtual const std::string& address() const = 0;
};

// A link over gRPC. Connects when first used, and again after a failure.
absl::StatusOr<std::unique_ptr<WorkerLink>> MakeGrpcWorkerLink(const std::string& address,
                                                               const ClusterTls& tls);

}  // namespace palimpsest
