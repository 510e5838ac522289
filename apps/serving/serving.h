// `palimpsest serve` and `palimpsest coordinator`: processes that run until a signal or until they cannot go
// on.
//
// Stop   : the first SIGTERM or SIGINT (`stop`): nothing new is taken, what runs is finished within
//          server.drain_seconds, workers are stopped; OK. A second signal ends the process at once, and the
//          kernel ends its workers.
// Errors : of CoordinatorProcess and Supervisor.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "proto/base/cancel.h"
#include "proto/base/config.h"

namespace palimpsest {

struct ServingOptions {
  Config config;
  const CancelToken* stop = &CancelToken::Never();
  std::string notify_socket;   // $NOTIFY_SOCKET
  std::string runtime_folder;  // $XDG_RUNTIME_DIR: where the private sockets are; empty: /tmp
  std::map<std::string, std::string> environment;  // of workers, without PALIMPSEST_*
  // Both listeners are up and a worker has joined.
  std::function<absl::Status(const std::string& url, const std::string& admin_url)> on_ready;
};

// A coordinator and server.workers worker processes of this program, on Unix sockets that nobody else can
// open.
absl::Status RunServe(const ServingOptions& options);
// A coordinator alone; workers join it at cluster.coordinator.
absl::Status RunCoordinator(const ServingOptions& options);

}  // namespace palimpsest
