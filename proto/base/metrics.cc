#include "proto/base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <mutex>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

class CounterHandle final : public MetricCounter {
 public:
  explicit CounterHandle(prometheus::Counter& counter) : counter_(counter) {}
  void Add(double value) override { counter_.Increment(value); }

 private:
  prometheus::Counter& counter_;
};

class GaugeHandle final : public MetricGauge {
 public:
  explicit GaugeHandle(prometheus::Gauge& gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_.Set(value); }

 private:
  prometheus::Gauge& gauge_;
};

class HistogramHandle final : public MetricHistogram {
 public:
  explicit HistogramHandle(prometheus::Histogram& histogram) : histogram_(histogram) {}
  void Observe(double value) override { histogram_.Observe(value); }

 private:
  prometheus::Histogram& histogram_;
};

using Key = std::pair<std::string, MetricLabels>;

class PrometheusMetrics final : public Metrics {
 public:
  MetricCounter& Counter(const std::string& name, const std::string& help,
                         const MetricLabels& labels) override {
    return Handle<CounterHandle>(counters_, name, labels, [&]() -> prometheus::Counter& {
      return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels);
    });
  }

  MetricGauge& Gauge(const std::string& name, const std::string& help, const MetricLabels& labels) override {
    return Handle<GaugeHandle>(gauges_, name, labels, [&]() -> prometheus::Gauge& {
      return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels);
    });
  }

  MetricHistogram& Histogram(const std::string& name, const std::string& help,
                             const std::vector<double>& buckets, const MetricLabels& labels) override {
    return Handle<HistogramHandle>(histograms_, name, labels, [&]() -> prometheus::Histogram& {
      const std::vector<double>& all = buckets_.emplace(name, buckets).first->second;
      return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(labels, all);
    });
  }

  void OnCollect(std::function<void()> collect) override {
    std::lock_guard<std::mutex> lock(mu_);
    collects_.push_back(std::move(collect));
  }

  std::string Text() override {
    std::vector<std::function<void()>> collects;
    {
      std::lock_guard<std::mutex> lock(mu_);
      collects = collects_;
    }
    for (const auto& collect : collects) collect();  // without the lock: they take handles
    return prometheus::TextSerializer().Serialize(registry_.Collect());
  }

 private:
  // The library throws where a name is no metric's name or has two types: our own bug, never a client's.
  template <typename H, typename Make>
  H& Handle(std::map<Key, std::unique_ptr<H>>& handles, const std::string& name, const MetricLabels& labels,
            const Make& make) {
    std::lock_guard<std::mutex> lock(mu_);
    std::unique_ptr<H>& handle = handles[{name, labels}];
    if (handle != nullptr) return *handle;
    PALIMPSEST_CHECK(name.starts_with("palimpsest_"), "metric {}", name);
    try {
      handle = std::make_unique<H>(make());
    } catch (const std::exception& error) {
      PALIMPSEST_CHECK(false, "metric {}: {}", name, error.what());
    }
    return *handle;
  }

  prometheus::Registry registry_;  // has its own locks
  std::mutex mu_;
  std::map<Key, std::unique_ptr<CounterHandle>> counters_;  // guarded by mu_, as all below
  std::map<Key, std::unique_ptr<GaugeHandle>> gauges_;
  std::map<Key, std::unique_ptr<HistogramHandle>> histograms_;
  std::map<std::string, std::vector<double>> buckets_;  // of the first call for a name
  std::vector<std::function<void()>> collects_;
};

}  // namespace

std::unique_ptr<Metrics> Metrics::Create() { return std::make_unique<PrometheusMetrics>(); }

const std::vector<double>& FirstTokenBuckets() {
  static const std::vector<double> buckets = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,   2,    5,
                                              10,   20,   40,   80,  160, 320, 640, 1280, 2560};
  return buckets;
}

const std::vector<double>& TokenGapBuckets() {
  static const std::vector<double> buckets = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                              0.5,   1,     2,     5,    10,   20,   40,  80};
  return buckets;
}

const std::vector<double>& RequestBuckets() {
  static const std::vector<double> buckets = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,    2,    5,
                                              10,    20,   40,   80,   160, 320, 640, 1280, 2560, 7680};
  return buckets;
}

}  // namespace palimpsest
