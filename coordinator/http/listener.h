// The listening socket and the thread that accepts from it. Plain POSIX.
//
// Errors : Open: InvalidArgument: no such address. Unavailable: the port is in use. PermissionDenied. All
//          name the setting and what to do.
// Threads: any thread; the callbacks come from the listener's.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace palimpsest::http {

class Listener {
 public:
  // `setting`: "server.port"; `host_setting` and `port_setting` are named in errors.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(const std::string& host, int64_t port,
                                                        const std::string& host_setting,
                                                        const std::string& port_setting);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  bool loopback() const { return loopback_; }
  int64_t port() const { return port_; }

  // `accept` owns the descriptor it gets; `tick` comes once a second. Returns at once.
  using Accept = std::function<void(int fd, bool ipv6, std::string client)>;
  void Run(Accept accept, std::function<void()> tick);
  void Stop();  // closes the port, waits for a callback that runs

 private:
  Listener(int fd, int wake_fd, bool ipv6, bool loopback, int64_t port)
      : fd_(fd), wake_fd_(wake_fd), ipv6_(ipv6), loopback_(loopback), port_(port) {}
  void Loop(const Accept& accept, const std::function<void()>& tick);
  void AcceptAll(const Accept& accept);

  int fd_;
  const int wake_fd_;
  const bool ipv6_, loopback_;
  const int64_t port_;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

// Options of a client's socket: no delay, a dead peer noticed within a minute, little left in the kernel.
void SetClientOptions(int fd);
// Says 503 to a client for whom there is no place, since so many connections are open, and closes.
void TurnAway(int fd, int64_t connections_max);

}  // namespace palimpsest::http
