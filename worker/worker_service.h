// The gRPC service of a worker, over its WorkerHost.
//
// Fencing: it serves only under the incarnation that the coordinator gave it (SetIncarnation). 0, and any
//          change, end what runs with Unavailable: a worker that lost its lease must not go on answering
//          (I-10). A request for an incarnation that is yet to come waits for it a moment: the coordinator
//          knows it before the worker does.
// Cancel : a call that its client cancels, or whose client is gone, is cancelled in the host within 20 ms.
// Errors : Start: InvalidArgument: the address, or TLS that is missing or wrong. Unavailable: the address
//          is in use. Calls: as in proto/worker.proto. A request above kRpcMessageBytesMax is refused by
//          its sender.
// Threads: any thread. Each call has one of its own, `requests_max` and a few at most; the host outlives
//          the service.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/rpc/rpc.h"
#include "worker/worker_host.h"

namespace palimpsest {

class WorkerService {
 public:
  struct Options {
    std::string listen;  // cluster.listen
    ClusterTls tls;
    int64_t requests_max = 256;  // as the host's: what is more is refused by the host, in words
  };
  static absl::StatusOr<std::unique_ptr<WorkerService>> Start(WorkerHost& host, const Options& options);
  virtual ~WorkerService() = default;  // Stop

  virtual const std::string& address() const = 0;  // where it is reached, with the port it got
  // 0: in no cluster; serves nobody.
  virtual void SetIncarnation(uint64_t incarnation) = 0;
  // Ends all calls and the listener. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace palimpsest
