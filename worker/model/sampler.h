// Chooses the next token from logits.
//
// Order  : repetition penalty, temperature, top-k, top-p, min-p, draw. Temperature 0 is greedy: the best
//          token, ties to the lower id (after the penalty). Equal probabilities are ordered by id, so
//          results never depend on a sort.
// Random : counter-based: draw i of seed s is the same number whoever else is served (proto/base/rng.h).
// Errors : InvalidArgument names the parameter, its value and the range.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "proto/types.pb.h"

namespace palimpsest {

absl::Status CheckSampling(const proto::Sampling& sampling);

class Sampler {
 public:
  // `seen`: tokens of the prompt, for the repetition penalty; kept as a set.
  Sampler(const proto::Sampling& sampling, int64_t vocabulary, std::span<const int32_t> seen);

  // The token at step `index` of the answer (0, 1, ...), which also becomes seen.
  int32_t Next(std::span<const float> logits, int64_t index);

 private:
  float Penalised(float logit, size_t id) const;
  int32_t Best(std::span<const float> logits) const;
  int32_t Drawn(std::span<const float> logits, int64_t index);
  int32_t Draw(double u);

  const double temperature_, top_p_, min_p_, penalty_;
  const int64_t top_k_;
  const uint64_t seed_;
  std::vector<bool> seen_;  // (vocabulary)
  struct Candidate {
    float logit;
    int32_t id;
  };
  std::vector<Candidate> candidates_;  // (vocabulary), reused
  std::vector<double> weights_;
};

// Log-probabilities of all tokens, in float64: log(exp(logit) / sum of all exp(logit)).
class LogSoftmax {
 public:
  explicit LogSoftmax(std::span<const float> logits);
  double Of(float logit) const { return static_cast<double>(logit) - best_ - log_total_; }

 private:
  double best_ = 0;       // the largest logit
  double log_total_ = 0;  // of exp(logit - best_)
};

// The `n` best tokens: id, logit, log-probability; best first, ties to the lower id.
struct TopToken {
  int32_t id;
  float logit;
  double log_probability;
};
std::vector<TopToken> TopTokens(std::span<const float> logits, int64_t n);

}  // namespace palimpsest
