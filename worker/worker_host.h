// A worker without its wire: the engine on a thread of its own, and calls that wait for it. The gRPC service
// and the commands that embed a worker both run on this.
//
// Events : in order, on the caller's thread. A listener that is slow fills a queue of `events_max`; then
//          the engine leaves its request out of the steps until it has caught up, and serves the others.
// Cancel : seen before the next step; then no more is computed for the request and its memory is free.
// Errors : as in proto/worker.proto. Cancelled: the token was set, or the listener said that nobody
//          listens. Unavailable once Drain or Stop has begun.
// Threads: any thread.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"
#include "proto/worker.pb.h"
#include "worker/engine.h"

namespace palimpsest {

// False: nobody listens any more.
using EventListener = std::function<bool(const proto::GenerateEvent& event)>;

// What a worker tells a coordinator about itself before it may join.
struct WorkerFacts {
  std::string model_hash;  // hex
  std::string key_schema;  // canonical text
  int64_t arena_bytes = 0, bytes_per_token = 0, window_tokens = 0;
};

class WorkerHost {
 public:
  struct Options {
    int64_t requests_max = 256;  // running and waiting; more are refused with Unavailable
    int64_t events_max = 256;    // of one request, not yet taken by its listener
  };
  // Runs `make` on the engine's thread, which it then keeps: the thread pool pins its caller.
  static absl::StatusOr<std::unique_ptr<WorkerHost>> Start(
      std::function<absl::StatusOr<std::unique_ptr<Engine>>()> make, Options options);
  virtual ~WorkerHost() = default;  // Stop

  // Blocks until the request is done.
  virtual absl::Status Generate(const proto::GenerateRequest& request, const EventListener& listener,
                                const CancelToken& cancel) = 0;
  virtual proto::WorkerStatus Status() const = 0;  // incarnation is not the host's to know: 0
  virtual const WorkerFacts& facts() const = 0;

  // Takes nothing new; returns when all has ended, or after `limit`: true if nothing is left.
  virtual bool Drain(Duration limit) = 0;
  // Cancels what is left and ends the engine's thread. Blocks that are sealed stay sealed. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace palimpsest
