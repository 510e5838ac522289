// A coordinator as a process: catalog, registry, the port where workers join, and the two HTTP listeners.
//
// Owns   : all of them, and the data folder's lock.
// Errors : of the parts, worded by them: no such model, the data folder in use (with the pid), a port in
//          use, TLS or key files that are wrong, a listener beyond loopback without keys.
// Threads: one at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"
#include "proto/base/config.h"
#include "proto/coordinator.pb.h"

namespace palimpsest {

class CoordinatorProcess {
 public:
  struct Options {
    Config config;
    std::string owner;  // "palimpsest serve", for who finds the data folder locked
    std::function<void(const proto::Hello& hello)> on_join;  // from any thread; may be empty
  };
  static absl::StatusOr<std::unique_ptr<CoordinatorProcess>> Start(Options options);
  virtual ~CoordinatorProcess() = default;  // Stop

  virtual std::string url() const = 0;  // "http://127.0.0.1:8080"
  virtual std::string admin_url() const = 0;
  virtual bool HasWorker() const = 0;
  virtual void Tick() = 0;  // once a second: key files that changed
  // Refuses what is new, finishes what runs; true if all of it ended within `limit`.
  virtual bool Drain(Duration limit) = 0;
  virtual void Stop() = 0;  // idempotent
};

}  // namespace palimpsest
