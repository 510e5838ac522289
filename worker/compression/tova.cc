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

  PolicyNeeds needs() const override { return {.window = 1, .reduce = RowReduce::kSum}; }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    ReduceGroup(head, PolicySpec::Reduce::kMean, scores);
    if (last_ == PolicySpec::Last::kStays) KeepLast(head, {1}, scores);
  }
  void Agree(std::span<std::vector<float>> heads) const override {
    std::vector<float>& mean = heads.front();
    for (size_t i = 0; i < mean.size(); ++i) {
      for (const std::vector<float>& other : heads.subspan(1)) mean[i] += other[i];
      mean[i] /= static_cast<float>(heads.size());
    }
    for (std::vector<float>& other : heads.subspan(1)) other = mean;
  }

 private:
  const PolicySpec::Last last_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeTova(const PolicySpec& spec) {
  return std::make_unique<Tova>(spec.last);
}

}  // namespace palimpsest
