// StreamingLLM: the first tokens, which models use as a sink for attention, and the last ones; nothing
// between. Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", ICLR 2024, arXiv
// 2309.17453.
#include <limits>

#include "worker/compression/policies.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class Streaming : public CompressionPolicy {
 public:
  Streaming(Sliding sliding, bool slides) : sliding_(sliding), slides_(slides) {}

  PolicyNeeds needs() const override { return {}; }
  // By the place in the prompt, so that spans compare and a prefix that stays anyway counts as the sink.
  void Score(const HeadInput& head, std::span<float> scores) const override {
    for (size_t i = 0; i < scores.size(); ++i) {
      const int32_t token = head.tokens[i];
      scores[i] = token < sliding_.sink ? std::numeric_limits<float>::infinity() : ScoreOfRank(token);
    }
  }
  std::optional<Sliding> sliding() const override {
    return slides_ ? std::optional<Sliding>(sliding_) : std::nullopt;
  }

 private:
  const Sliding sliding_;
  const bool slides_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeStreaming(const PolicySpec& spec, bool slides) {
  return std::make_unique<Streaming>(CompressionPolicy::Sliding{spec.sink, spec.recent}, slides);
}

}  // namespace palimpsest
