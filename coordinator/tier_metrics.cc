#include "coordinator/tier_metrics.h"

#include <algorithm>

namespace palimpsest {
namespace {

constexpr const char* kTiers[] = {"host", "ssd"};

constexpr size_t kCountedMax = 10'000;

struct Levels {
  int64_t capacity = 0, used = 0, values = 0;
};

}  // namespace

void TierMetrics::Count(const std::string& process, const std::string& name, const std::string& help,
                        const MetricLabels& labels, int64_t value) {
  MetricCounter& counter = metrics_->Counter("palimpsest_" + name, help, labels);
  int64_t& counted = counted_[{process, &counter}];
  if (value > counted) counter.Add(static_cast<double>(value - counted));
  counted = std::max(counted, value);
}

void TierMetrics::Set(std::span<const Worker> workers) {
  if (metrics_ == nullptr) return;
  const std::lock_guard lock(mu_);
  // One that is gone may join again and go on counting: it is forgotten when many are gone.
  if (counted_.size() > kCountedMax) {
    std::erase_if(counted_, [&](const auto& entry) {
      return std::none_of(workers.begin(), workers.end(),
                          [&](const Worker& worker) { return worker.process == entry.first.first; });
    });
  }
  std::map<std::string, Levels> levels;
  int64_t waiting = 0, off = 0;
  for (const Worker& worker : workers) {
    const proto::WorkerStatus& status = *worker.status;
    const auto count = [&](const char* name, const char* help, const MetricLabels& labels, int64_t value) {
      Count(worker.process, name, help, labels, value);
    };
    for (const proto::TierStatus& tier : status.tiers()) {
      // Labels come from this list, not from whatever a worker says.
      if (std::none_of(std::begin(kTiers), std::end(kTiers),
                       [&](const char* name) { return tier.name() == name; }))
        continue;
      Levels& sum = levels[tier.name()];
      sum.capacity += tier.capacity_bytes();
      sum.used += tier.used_bytes();
      sum.values += tier.values();
      const MetricLabels labels = {{"tier", tier.name()}};
      count("tier_hits_total", "Reads that a tier answered, of values or of single tiles.", labels,
            tier.hits());
      count("tier_misses_total", "Reads that a tier was asked for and did not answer.", labels,
            tier.misses());
      count("tier_hit_bytes_total", "Bytes that a tier gave.", labels, tier.hit_bytes());
      count("tier_written_bytes_total", "Bytes that a tier took.", labels, tier.written_bytes());
      count("tier_evictions_total", "Values that a tier dropped to make room.", labels, tier.evictions());
    }
    const MetricLabels ssd = {{"tier", "ssd"}};
    constexpr const char* kDropped = "Values that never reached the tier, by why.";
    count("tier_dropped_total", kDropped, {{"tier", "ssd"}, {"reason", "full"}}, status.dropped_full());
    count("tier_dropped_total", kDropped, {{"tier", "ssd"}, {"reason", "refused"}}, status.dropped_refused());
    count("tier_late_reads_total", "Reads that missed their deadline.", ssd, status.late_reads());
    count("tier_damaged_total", "Tiles of any tier that failed their checks.", {}, status.damaged());
    waiting += status.waiting_bytes();
    off += status.ssd_off() ? 1 : 0;
  }
  const auto level = [&](const char* name, const char* help, const char* tier, int64_t value) {
    metrics_->Gauge(std::string("palimpsest_") + name, help, {{"tier", tier}})
        .Set(static_cast<double>(value));
  };
  for (const char* tier : kTiers) {
    level("tier_capacity_bytes", "What a tier may hold.", tier, levels[tier].capacity);
    level("tier_used_bytes", "What a tier holds.", tier, levels[tier].used);
    level("tier_values", "Block groups, digests and picks that a tier holds.", tier, levels[tier].values);
  }
  level("tier_waiting_bytes", "Put, and not in the tier yet.", "ssd", waiting);
  level("tier_off", "Workers whose tier failed and is left alone for a while.", "ssd", off);
}

}  // namespace palimpsest
