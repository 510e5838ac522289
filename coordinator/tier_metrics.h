// What workers tell of their tiers, as metrics: levels are sums over the workers that are alive, counts go on
// when a worker comes back and counts from 0 again.
//
// Names  : palimpsest_tier_{capacity,used,waiting}_bytes, tier_values, tier_{hits,misses,evictions,dropped,
//          late_reads,damaged}_total, tier_{hit,written}_bytes_total, tier_off; label tier, of drops also
//          reason.
// Threads: any thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "proto/base/metrics.h"
#include "proto/worker.pb.h"

namespace palimpsest {

class TierMetrics {
 public:
  explicit TierMetrics(Metrics* metrics) : metrics_(metrics) {}  // may be null; outlives this

  struct Worker {
    std::string process;  // the same as long as its counts go on, however often it joins
    const proto::WorkerStatus* status;
  };
  void Set(std::span<const Worker> workers);

 private:
  // A count of this worker stands at `value` now.
  void Count(const std::string& process, const std::string& name, const std::string& help,
             const MetricLabels& labels, int64_t value);

  Metrics* const metrics_;
  std::mutex mu_;
  std::map<std::pair<std::string, MetricCounter*>, int64_t> counted_;
};

}  // namespace palimpsest
