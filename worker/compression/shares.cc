#include "worker/compression/shares.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "proto/base/status.h"

namespace palimpsest {

void CompressionPolicy::Share(const HeadShares& of, std::span<int64_t> counts) const {
  std::fill(counts.begin(), counts.end(), of.budget);
}

int64_t StayingOf(const HeadShares& of) {
  int64_t most = 0;
  for (const std::vector<float>& head : of.scores) {
    most =
        std::max<int64_t>(most, std::count(head.begin(), head.end(), std::numeric_limits<float>::infinity()));
  }
  return most;
}

std::vector<int64_t> CountsOf(const CompressionPolicy& policy, const HeadShares& of) {
  const int64_t heads = of.layers * of.kv_heads;
  std::vector<int64_t> counts(static_cast<size_t>(heads));
  if (of.budget >= of.candidates()) {
    std::fill(counts.begin(), counts.end(), of.candidates());
    return counts;
  }
  policy.Share(of, counts);
  const int64_t sum = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  const bool whole = !policy.needs().shares_by_attention;
  PALIMPSEST_CHECK((whole ? sum == heads * of.budget : sum <= heads * of.budget) && *least >= 0 &&
                       *most <= std::max(of.budget, of.most),
                   "{} heads of {} tokens each share {}, from {} to {}", heads, of.budget, sum, *least,
                   *most);
  return counts;
}

std::vector<int64_t> Compete(std::span<const std::vector<float>> heads, int64_t first, int64_t count,
                             int64_t most) {
  struct Entry {
    float score;
    int32_t token, head;
  };
  std::vector<Entry> entries;
  for (size_t h = 0; h < heads.size(); ++h) {
    for (size_t i = 0; i < heads[h].size(); ++i) {
      if (std::isinf(heads[h][i]) && heads[h][i] > 0) continue;
      entries.push_back({heads[h][i], static_cast<int32_t>(i), static_cast<int32_t>(h)});
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    if (a.token == b.token) return GoesBefore(a.score, a.head, b.score, b.head);
    return GoesBefore(a.score, a.token, b.score, b.token);
  });
  std::vector<int64_t> seen(heads.size(), 0), won(heads.size(), 0);
  for (const Entry& entry : entries) {
    if (count == 0) break;
    const size_t h = static_cast<size_t>(entry.head);
    if (seen[h]++ < first || won[h] == most) continue;
    ++won[h];
    --count;
  }
  return won;
}

void RoundToSum(std::span<const double> wanted, int64_t total, int64_t least, int64_t most,
                std::span<int64_t> counts) {
  int64_t sum = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double floor = std::floor(wanted[i]), part = wanted[i] - floor;
    int64_t count = static_cast<int64_t>(floor);
    if (part > 0.5 || (part == 0.5 && count % 2 != 0)) ++count;
    counts[i] = std::clamp(count, least, most);
    sum += counts[i];
  }
  const int64_t step = sum < total ? 1 : -1;
  for (; sum != total; sum += step) {
    size_t best = counts.size();
    double furthest = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == (step > 0 ? most : least)) continue;
      const double lacks = (wanted[i] - static_cast<double>(counts[i])) * static_cast<double>(step);
      if (best == counts.size() || lacks > furthest) {
        best = i;
        furthest = lacks;
      }
    }
    PALIMPSEST_CHECK(best < counts.size(), "{} counts from {} to {} cannot sum to {}", counts.size(), least,
                     most, total);
    counts[best] += step;
  }
}

namespace {

// What a head loses when it keeps its `i` highest scores: from all there is down to nothing.
std::vector<double> LossesOf(std::span<const float> scores, std::span<const float> attention) {
  std::vector<int32_t> order;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isinf(scores[i]) && scores[i] > 0) continue;
    order.push_back(static_cast<int32_t>(i));
  }
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return GoesBefore(scores[static_cast<size_t>(a)], a, scores[static_cast<size_t>(b)], b);
  });
  std::vector<double> losses(order.size() + 1, 0.0);
  for (size_t i = order.size(); i-- > 0;)
    losses[i] = losses[i + 1] + static_cast<double>(attention[static_cast<size_t>(order[i])]);
  return losses;
}

}  // namespace

void KeepAttention(const HeadShares& of, double lost, std::span<int64_t> counts) {
  const int64_t stays = StayingOf(of), most = std::min(of.candidates(), of.most) - stays;
  const int64_t total = std::ssize(counts) * (of.budget - stays);
  std::vector<std::vector<double>> losses(counts.size());
  double all = 0;
  for (size_t h = 0; h < losses.size(); ++h) {
    losses[h] = LossesOf(of.scores[h], of.attention[h]);
    all = std::max(all, losses[h][0]);
  }
  const auto keep = [&](double allowed) {
    int64_t sum = 0;
    for (size_t h = 0; h < losses.size(); ++h) {
      const auto first = std::partition_point(losses[h].begin(), losses[h].end() - 1,
                                              [&](double loss) { return loss > allowed; });
      counts[h] = std::min<int64_t>(most, first - losses[h].begin());
      sum += counts[h];
    }
    return sum;
  };
  if (keep(lost) > total) {
    double low = lost, high = all;  // too little, and enough: nothing is kept
    for (int halving = 0; halving < 60; ++halving) {
      const double middle = (low + high) / 2;
      (keep(middle) > total ? low : high) = middle;
    }
    keep(high);
  }
  for (int64_t& count : counts) count += stays;
}

}  // namespace palimpsest
