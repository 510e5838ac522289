// What the coordinator counts, under the names that dashboards of other servers know (prefix palimpsest_).
// Each handle is looked up once. Without a Metrics nothing is counted. Threads: any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "proto/base/metrics.h"
#include "proto/worker.pb.h"

namespace palimpsest {

class ServingMetrics {
 public:
  explicit ServingMetrics(Metrics* metrics);  // may be null; outlives this

  enum class Refused { kQueue, kTokens, kWait, kTooLarge, kInvalid, kDraining };
  enum class Finish { kStop, kLength, kAbort, kError };

  void CountRefused(Refused why);
  void CountFailover();
  void CountFinished(Finish how);
  void ObserveDone(const proto::DoneEvent& done);  // tokens and the worker's seconds, of one choice
  void ObserveQueue(double seconds);
  void ObserveFirstToken(double seconds);
  void ObserveGap(double seconds);  // between two tokens
  void ObserveRequest(double seconds);

  struct State {
    int64_t running = 0, waiting = 0, ingesting = 0, workers = 0, joins = 0;
    double kv_used = 0;  // share of the arenas
  };
  void SetState(const State& state);

 private:
  MetricCounter* Counter(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  MetricGauge* Gauge(const std::string& name, const std::string& help);
  MetricHistogram* Histogram(const std::string& name, const std::string& help,
                             const std::vector<double>& buckets);

  Metrics* const metrics_;
  std::atomic<int64_t> joins_counted_{0};
  std::map<Refused, MetricCounter*> refused_;
  std::map<Finish, MetricCounter*> finished_;
  MetricCounter* prompt_tokens_ = nullptr;
  std::array<MetricCounter*, 3> cached_tokens_{};                       // device, host, ssd
  std::array<MetricCounter*, 3> recalled_slices_{}, recalled_bytes_{};  // the same
  MetricCounter* recomputed_tokens_ = nullptr;
  MetricCounter* declined_tokens_ = nullptr;
  MetricCounter* degraded_ = nullptr;
  MetricCounter* cache_queries_ = nullptr;
  MetricCounter* cache_hits_ = nullptr;
  MetricCounter* generation_tokens_ = nullptr;
  MetricCounter* failovers_ = nullptr;
  MetricCounter* joins_ = nullptr;
  MetricGauge* running_ = nullptr;
  MetricGauge* waiting_ = nullptr;
  MetricGauge* ingesting_ = nullptr;
  MetricGauge* workers_ = nullptr;
  MetricGauge* kv_used_ = nullptr;
  MetricHistogram* first_token_ = nullptr;
  MetricHistogram* token_gap_ = nullptr;
  MetricHistogram* request_ = nullptr;
  MetricHistogram* queue_ = nullptr;
  MetricHistogram* prefill_ = nullptr;
  MetricHistogram* decode_ = nullptr;
};

}  // namespace palimpsest
