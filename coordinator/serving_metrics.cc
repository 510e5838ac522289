#include "coordinator/serving_metrics.h"

#include <utility>

namespace palimpsest {
namespace {

const std::string kPrefix = "palimpsest_";

void Add(MetricCounter* counter, double value) {
  if (counter != nullptr) counter->Add(value);
}
void Set(MetricGauge* gauge, double value) {
  if (gauge != nullptr) gauge->Set(value);
}
void Observe(MetricHistogram* histogram, double value) {
  if (histogram != nullptr) histogram->Observe(value);
}

}  // namespace

MetricCounter* ServingMetrics::Counter(const std::string& name, const std::string& help,
                                       const MetricLabels& labels) {
  return &metrics_->Counter(kPrefix + name, help, labels);
}
MetricGauge* ServingMetrics::Gauge(const std::string& name, const std::string& help) {
  return &metrics_->Gauge(kPrefix + name, help);
}
MetricHistogram* ServingMetrics::Histogram(const std::string& name, const std::string& help,
                                           const std::vector<double>& buckets) {
  return &metrics_->Histogram(kPrefix + name, help, buckets);
}

ServingMetrics::ServingMetrics(Metrics* metrics) : metrics_(metrics) {
  if (metrics == nullptr) return;
  for (const auto& [why, reason] : {std::pair(Refused::kQueue, "queue"),
                                    {Refused::kTokens, "tokens"},
                                    {Refused::kWait, "wait"},
                                    {Refused::kTooLarge, "too_large"},
                                    {Refused::kInvalid, "invalid"},
                                    {Refused::kDraining, "draining"}}) {
    refused_[why] =
        Counter("requests_refused_total", "Requests that were not run, by why.", {{"reason", reason}});
  }
  for (const auto& [how, reason] : {std::pair(Finish::kStop, "stop"),
                                    {Finish::kLength, "length"},
                                    {Finish::kAbort, "abort"},
                                    {Finish::kError, "error"}}) {
    finished_[how] =
        Counter("request_success_total", "Answers that ended, by how: abort is a client that left.",
                {{"finished_reason", reason}});
  }
  prompt_tokens_ = Counter("prompt_tokens_total", "Prompt tokens of finished answers, cached ones too.");
  constexpr std::array<const char*, 3> kTiers = {"device", "host", "ssd"};
  for (size_t i = 0; i < kTiers.size(); ++i) {
    const MetricLabels tier = {{"tier", kTiers[i]}};
    cached_tokens_[i] = Counter("cached_tokens_total", "Prompt tokens whose KV was found, by tier.", tier);
    recalled_slices_[i] = Counter("recalled_slices_total",
                                  "Slices that questions brought back, by where they came from.", tier);
    recalled_bytes_[i] = Counter("recalled_bytes_total", "Bytes that were read for them.", tier);
  }
  recomputed_tokens_ = Counter("recomputed_tokens_total",
                               "Tokens of known documents whose KV was gone and was computed again.");
  declined_tokens_ = Counter("declined_tokens_total",
                             "Tokens that a tier held and were computed, as loading them would take longer.");
  degraded_ = Counter("degraded_answers_total", "Answers whose receipt tells of a fallback.");
  cache_queries_ =
      Counter("prefix_cache_queries_total", "Prompt tokens that were looked for among kept blocks.");
  cache_hits_ = Counter("prefix_cache_hits_total", "Of them, tokens that were found.");
  generation_tokens_ = Counter("generation_tokens_total", "Tokens of finished answers.");
  failovers_ = Counter("failovers_total", "Times that a worker broke off and another one went on.");
  running_ = Gauge("num_requests_running", "Requests that were let in.");
  waiting_ = Gauge("num_requests_waiting", "Requests in the queue.");
  ingesting_ = Gauge("num_documents_ingesting", "Documents that are ingested or wait for it.");
  workers_ = Gauge("workers", "Workers that are alive and not leaving.");
  joins_ = Counter("worker_joins_total", "Workers that ever joined, each time they came back too.");
  kv_used_ = Gauge("kv_cache_usage_ratio", "Share of the workers' device memory for KV that is held.");
  first_token_ = Histogram("time_to_first_token_seconds", "From a request's arrival.", FirstTokenBuckets());
  token_gap_ =
      Histogram("inter_token_latency_seconds", "Between two tokens of an answer.", TokenGapBuckets());
  request_ = Histogram("e2e_request_latency_seconds", "From arrival to end.", RequestBuckets());
  queue_ = Histogram("request_queue_time_seconds", "From arrival to being let in.", RequestBuckets());
  prefill_ = Histogram("request_prefill_time_seconds", "Reading the prompt.", RequestBuckets());
  decode_ = Histogram("request_decode_time_seconds", "Writing the answer.", RequestBuckets());
}

void ServingMetrics::CountRefused(Refused why) {
  if (metrics_ != nullptr) refused_.at(why)->Add();
}

void ServingMetrics::CountFailover() { Add(failovers_, 1); }

void ServingMetrics::CountFinished(Finish how) {
  if (metrics_ != nullptr) finished_.at(how)->Add();
}

void ServingMetrics::ObserveDone(const proto::DoneEvent& done) {
  const auto prompt = static_cast<double>(done.usage().prompt_tokens());
  const auto cached = static_cast<double>(done.usage().cached_tokens());
  Add(prompt_tokens_, prompt);
  Add(cache_queries_, prompt);
  const proto::Receipt& receipt = done.receipt();
  const auto& tokens = receipt.cached_tokens();
  const auto& recalled = receipt.recalled();
  const std::array<int64_t, 3> by_tier = {tokens.device(), tokens.host(), tokens.ssd()};
  const std::array<const proto::Recalled*, 3> slices = {&recalled.device(), &recalled.host(),
                                                        &recalled.ssd()};
  for (size_t i = 0; i < by_tier.size(); ++i) {
    Add(cached_tokens_[i], static_cast<double>(by_tier[i]));
    Add(recalled_slices_[i], static_cast<double>(slices[i]->slices()));
    Add(recalled_bytes_[i], static_cast<double>(slices[i]->bytes()));
  }
  Add(recomputed_tokens_, static_cast<double>(receipt.recomputed_tokens()));
  Add(declined_tokens_, static_cast<double>(receipt.load_price().declined_tokens()));
  if (!receipt.degraded().empty()) Add(degraded_, 1);
  Add(cache_hits_, cached);
  Add(generation_tokens_, static_cast<double>(done.usage().completion_tokens()));
  Observe(prefill_, receipt.seconds().prefill());
  Observe(decode_, receipt.seconds().decode());
}

void ServingMetrics::ObserveQueue(double seconds) { Observe(queue_, seconds); }
void ServingMetrics::ObserveFirstToken(double seconds) { Observe(first_token_, seconds); }
void ServingMetrics::ObserveGap(double seconds) { Observe(token_gap_, seconds); }
void ServingMetrics::ObserveRequest(double seconds) { Observe(request_, seconds); }

void ServingMetrics::SetState(const State& state) {
  Set(running_, static_cast<double>(state.running));
  Set(waiting_, static_cast<double>(state.waiting));
  Set(ingesting_, static_cast<double>(state.ingesting));
  Set(workers_, static_cast<double>(state.workers));
  Add(joins_, static_cast<double>(state.joins - joins_counted_.exchange(state.joins)));
  Set(kv_used_, state.kv_used);
}

}  // namespace palimpsest
