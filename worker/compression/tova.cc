// TOVA: what the last token attends to, mean of all heads of a layer; they keep the same tokens. Source: Oren
// et al., "Transformers are Multi-State RNNs", EMNLP 2024, arXiv 2401.06104.
//         There the newest token may go like any other (last=free); kvpress keeps it.
#include <limits>

#include "worker/compression/policies.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class Tova : public CompressionPolicy {
 public:
  explicit Tova(PolicySpec::Last last) : last_(last) {}

  PolicyNeeds needs() const override { return {.window = 1, .reduce = RowReduce::kSum, .layer_wide = true}; }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    ReduceGroup(head, PolicySpec::Reduce::kMean, scores);
    if (last_ == PolicySpec::Last::kStays) KeepLast(head, {1}, scores);
  }

 private:
  const PolicySpec::Last last_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeTova(const PolicySpec& spec) {
  return std::make_unique<Tova>(spec.last);
}

}  // namespace palimpsest
