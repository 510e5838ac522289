#include "coordinator/http/request_meter.h"

#include "proto/base/log.h"

namespace palimpsest::http {
namespace {

// A method is a client's text until it is one of these.
std::string_view KnownMethod(std::string_view method) {
  for (const std::string_view known : {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
    if (method == known) return known;
  }
  return "other";
}

}  // namespace

void RequestMeter::OnDone(const Done& done) {
  PALIMPSEST_LOG(kInfo, "{} {} {} status {} bytes {} ms {:.1f} request {}", LogName(listener_),
                 LogName(KnownMethod(done.method)), LogName(done.route), done.status, done.bytes,
                 done.seconds * 1e3, LogName(done.request_id));
  if (metrics_ == nullptr) return;
  const std::string route(done.route);
  MetricCounter*& counter = counters_[{route, done.status}];
  if (counter == nullptr) {
    counter = &metrics_->Counter(
        "palimpsest_http_requests_total", "HTTP requests that were answered",
        {{"listener", listener_}, {"route", route}, {"code", std::to_string(done.status)}});
  }
  counter->Add(1);
  MetricHistogram*& seconds = seconds_[route];
  if (seconds == nullptr) {
    seconds = &metrics_->Histogram("palimpsest_http_request_seconds",
                                   "From the head of a request to the last byte of its answer",
                                   RequestBuckets(), {{"listener", listener_}, {"route", route}});
  }
  seconds->Observe(done.seconds);
}

void RequestMeter::OnConnections(int64_t open) {
  if (metrics_ == nullptr) return;
  metrics_->Gauge("palimpsest_http_connections", "Clients connected", {{"listener", listener_}})
      .Set(static_cast<double>(open));
}

void RequestMeter::OnCut(const char* reason) {
  PALIMPSEST_LOG(kInfo, "{} cut a client: {}", LogName(listener_), LogName(reason));
  if (metrics_ == nullptr) return;
  metrics_
      ->Counter("palimpsest_http_cut_total", "Clients cut for taking or sending nothing",
                {{"listener", listener_}, {"reason", reason}})
      .Add(1);
}

}  // namespace palimpsest::http
