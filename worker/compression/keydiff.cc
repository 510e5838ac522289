// KeyDiff: keys that point elsewhere than most say something that others do not; what is least like the mean
// direction stays. Source: Park et al., "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM
// Inference in Resource-Constrained Environments", arXiv 2504.15364; keys as kvpress takes them, rotated.
#include <cmath>
#include <vector>

#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t d = 0; d < n; ++d) sum += a[d] * b[d];
  return sum;
}

class KeyDiff : public CompressionPolicy {
 public:
  explicit KeyDiff(PolicySpec::Keys keys) : keys_(keys) {}

  PolicyNeeds needs() const override {
    const bool rest = keys_ == PolicySpec::Keys::kRest;
    return {.keys = rest ? PolicyNeeds::Keys::kRest : PolicyNeeds::Keys::kRotated};
  }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    const int64_t n = static_cast<int64_t>(scores.size()), size = head.head_size;
    std::vector<double> sum(size, 0.0);  // of the unit keys: its direction is the mean's
    for (int64_t i = 0; i < n; ++i) {
      const float* const key = head.keys.data() + i * size;
      const float norm = std::sqrt(Dot(key, key, size));
      // A key of no direction, or that is no number, has no say in the mean.
      if (!(norm > 0) || std::isinf(norm)) continue;
      for (int64_t d = 0; d < size; ++d) sum[d] += static_cast<double>(key[d] / norm);
    }
    std::vector<float> mean(size);
    for (int64_t d = 0; d < size; ++d) mean[d] = static_cast<float>(sum[d] / static_cast<double>(n));
    const float mean_norm = std::sqrt(Dot(mean.data(), mean.data(), size));
    for (int64_t i = 0; i < n; ++i) {
      const float* const key = head.keys.data() + i * size;
      const float norms = std::sqrt(Dot(key, key, size)) * mean_norm;
      scores[i] = norms == 0 ? 0.0f : -Dot(key, mean.data(), size) / norms;  // no direction: like none
    }
  }

 private:
  const PolicySpec::Keys keys_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeKeyDiff(const PolicySpec& spec) {
  return std::make_unique<KeyDiff>(spec.keys);
}

}  // namespace palimpsest
