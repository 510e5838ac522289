// ChunkKV: whole chunks of consecutive tokens stay or go, so that what is said together is kept together; a
// chunk's score is the mean of its tokens' SnapKV scores, summed over the heads of the layer, which keep the
// same chunks. Source: Liu et al., "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient
// Long-Context LLM Inference", arXiv 2502.00299; the sum over heads as in kvpress. The budget is met exactly:
// of the last chunk its first tokens stay.
#include <algorithm>
#include <cmath>

#include "worker/compression/policies.h"

namespace palimpsest {
namespace {

class ChunkKv : public CompressionPolicy {
 public:
  explicit ChunkKv(const PolicySpec& spec) : votes_(MakeSnapKv(spec)), chunk_(spec.chunk) {}

  PolicyNeeds needs() const override { return votes_->needs(); }
  void Score(const HeadInput& head, std::span<float> scores) const override { votes_->Score(head, scores); }

  void Agree(std::span<std::vector<float>> heads) const override {
    const std::vector<float>& some = heads.front();
    int64_t voted = std::ssize(some);  // the window behind it stays anyway and is in no chunk
    while (voted > 0 && std::isinf(some[voted - 1]) && some[voted - 1] > 0) --voted;
    for (int64_t first = 0; first < voted; first += chunk_) {
      const int64_t tokens = std::min(chunk_, voted - first);
      float score = 0;
      for (const std::vector<float>& head : heads) {
        float sum = 0;
        for (int64_t i = first; i < first + tokens; ++i) sum += head[i];
        score += sum / static_cast<float>(tokens);
      }
      for (std::vector<float>& head : heads) std::fill_n(head.begin() + first, tokens, score);
    }
  }

 private:
  const std::unique_ptr<CompressionPolicy> votes_;
  const int64_t chunk_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeChunkKv(const PolicySpec& spec) {
  return std::make_unique<ChunkKv>(spec);
}

}  // namespace palimpsest
