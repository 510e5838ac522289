// An HTTP/1.1 server on Boost.Beast: one listener, one or two I/O threads, a handler thread for each request
// in work.
//
// Limits (robustness.md 6.3): headers 16 KiB and 100, 5 s to send them, body 8 MiB in memory or
// document_bytes on disk, 10 s without a byte of body or with less than 10 KiB of it, so many connections and
// requests in work, 256 KiB unsent for a connection and 30 s without progress before it is cut. All of them
// in Config (server.*, limits.*). What is over a limit is refused before it is buffered.
// Errors : Start: InvalidArgument: a non-loopback address without keys and without server.insecure; TLS
//          files missing or wrong. Unavailable: the port is in use. All name the key and what to do.
// Threads: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/http/api_keys.h"
#include "coordinator/http/http.h"
#include "proto/base/clock.h"
#include "proto/base/config.h"
#include "proto/base/metrics.h"

namespace palimpsest::http {

class HttpServer {
 public:
  struct Options {
    std::string name;           // "api" or "admin", for logs and metrics
    std::string host;           // address to listen on
    int64_t port = 0;           // 0: any
    Config config;              // server.*, limits.*
    ApiKeys* keys = nullptr;    // null: all routes are open, but not to other sites' pages; refreshed
                                // once a second
    bool tls = true;            // with server.tls_certificate; false: HTTP all the same (admin)
    std::string upload_folder;  // for Body::kFile; 0700
    Metrics* metrics = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options, Router router);
  virtual ~HttpServer() = default;  // Stop

  virtual int64_t port() const = 0;  // the one it got
  struct Counts {
    int64_t connections = 0, in_work = 0;
  };
  virtual Counts counts() const = 0;
  // Accepts nothing new, lets answers in work end, then closes; after `limit` closes all the same: true if
  // nothing was cut.
  virtual bool Drain(Duration limit) = 0;
  virtual void Stop() = 0;
};

}  // namespace palimpsest::http
