// LOOK-M: of a prompt with images, text stays rather than image: H2O's sums, with a prior for text. What is
// merged of the rest is merging.h's. Source: Wan et al., "LOOK-M: Look-Once Optimization in KV Cache for
// Efficient Multimodal Long-Context Inference", Findings of EMNLP 2024, arXiv 2406.18139.
//         The paper adds the highest score to those of text and keeps the budget; its code keeps every text
//         token, over the budget if it must (text_prior=hard).
#include <algorithm>
#include <limits>

#include "worker/compression/policies.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class LookM : public CompressionPolicy {
 public:
  explicit LookM(const PolicySpec& spec) : spec_(spec) {}

  PolicyNeeds needs() const override { return {.sums = true}; }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    constexpr float kStays = std::numeric_limits<float>::infinity();
    ReduceRows(head.sums, head.sums_stride, head.group, PolicySpec::Reduce::kMean, scores);
    if (spec_.text_prior == PolicySpec::TextPrior::kNone) {
      for (size_t i = 0; i < scores.size() && head.tokens[i] < PolicySpec::kLookMSinks; ++i)
        scores[i] = kStays;
    } else if (!spec_.images.empty()) {  // without an image there is no text beside it
      const bool hard = spec_.text_prior == PolicySpec::TextPrior::kHard;
      const float prior = hard || scores.empty() ? kStays : *std::max_element(scores.begin(), scores.end());
      for (size_t i = 0; i < scores.size(); ++i) {
        if (!OfImage(head.tokens[i])) scores[i] += prior;
      }
    }
    KeepLast(head, spec_.recent, scores);
  }

 private:
  bool OfImage(int32_t token) const {
    const auto after =
        std::upper_bound(spec_.images.begin(), spec_.images.end(), int64_t{token},
                         [](int64_t t, const PolicySpec::Image& image) { return t < image.first; });
    return after != spec_.images.begin() && token < (after - 1)->end;
  }

  const PolicySpec spec_;  // images by their place in the prompt
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeLookM(const PolicySpec& spec) { return std::make_unique<LookM>(spec); }

}  // namespace palimpsest
