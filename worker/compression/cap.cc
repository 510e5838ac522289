// CaP, InfiniPot's distiller: a short prompt, the catalyst, is run after what is in the pot and forgotten
// again; what it attends to stays. Source: Kim et al., "InfiniPot: Infinite Context Processing on
// Memory-Constrained LLMs", EMNLP 2024, arXiv 2410.01518.
//         How query heads share a KV head is not said there: mean of sums; max of max as in the authors'
//         later code.
#include "worker/compression/policies.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class Cap : public CompressionPolicy {
 public:
  explicit Cap(PolicySpec::Reduce reduce) : reduce_(reduce) {}

  PolicyNeeds needs() const override {
    const bool max = reduce_ == PolicySpec::Reduce::kMax;
    return {.catalyst = true, .reduce = max ? RowReduce::kMax : RowReduce::kSum};
  }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    ReduceGroup(head, reduce_, scores);
  }

 private:
  const PolicySpec::Reduce reduce_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeCap(const PolicySpec& spec) {
  return std::make_unique<Cap>(spec.reduce);
}

}  // namespace palimpsest
