#include "worker/model/sampler.h"

#include <algorithm>
#include <cmath>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "text/tokenizer.h"

namespace palimpsest {

absl::Status CheckSampling(const proto::Sampling& s) {
  const auto range = [](const char* name, double value, double low, double high) -> absl::Status {
    if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
    return InvalidArgument("{} is {}, expected {} to {}", name, value, low, high);
  };
  PALIMPSEST_RETURN_IF_ERROR(range("max_tokens", static_cast<double>(s.max_tokens()), 0, 1 << 24));
  PALIMPSEST_RETURN_IF_ERROR(range("temperature", s.temperature(), 0, 100));
  PALIMPSEST_RETURN_IF_ERROR(range("top_k", static_cast<double>(s.top_k()), 0, 1 << 24));
  PALIMPSEST_RETURN_IF_ERROR(range("top_p", s.top_p(), 0, 1));
  PALIMPSEST_RETURN_IF_ERROR(range("min_p", s.min_p(), 0, 1));
  PALIMPSEST_RETURN_IF_ERROR(range("repetition_penalty", s.repetition_penalty(), 0.01, 100));
  if (s.stop_size() > 16) return InvalidArgument("{} stop strings, at most 16", s.stop_size());
  for (const std::string& stop : s.stop()) {
    if (stop.empty() || stop.size() > 256) {
      return InvalidArgument("a stop string of {} bytes, expected 1 to 256", stop.size());
    }
    if (const absl::Status utf8 = CheckUtf8(stop); !utf8.ok()) {
      return InvalidArgument("a stop string is no text: {}", Message(utf8));
    }
  }
  return absl::OkStatus();
}

Sampler::Sampler(const proto::Sampling& s, int64_t vocabulary, std::span<const int32_t> seen)
    : temperature_(s.temperature()),
      top_p_(s.top_p()),
      min_p_(s.min_p()),
      penalty_(s.repetition_penalty()),
      top_k_(s.top_k()),
      seed_(s.seed()) {
  if (penalty_ != 1.0) {
    seen_.assign(static_cast<size_t>(vocabulary), false);
    for (const int32_t id : seen) seen_[static_cast<size_t>(id)] = true;
  }
  if (temperature_ > 0) {
    candidates_.reserve(static_cast<size_t>(vocabulary));
    weights_.reserve(static_cast<size_t>(vocabulary));
  }
}

int32_t Sampler::Next(std::span<const float> logits, int64_t index) {
  const int32_t chosen = temperature_ == 0 ? Best(logits) : Drawn(logits, index);
  if (penalty_ != 1.0) seen_[static_cast<size_t>(chosen)] = true;
  return chosen;
}

float Sampler::Penalised(float logit, size_t id) const {
  if (penalty_ == 1.0 || !seen_[id]) return logit;
  return static_cast<float>(logit > 0 ? logit / penalty_ : logit * penalty_);
}

int32_t Sampler::Best(std::span<const float> logits) const {
  size_t best = 0;
  float best_logit = Penalised(logits[0], 0);
  for (size_t id = 1; id < logits.size(); ++id) {
    const float logit = Penalised(logits[id], id);
    if (logit > best_logit) {
      best = id;
      best_logit = logit;
    }
  }
  return static_cast<int32_t>(best);
}

int32_t Sampler::Drawn(std::span<const float> logits, int64_t index) {
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    candidates_.push_back({Penalised(logits[id], id), static_cast<int32_t>(id)});
  }
  const size_t all = candidates_.size();
  const size_t keep = top_k_ > 0 ? std::min<size_t>(static_cast<size_t>(top_k_), all) : all;
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<int64_t>(keep), candidates_.end(),
                    [](const Candidate& a, const Candidate& b) {
                      return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
                    });
  candidates_.resize(keep);
  return Draw(Rng(seed_).UniformAt(static_cast<uint64_t>(index)));
}

// Candidates are sorted, best first. Weights are relative to the best, so nothing overflows.
int32_t Sampler::Draw(double u) {
  weights_.clear();
  double total = 0;
  for (const Candidate& c : candidates_) {
    const double weight = std::exp((static_cast<double>(c.logit) - candidates_.front().logit) / temperature_);
    weights_.push_back(weight);
    total += weight;
  }
  size_t keep = weights_.size();
  if (top_p_ < 1) {  // the best until they reach p; always at least one
    double sum = 0;
    for (keep = 0; keep < weights_.size() && (keep == 0 || sum < top_p_ * total); ++keep)
      sum += weights_[keep];
  }
  if (min_p_ > 0) {
    while (keep > 1 && weights_[keep - 1] < min_p_) --keep;
  }
  double kept = 0;
  for (size_t i = 0; i < keep; ++i) kept += weights_[i];
  double left = u * kept;
  for (size_t i = 0; i < keep; ++i) {
    left -= weights_[i];
    if (left < 0) return candidates_[i].id;
  }
  return candidates_[keep - 1].id;
}

LogSoftmax::LogSoftmax(std::span<const float> logits)
    : best_(logits.empty() ? 0 : *std::max_element(logits.begin(), logits.end())) {
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) - best_);
  log_total_ = std::log(total);
}

std::vector<TopToken> TopTokens(std::span<const float> logits, int64_t n) {
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const size_t keep = std::min<size_t>(static_cast<size_t>(n), order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(keep), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
                      return x > y || (x == y && a < b);
                    });
  const LogSoftmax probabilities(logits);
  std::vector<TopToken> top;
  for (size_t i = 0; i < keep; ++i) {
    const float logit = logits[static_cast<size_t>(order[i])];
    top.push_back({order[i], logit, probabilities.Of(logit)});
  }
  return top;
}

}  // namespace palimpsest
