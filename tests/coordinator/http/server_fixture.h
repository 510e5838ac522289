// A server with a few routes, and what its tests ask of it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "coordinator/http/http_server.h"
#include "tests/coordinator/http/client.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest::http {

// Waits, generously, for what must come soon.
bool Eventually(const std::function<bool()>& holds, double seconds = 10);
int64_t OpenDescriptors();
int64_t ResidentBytes();
// Of resident bytes; 0 under a sanitizer, which keeps what is freed.
int64_t GrowthSince(int64_t resident_bytes);

//   GET /hello           "hello"
//   GET /items/{id}      the id
//   POST /echo           the body
//   POST /upload         on disk: its size and the first bytes
//   GET /stream?parts=N  N chunks "part i\n"
//   GET /flood           chunks of 16 KiB until the client is gone
//   GET /busy            waits until the client is gone, or `release` is set
//   GET /secret          behind a key
class ServerTest : public ::testing::Test {
 protected:
  ServerTest();
  ~ServerTest() override;
  void Start();  // with `options`, which a test may change first
  Client Connect() { return Client(server->port()); }

  TemporaryFolder folder;
  std::unique_ptr<Metrics> metrics = Metrics::Create();
  HttpServer::Options options;
  std::unique_ptr<HttpServer> server;
  std::atomic<bool> release{false};
  std::atomic<int> working{0}, gone{0}, calls{0};
  std::atomic<int64_t> flooded_bytes{0};

 private:
  Router MakeRouter();
};

}  // namespace palimpsest::http
