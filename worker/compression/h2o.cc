// H2O: the heavy hitters, tokens that all queries together attended to most, and the last tokens. Source:
// Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
// NeurIPS 2023, arXiv 2306.14048.
//         A sum favours early tokens, which more queries see; normalize=queries divides by how many, as
//         kvpress does.
#include <algorithm>
#include <limits>

#include "worker/compression/policies.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class H2o : public CompressionPolicy {
 public:
  explicit H2o(const PolicySpec& spec) : spec_(spec) {}

  PolicyNeeds needs() const override { return {.sums = true}; }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    ReduceRows(head.sums, head.sums_stride, head.group, spec_.reduce, scores);
    if (spec_.normalize == PolicySpec::Normalize::kQueries) {
      for (size_t i = 0; i < scores.size(); ++i) scores[i] /= head.seen_by[i];
    }
    KeepLast(head, spec_.recent, scores);
  }

 private:
  const PolicySpec spec_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeH2o(const PolicySpec& spec) { return std::make_unique<H2o>(spec); }

}  // namespace palimpsest
