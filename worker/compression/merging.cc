#include "worker/compression/merging.h"

#include <algorithm>
#include <cmath>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using Merge = PolicySpec::Merge;

float Length(const Bf16* x, int64_t head_size) {
  float sum = 0;
  for (int64_t d = 0; d < head_size; ++d) sum += Bf16ToFloat(x[d]) * Bf16ToFloat(x[d]);
  return std::sqrt(sum);
}

// Which token that stays each of those that go joins, and how alike they are.
struct Matches {
  std::vector<int32_t> best;
  std::vector<float> similarity;
};

// A head while tokens join.
class HeadMerge {
 public:
  HeadMerge(Merge merge, int64_t head_size, const MergeHead& head)
      : merge_(merge),
        head_size_(head_size),
        head_(head),
        sums_(head.stays.size() * static_cast<size_t>(2 * head_size)),
        weights_(head.stays.size()),
        joined_(head.stays.size()) {}

  void Join(const Matches& matches) {
    if (head_.stays.empty()) return;  // what goes is gone
    double mean = 0;
    for (const float s : matches.similarity) mean += static_cast<double>(s);
    if (!head_.goes.empty()) mean /= static_cast<double>(head_.goes.size());
    for (size_t i = 0; i < head_.goes.size(); ++i) {
      if (merge_ == Merge::kThreshold && static_cast<double>(matches.similarity[i]) < mean) continue;
      Add(head_.goes[i], static_cast<size_t>(matches.best[i]), matches.similarity[i]);
    }
  }

  void Write(std::vector<Bf16>* out) const {
    out->resize(sums_.size());
    for (size_t j = 0; j < head_.stays.size(); ++j) {
      const size_t at = j * static_cast<size_t>(2 * head_size_),
                   value_at = at + static_cast<size_t>(head_size_);
      const bool keys = joined_[j] > 0 && MergesKeys(merge_);
      WriteOne(head_.stays[j].key, &sums_[at], j, keys, out->data() + at);
      WriteOne(head_.stays[j].value, &sums_[value_at], j, joined_[j] > 0, out->data() + value_at);
    }
  }

 private:
  // The weight of what joins token j.
  float WeightOf(const RestToken& from, size_t j, float similarity) const {
    switch (merge_) {
      case Merge::kNone:
      case Merge::kAveraged:
        return 1;
      case Merge::kPivotal:
        return 0.5f;
      case Merge::kWeighted:
      case Merge::kThreshold:
        return similarity;
      case Merge::kNormalized:
        return std::max((similarity + 1) / 2, 1e-6f);
      case Merge::kValues: {
        const float own = Length(from.value, head_size_), pivot = Length(head_.stays[j].value, head_size_);
        return std::max(similarity, 0.0f) * own / (own + pivot + 1e-6f);
      }
    }
    return 0;
  }

  void Add(const RestToken& from, size_t j, float similarity) {
    const float weight = WeightOf(from, j, similarity);
    float* const to = &sums_[j * static_cast<size_t>(2 * head_size_)];
    if (MergesKeys(merge_)) AddOne(from.key, weight, to);
    AddOne(from.value, weight, to + head_size_);
    weights_[j] += weight;
    ++joined_[j];
  }

  void AddOne(const Bf16* x, float weight, float* to) const {
    for (int64_t d = 0; d < head_size_; ++d) to[d] += weight * Bf16ToFloat(x[d]);
  }

  void WriteOne(const Bf16* own, const float* sum, size_t j, bool merged, Bf16* out) const {
    if (!merged) {
      std::copy_n(own, head_size_, out);
      return;
    }
    const float n = static_cast<float>(joined_[j]);
    const float share = merge_ == Merge::kPivotal ? 1 + n / 2 : 1;  // of the token that stays
    const bool by_weight = merge_ == Merge::kNormalized || merge_ == Merge::kValues;
    const float divisor = by_weight ? 1 + weights_[j] : n + 1;
    for (int64_t d = 0; d < head_size_; ++d) {
      out[d] = FloatToBf16((share * Bf16ToFloat(own[d]) + sum[d]) / divisor);
    }
  }

  const Merge merge_;
  const int64_t head_size_;
  const MergeHead& head_;
  std::vector<float> sums_;      // (stays, 2, D), weighted
  std::vector<float> weights_;   // (stays), summed
  std::vector<int32_t> joined_;  // (stays)
};

}  // namespace

void MergeTokens(Backend& backend, Merge merge, int64_t head_size, std::span<const MergeHead> heads,
                 std::vector<std::vector<Bf16>>* merged) {
  PALIMPSEST_CHECK(merge != Merge::kNone, "{} heads to merge, and no way to", heads.size());
  std::vector<Matches> matches(heads.size());
  std::vector<std::vector<const Bf16*>> keys(2 * heads.size());
  std::vector<MatchHead> match;
  match.reserve(heads.size());
  for (size_t h = 0; h < heads.size(); ++h) {
    const MergeHead& head = heads[h];
    if (head.stays.empty()) continue;  // a head may win no token where all share one budget
    matches[h].best.resize(head.goes.size());
    matches[h].similarity.resize(head.goes.size());
    for (const RestToken& token : head.goes) keys[2 * h].push_back(token.key);
    for (const RestToken& token : head.stays) keys[2 * h + 1].push_back(token.key);
    match.push_back({.sources = keys[2 * h],
                     .targets = keys[2 * h + 1],
                     .best = matches[h].best.data(),
                     .similarity = matches[h].similarity.data()});
  }
  backend.MatchKeys({.head_size = head_size, .heads = match});
  merged->resize(heads.size());
  backend.pool().ParallelFor(static_cast<int64_t>(heads.size()), [&](int64_t at, int) {
    const size_t h = static_cast<size_t>(at);
    HeadMerge head(merge, head_size, heads[h]);
    head.Join(matches[h]);
    head.Write(&(*merged)[h]);
  });
}

}  // namespace palimpsest
