// Expected Attention: queries to come are expected to be like those of the text, as many positions on; what
// they would attend to, and whose value is large, stays. Source: Devoto et al., "Expected Attention: KV Cache
// Compression by Estimating Attention from Future Queries Distribution", arXiv 2510.00636, and kvpress.
//
// For q of mean m and covariance S, turned by the mean rotation R over the next positions:
//   E[exp(q . k / sqrt(D))] = exp(R m . k / sqrt(D) + k' R S R' k / (2 D)),
// a softmax of which over the tokens is the expected attention. Scores are its logarithms: the same order,
// and tokens that are worth nothing beside the best still differ from each other.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// (rows, D) in place: R times each row.
void TurnRows(std::span<const float> turn, int64_t size, std::span<double> rows) {
  if (turn.empty()) return;
  for (size_t row = 0; row < rows.size(); row += size) {
    for (int64_t d = 0; d + 1 < size; d += 2) {
      const double x = rows[row + d], y = rows[row + d + 1];
      const double cosine = static_cast<double>(turn[d]), sine = static_cast<double>(turn[d + 1]);
      rows[row + d] = cosine * x - sine * y;
      rows[row + d + 1] = sine * x + cosine * y;
    }
  }
}

void Transpose(int64_t size, std::span<double> matrix) {
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < i; ++j) std::swap(matrix[i * size + j], matrix[j * size + i]);
  }
}

// Four floats, which any processor adds at once; GCC takes the plain loops apart instead.
using Four = float __attribute__((vector_size(16)));
constexpr size_t kSide = 16;          // of a block of the covariance: four registers of sums
constexpr size_t kLargestHead = 256;  // as in ops.h

// k -> m . k + k' S k of a mean m and a symmetric S, of whose pairs each is multiplied once.
class Exponent {
 public:
  // mean (D); covariance (D, D), or empty: without it.
  Exponent(std::span<const double> mean, std::span<const double> covariance)
      : size_(mean.size()), linear_((size_ + kSide - 1) / kSide * kSide) {
    std::copy(mean.begin(), mean.end(), linear_.begin());
    for (size_t first = 0; first < size_ && !covariance.empty(); first += kSide) {
      for (size_t j = 0; j < first + kSide; ++j) {
        for (size_t i = first; i < first + kSide; ++i) {
          const double pair = j > i || i >= size_ ? 0 : covariance[i * size_ + j] * (j < i ? 2 : 1);
          pairs_.push_back(static_cast<float>(pair));
        }
      }
    }
  }

  // key (D)
  float Of(const float* key) const {
    float padded[kLargestHead] = {};
    std::copy_n(key, size_, padded);
    const float* pair = pairs_.data();
    Four total = {};
    for (size_t first = 0; first < linear_.size(); first += kSide) {
      Four sums[kSide / 4];
      std::memcpy(sums, linear_.data() + first, sizeof(sums));
      for (size_t j = 0; j < first + kSide && !pairs_.empty(); ++j, pair += kSide) {
        for (size_t part = 0; part < kSide / 4; ++part) sums[part] += Load(pair + part * 4) * padded[j];
      }
      for (size_t part = 0; part < kSide / 4; ++part) total += sums[part] * Load(padded + first + part * 4);
    }
    return (total[0] + total[1]) + (total[2] + total[3]);
  }

 private:
  static Four Load(const float* from) {
    Four four;
    std::memcpy(&four, from, sizeof(four));
    return four;
  }

  size_t size_;
  std::vector<float> linear_;  // (D), then zeros up to whole kSide
  // For each kSide rows i of S, for each j up to the last of them: (kSide) of S_ij and S_ji together, 0 for
  // j > i.
  std::vector<float> pairs_;
};

// logits[i] minus the logarithm of the sum of exp(logits); those that are no number have no part in it.
void LogSoftmax(std::span<double> logits) {
  double largest = kNothing, sum = 0;
  for (const double logit : logits) largest = std::isfinite(logit) ? std::max(largest, logit) : largest;
  for (const double logit : logits) sum += std::isfinite(logit) ? std::exp(logit - largest) : 0;
  for (double& logit : logits) logit -= largest + std::log(sum);
}

// log(exp(a) + exp(b))
double LogAdd(double a, double b) {
  const double largest = std::max(a, b);
  if (!std::isfinite(largest)) return largest;
  return largest + std::log1p(std::exp(std::min(a, b) - largest));
}

class Expected : public CompressionPolicy {
 public:
  explicit Expected(const PolicySpec& spec) : spec_(spec) {}

  PolicyNeeds needs() const override {
    return {.keys = PolicyNeeds::Keys::kRotated,
            .values = spec_.values,
            .future = spec_.future,
            .sink = spec_.sink};
  }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    const size_t n = scores.size();
    size_t first = 0;  // the sinks before it stay
    while (first < n && head.tokens[first] < spec_.sink) ++first;
    std::fill_n(scores.begin(), first, std::numeric_limits<float>::infinity());
    if (first == n) return;
    std::vector<double> logits(n - first), all(n - first, kNothing);
    for (int64_t g = 0; g < head.group; ++g) {
      Logits(head, g, first, logits);
      LogSoftmax(logits);
      for (size_t i = 0; i < all.size(); ++i) all[i] = g == 0 ? logits[i] : LogAdd(all[i], logits[i]);
    }
    const double heads = std::log(static_cast<double>(head.group));
    for (size_t i = 0; i < all.size(); ++i) {
      scores[first + i] = static_cast<float>(Weighted(head, first + i, all[i] - heads));
    }
  }

 private:
  // Of the tokens from `first` on, for one query head.
  void Logits(const HeadInput& head, int64_t g, size_t first, std::span<double> logits) const {
    const int64_t size = head.head_size;
    const auto mean_of = head.query_mean.subspan(g * size, size);
    std::vector<double> mean(mean_of.begin(), mean_of.end());
    TurnRows(head.mean_turn, size, mean);
    std::vector<double> covariance;
    if (spec_.covariance) {
      const auto of = head.query_covariance.subspan(g * size * size, size * size);
      covariance.assign(of.begin(), of.end());
      TurnRows(head.mean_turn, size, covariance);  // S R', S being symmetric
      Transpose(size, covariance);
      TurnRows(head.mean_turn, size, covariance);
    }
    for (double& number : mean) number /= std::sqrt(static_cast<double>(size));
    for (double& number : covariance) number /= 2 * static_cast<double>(size);
    const Exponent exponent(mean, covariance);
    for (size_t i = 0; i < logits.size(); ++i) {
      logits[i] = static_cast<double>(exponent.Of(head.keys.data() + (first + i) * size));
    }
  }

  // log((exp(attention) + epsilon) * norm of the value)
  double Weighted(const HeadInput& head, size_t token, double attention) const {
    if (!spec_.values) return attention;
    if (spec_.epsilon > 0) attention = LogAdd(attention, std::log(spec_.epsilon));
    const float* const value = head.values.data() + token * head.head_size;
    double sum = 0;
    for (int64_t d = 0; d < head.head_size; ++d) {
      sum += static_cast<double>(value[d]) * static_cast<double>(value[d]);
    }
    return attention + std::log(sum) / 2;
  }

  const PolicySpec spec_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeExpected(const PolicySpec& spec) {
  return std::make_unique<Expected>(spec);
}

}  // namespace palimpsest
