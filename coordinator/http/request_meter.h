// What operators learn of each request: one log line and three metrics. Nothing of a client's text but its
// request id, which has passed IsRequestId.
//
// Threads: the I/O thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "proto/base/metrics.h"

namespace palimpsest::http {

class RequestMeter {
 public:
  RequestMeter(std::string listener, Metrics* metrics) : listener_(std::move(listener)), metrics_(metrics) {}

  struct Done {
    std::string_view method, route;  // the route's pattern; "none"
    int status = 0;
    int64_t bytes = 0;  // of the answer
    double seconds = 0;
    std::string_view request_id;
  };
  void OnDone(const Done& done);
  void OnConnections(int64_t open);
  void OnCut(const char* reason);  // a client that took or gave nothing for too long

 private:
  const std::string listener_;
  Metrics* const metrics_;  // may be null
  std::map<std::pair<std::string, int>, MetricCounter*> counters_;
  std::map<std::string, MetricHistogram*, std::less<>> seconds_;
};

}  // namespace palimpsest::http
