// The gRPC service where workers join: one stream each, into the registry. A worker whose stream breaks is
// gone at once; one that is silent for a lease is forgotten and its stream ended, so that it joins again as a
// new incarnation.
//
// Errors : Start: InvalidArgument: the address, or TLS that is missing or wrong. Unavailable: the address is
// in use.
//          Join: FailedPrecondition, the registry's refusal, which ends the worker. InvalidArgument: not a
//          Hello, or one whose address cannot be. ResourceExhausted: more than kWorkersMax. Aborted: the
//          lease ran out, join again.
// Threads: any thread. The registry outlives the service.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/registry.h"
#include "proto/rpc/rpc.h"

namespace palimpsest {

inline constexpr int64_t kWorkersMax = 256;

class JoinService {
 public:
  struct Options {
    std::string listen;  // cluster.coordinator
    ClusterTls tls;
    std::function<void(const proto::Hello& hello)> on_join;  // after each Welcome; may be empty
  };
  static absl::StatusOr<std::unique_ptr<JoinService>> Start(Registry& registry, Options options);
  virtual ~JoinService() = default;  // Stop

  virtual const std::string& address() const = 0;  // with the port it got
  // Ends all streams and the listener. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace palimpsest
