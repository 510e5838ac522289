// A share of the tokens by lot, another for each layer and KV head: what any policy must beat.
#include "proto/base/rng.h"
#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

class Random : public CompressionPolicy {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}

  PolicyNeeds needs() const override { return {}; }
  // By the token's place in the prompt, so that a token's lot is the same in whatever list it stands.
  void Score(const HeadInput& head, std::span<float> scores) const override {
    const auto stream =
        static_cast<uint64_t>(head.layer) << 32 | static_cast<uint64_t>(static_cast<uint32_t>(head.kv_head));
    const Rng rng(seed_, stream);
    for (size_t i = 0; i < scores.size(); ++i) {
      const uint64_t lot = rng.At(static_cast<uint64_t>(head.tokens[i]));
      scores[i] = static_cast<float>(lot >> 40) * 0x1p-24f;  // all 24 bits of a float
    }
  }

 private:
  const uint64_t seed_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeRandom(const PolicySpec& spec) {
  return std::make_unique<Random>(spec.seed);
}

}  // namespace palimpsest
