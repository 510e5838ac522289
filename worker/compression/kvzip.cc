// KVzip: a token is worth what the model needs of it to repeat the text: the highest attention that it gets
// while its part of the text is repeated, over everything that repeats it and over the query heads; all heads
// of all layers compete for one budget. Source: Kim et al., "KVzip: Query-Agnostic KV Cache Compression with
// Context Reconstruction", arXiv 2505.23416, and its code, which keeps what is strictly above a threshold,
// one token fewer than the budget at least; here the budget is met exactly, ties to the earlier token.
#include <algorithm>
#include <vector>

#include "worker/compression/policies.h"
#include "worker/compression/shares.h"
#include "worker/compression/votes.h"

namespace palimpsest {
namespace {

class KvZip : public CompressionPolicy {
 public:
  explicit KvZip(const PolicySpec& spec) : spec_(spec) {}

  PolicyNeeds needs() const override {
    return {.reduce = RowReduce::kMax,
            .repeat = spec_.chunk,
            .repeat_part = spec_.attend == PolicySpec::Attend::kPart};
  }
  void Score(const HeadInput& head, std::span<float> scores) const override {
    ReduceGroup(head, PolicySpec::Reduce::kMax, scores);
  }
  void Share(const HeadShares& of, std::span<int64_t> counts) const override {
    const int64_t stays = StayingOf(of), most = std::min(of.candidates(), of.most) - stays;
    const int64_t heads = of.layers * of.kv_heads;
    const std::vector<int64_t> won = Compete(of.scores, 0, heads * (of.budget - stays), most);
    std::transform(won.begin(), won.end(), counts.begin(), [&](int64_t count) { return stays + count; });
  }

 private:
  const PolicySpec spec_;
};

}  // namespace

std::unique_ptr<CompressionPolicy> MakeKvZip(const PolicySpec& spec) { return std::make_unique<KvZip>(spec); }

}  // namespace palimpsest
