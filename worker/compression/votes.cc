#include "worker/compression/votes.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace palimpsest {

void ReduceGroup(const HeadInput& head, PolicySpec::Reduce reduce, std::span<float> votes) {
  ReduceRows(head.attention, head.attention_stride, head.group, reduce, votes);
}

void ReduceRows(const float* rows, int64_t stride, int64_t group, PolicySpec::Reduce reduce,
                std::span<float> votes) {
  for (int64_t g = 0; g < group; ++g) {
    const float* const row = rows + g * stride;
    if (g == 0) {
      for (size_t i = 0; i < votes.size(); ++i) votes[i] = VoteOf(row[i]);
    } else if (reduce == PolicySpec::Reduce::kMax) {
      for (size_t i = 0; i < votes.size(); ++i) votes[i] = std::max(votes[i], VoteOf(row[i]));
    } else {
      for (size_t i = 0; i < votes.size(); ++i) votes[i] += VoteOf(row[i]);
    }
  }
  if (reduce != PolicySpec::Reduce::kMean || group == 1) return;
  for (float& vote : votes) vote /= static_cast<float>(group);
}

void KeepLast(const HeadInput& head, const Amount& recent, std::span<float> scores) {
  const int64_t n = static_cast<int64_t>(scores.size());
  if (!head.window_stays) return;
  const size_t first = static_cast<size_t>(std::max<int64_t>(0, n - recent.Of(n)));
  std::fill(scores.begin() + static_cast<std::ptrdiff_t>(first), scores.end(),
            std::numeric_limits<float>::infinity());
}

float ScoreOfRank(int64_t rank) { return std::bit_cast<float>(static_cast<uint32_t>(0x00800000 + rank)); }

}  // namespace palimpsest
