// Numbers for operators, in Prometheus' text form. Names begin with "palimpsest_"; seconds and bytes;
// counters end in _total. Labels come from small fixed sets: never from a client's text (I-18).
//
// Handles are cheap to keep and to call: keep them, do not look them up for each event.
// Threads: any thread. The registry outlives its handles.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace palimpsest {

using MetricLabels = std::map<std::string, std::string>;

class MetricCounter {
 public:
  virtual ~MetricCounter() = default;
  virtual void Add(double value = 1) = 0;
};
class MetricGauge {
 public:
  virtual ~MetricGauge() = default;
  virtual void Set(double value) = 0;
};
class MetricHistogram {
 public:
  virtual ~MetricHistogram() = default;
  virtual void Observe(double value) = 0;
};

class Metrics {
 public:
  static std::unique_ptr<Metrics> Create();
  virtual ~Metrics() = default;
  // The same name and labels give the same handle. The first call's help and buckets count.
  virtual MetricCounter& Counter(const std::string& name, const std::string& help,
                                 const MetricLabels& labels = {}) = 0;
  virtual MetricGauge& Gauge(const std::string& name, const std::string& help,
                             const MetricLabels& labels = {}) = 0;
  virtual MetricHistogram& Histogram(const std::string& name, const std::string& help,
                                     const std::vector<double>& buckets, const MetricLabels& labels = {}) = 0;
  // Called before each Text(): sets gauges that mirror a state.
  virtual void OnCollect(std::function<void()> collect) = 0;
  virtual std::string Text() = 0;
};

// Bounds of histograms, seconds: first token up to 2,560 (prompts of millions of tokens), between tokens,
// whole requests.
const std::vector<double>& FirstTokenBuckets();
const std::vector<double>& TokenGapBuckets();
const std::vector<double>& RequestBuckets();

}  // namespace palimpsest
