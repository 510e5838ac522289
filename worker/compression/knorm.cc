// Knorm: keys of small norm are those that attention likes; what has the smallest stays. Source: Devoto et
// al., "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", EMNLP 2024, arXiv 2406.11430
// (which leaves the first layers whole; here, as in kvpress, all layers are alike).
#include <cmath>

#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

class Knorm : public CompressionPolicy {
 public:
  // Rotation keeps norms; the rotated key is the one that is there without work.
  PolicyNeeds needs() const override { return {.keys = PolicyNeeds::Keys::kRotated}; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    const float* key = head.keys.data();
    for (size_t i = 0; i < scores.size(); ++i, key += head.head_size) {
      float sum = 0;
      for (int64_t d = 0; d < head.head_size; ++d) sum += key[d] * key[d];
      scores[i] = -std::sqrt(sum);
    }
  }
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeKnorm(const PolicySpec& /*spec*/) { return std::make_unique<Knorm>(); }

}  // namespace palimpsest
