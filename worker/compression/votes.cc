#include "worker/compression/votes.h"

#include <algorithm>
#include <bit>

namespace palimpsest {

void ReduceGroup(const HeadInput& head, PolicySpec::Reduce reduce, std::span<float> votes) {
  for (int64_t g = 0; g < head.group; ++g) {
    const float* const row = head.attention + g * head.attention_stride;
    if (g == 0) {
      for (size_t i = 0; i < votes.size(); ++i) votes[i] = VoteOf(row[i]);
    } else if (reduce == PolicySpec::Reduce::kMax) {
      for (size_t i = 0; i < votes.size(); ++i) votes[i] = std::max(votes[i], VoteOf(row[i]));
    } else {
      for (size_t i = 0; i < votes.size(); ++i) votes[i] += VoteOf(row[i]);
    }
  }
  if (reduce != PolicySpec::Reduce::kMean || head.group == 1) return;
  for (float& vote : votes) vote /= static_cast<float>(head.group);
}

float ScoreOfRank(int64_t rank) { return std::bit_cast<float>(static_cast<uint32_t>(0x00800000 + rank)); }

}  // namespace palimpsest
