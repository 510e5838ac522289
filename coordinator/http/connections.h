// The connections of one listener: one I/O thread that reads, parses, checks and writes, and the pool of
// handlers' threads. http_connection.cc is the file that knows Asio.
//
// Threads: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "coordinator/http/http_server.h"
#include "coordinator/http/tls.h"

namespace palimpsest::http {

class Connections {
 public:
  // `loopback`: only this machine reaches the listener.
  static std::unique_ptr<Connections> Create(HttpServer::Options options, bool loopback, Router router);
  virtual ~Connections() = default;  // Stop

  // Takes a connected socket, which it closes. `tls` null: plain.
  virtual void Adopt(int fd, bool ipv6, std::string client, std::shared_ptr<TlsContext> tls) = 0;
  virtual int64_t open() const = 0;
  virtual int64_t in_work() const = 0;  // handlers that run
  virtual void BeginDrain() = 0;        // closes idle ones; others after the answer in work
  virtual void Stop() = 0;              // closes all, waits for handlers
};

}  // namespace palimpsest::http
