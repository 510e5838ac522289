#include "tests/worker/compression/policy_reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "proto/base/rng.h"

namespace palimpsest::reference {
namespace {

double Reduce(const std::vector<double>& heads, PolicySpec::Reduce reduce) {
  if (reduce == PolicySpec::Reduce::kMax) return *std::max_element(heads.begin(), heads.end());
  const double sum = std::accumulate(heads.begin(), heads.end(), 0.0);
  return reduce == PolicySpec::Reduce::kSum ? sum : sum / static_cast<double>(heads.size());
}

std::vector<double> ReduceRows(const Rows& rows, PolicySpec::Reduce reduce) {
  std::vector<double> out;
  for (size_t i = 0; i < rows[0].size(); ++i) {
    std::vector<double> heads;
    for (const std::vector<double>& row : rows) heads.push_back(row[i]);
    out.push_back(Reduce(heads, reduce));
  }
  return out;
}

std::vector<double> Pool(const std::vector<double>& row, const PolicySpec& spec) {
  if (spec.pool == PolicySpec::Pool::kNone) return row;
  const int64_t n = static_cast<int64_t>(row.size()), half = spec.kernel / 2;
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0, highest = -std::numeric_limits<double>::infinity();
    int64_t under = 0;
    for (int64_t j = i - half; j <= i + half; ++j) {
      if (j < 0 || j >= n) continue;
      sum += row[j];
      highest = std::max(highest, row[j]);
      ++under;
    }
    const int64_t divisor = spec.divisor == PolicySpec::Divisor::kPadded ? spec.kernel : under;
    out.push_back(spec.pool == PolicySpec::Pool::kMax ? highest : sum / static_cast<double>(divisor));
  }
  return out;
}

}  // namespace

std::vector<double> SnapKv(const Rows& attention, const PolicySpec& spec, bool window_stays) {
  const int64_t n = static_cast<int64_t>(attention[0].size());
  const int64_t voted = window_stays ? std::max<int64_t>(0, n - spec.window) : n;
  Rows rows;
  for (const std::vector<double>& row : attention) rows.emplace_back(row.begin(), row.begin() + voted);
  std::vector<double> scores;
  if (spec.order == PolicySpec::Order::kReducePool) {
    scores = Pool(ReduceRows(rows, spec.reduce), spec);
  } else {
    for (std::vector<double>& row : rows) row = Pool(row, spec);
    scores = ReduceRows(rows, spec.reduce);
  }
  scores.resize(n, std::numeric_limits<double>::infinity());
  return scores;
}

std::vector<double> Cap(const Rows& attention, PolicySpec::Reduce reduce) {
  return ReduceRows(attention, reduce);
}

namespace {

void KeepLast(int64_t recent, bool stays, std::vector<double>* scores) {
  const int64_t n = static_cast<int64_t>(scores->size());
  for (int64_t i = std::max<int64_t>(0, n - recent); stays && i < n; ++i) {
    (*scores)[static_cast<size_t>(i)] = std::numeric_limits<double>::infinity();
  }
}

}  // namespace

std::vector<double> H2o(const Seen& seen, const PolicySpec& spec, bool window_stays) {
  std::vector<double> scores = ReduceRows(seen.sums, spec.reduce);
  for (size_t i = 0; i < scores.size(); ++i) {
    if (spec.normalize == PolicySpec::Normalize::kQueries) scores[i] /= seen.by[i];
  }
  KeepLast(spec.recent.Of(static_cast<int64_t>(scores.size())), window_stays, &scores);
  return scores;
}

std::vector<double> LookM(const Seen& seen, const PolicySpec& spec, bool window_stays) {
  std::vector<double> scores = ReduceRows(seen.sums, PolicySpec::Reduce::kMean);
  const double most = *std::max_element(scores.begin(), scores.end());
  for (size_t i = 0; i < scores.size(); ++i) {
    bool image = false;
    for (const PolicySpec::Image& one : spec.images) {
      image = image || (static_cast<int64_t>(i) >= one.first && static_cast<int64_t>(i) < one.end);
    }
    const bool text_stays = spec.text_prior == PolicySpec::TextPrior::kHard && !spec.images.empty() && !image;
    const bool text_first = spec.text_prior == PolicySpec::TextPrior::kSoft && !spec.images.empty() && !image;
    const bool sink = spec.text_prior == PolicySpec::TextPrior::kNone && i < 4;
    if (text_first) scores[i] += most;
    if (text_stays || sink) scores[i] = std::numeric_limits<double>::infinity();
  }
  KeepLast(spec.recent.Of(static_cast<int64_t>(scores.size())), window_stays, &scores);
  return scores;
}

std::vector<double> Tova(const Rows& attention, const PolicySpec& spec, bool window_stays) {
  std::vector<double> scores = ReduceRows(attention, PolicySpec::Reduce::kMean);
  KeepLast(spec.last == PolicySpec::Last::kStays ? 1 : 0, window_stays, &scores);
  return scores;
}

std::vector<double> RoCo(const Seen& seen, const PolicySpec& spec, bool window_stays) {
  const int64_t n = static_cast<int64_t>(seen.by.size());
  std::vector<double> means = ReduceRows(seen.sums, PolicySpec::Reduce::kMean);
  std::vector<double> deviations = ReduceRows(seen.squares, PolicySpec::Reduce::kMean);
  for (size_t i = 0; i < means.size(); ++i) {
    means[i] /= seen.by[i];
    deviations[i] = std::sqrt(std::max(0.0, deviations[i] / seen.by[i] - means[i] * means[i]));
    if (static_cast<int64_t>(i) < spec.sink) deviations[i] = std::numeric_limits<double>::infinity();
  }
  KeepLast(spec.recent.Of(n), window_stays, &deviations);
  int64_t stay = 0;
  for (const double d : deviations) stay += std::isinf(d) ? 1 : 0;
  for (const int32_t i : Top(deviations, std::max(stay, spec.volatile_tokens.Of(n)))) {
    means[static_cast<size_t>(i)] = 2 + deviations[static_cast<size_t>(i)];  // means are at most 1
  }
  return means;
}

std::vector<int32_t> Top(const std::vector<double>& scores, int64_t count) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(std::min<size_t>(order.size(), count));
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<int32_t> Novel(const std::vector<double>& losses, const std::vector<double>& scores,
                           int64_t fixed, int64_t count, int64_t novel) {
  const int64_t n = static_cast<int64_t>(scores.size());
  std::vector<bool> taken(n, false);
  const auto take = [&](const std::vector<double>& by) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i) {
      if (!taken[i] && (best < 0 || by[i] > by[best])) best = i;
    }
    if (best >= 0) taken[best] = true;
  };
  for (int64_t i = 0; i < std::min(fixed, n); ++i) taken[i] = true;
  for (int64_t i = 0; i < novel; ++i) take(losses);
  for (int64_t i = novel; i < count; ++i) take(scores);
  std::vector<int32_t> picks;
  for (int64_t i = 0; i < n; ++i) {
    if (taken[i]) picks.push_back(static_cast<int32_t>(i));
  }
  return picks;
}

std::vector<double> WindowAttention(const std::vector<double>& keys, const std::vector<double>& queries,
                                    int64_t window, Mistake mistake) {
  const int64_t n = static_cast<int64_t>(keys.size());
  std::vector<double> votes(n, 0.0);
  for (int64_t row = n - window; row < n; ++row) {
    const double query = queries[row - (n - window)];
    const int64_t seen = mistake == Mistake::kNoCausalMask ? n : row + 1;
    double sum = 0;
    for (int64_t i = 0; i < (mistake == Mistake::kSoftmaxOverPrefix ? n - window : seen); ++i) {
      sum += std::exp(query * keys[i]);
    }
    for (int64_t i = 0; i < seen; ++i) votes[i] += std::exp(query * keys[i]) / sum;
  }
  return votes;
}

double Overlap(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::vector<int32_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  const size_t most = std::max(a.size(), b.size());
  return most == 0 ? 1 : static_cast<double>(both.size()) / static_cast<double>(most);
}

}  // namespace palimpsest::reference

namespace palimpsest {

TestHead::TestHead(const reference::Rows& rows, int64_t padding)
    : TestHead(static_cast<int64_t>(rows[0].size())) {
  input.group = static_cast<int64_t>(rows.size());
  input.attention_stride = static_cast<int64_t>(tokens.size()) + padding;
  for (const std::vector<double>& row : rows) {
    for (const double value : row) attention.push_back(static_cast<float>(value));
    attention.resize(attention.size() + padding, 1e30f);
  }
  input.attention = input.sums = attention.data();
  input.sums_stride = input.attention_stride;
  seen.sums = rows;
  RngSequence random{Rng(17)};
  for (size_t i = 0; i < tokens.size(); ++i) seen_by.push_back(static_cast<float>(tokens.size() - i));
  for (const std::vector<double>& row : rows) {
    seen.squares.emplace_back();
    for (size_t i = 0; i < row.size(); ++i) {
      const double mean = row[i] / static_cast<double>(seen_by[i]);
      squares.push_back(
          static_cast<float>(static_cast<double>(seen_by[i]) * mean * mean * (1 + 3 * random.Uniform())));
      seen.squares.back().push_back(static_cast<double>(squares.back()));
    }
    squares.resize(squares.size() + static_cast<size_t>(padding), 1e30f);
  }
  seen.by.assign(seen_by.begin(), seen_by.end());
  input.squares = squares.data();
  input.seen_by = seen_by;
  scratch.resize(2 * tokens.size());
  input.scratch = scratch;
  DrawRest(input.group);
}

TestHead::TestHead(int64_t n) : tokens(n) {
  std::iota(tokens.begin(), tokens.end(), 0);
  input.tokens = tokens;
  input.head_size = kHeadSize;
}

void TestHead::DrawRest(int64_t group) {
  const int64_t n = static_cast<int64_t>(tokens.size());
  RngSequence random{Rng(static_cast<uint64_t>(n))};
  const auto draw = [&](int64_t count, double low, double high) {
    std::vector<float> numbers(count);
    for (float& number : numbers) number = static_cast<float>(low + random.Uniform() * (high - low));
    return numbers;
  };
  input.losses = losses = draw(n, 0, 9);
  input.keys = keys = draw(n * kHeadSize, -2, 2);
  input.values = values = draw(n * kHeadSize, -1, 1);
  input.output_norms = output_norms = draw(n, 0.5, 2);
  input.query_mean = query_mean = draw(group * kHeadSize, -1, 1);
  // A A' is a covariance.
  query_covariance.assign(group * kHeadSize * kHeadSize, 0);
  for (int64_t g = 0; g < group; ++g) {
    const std::vector<float> root = draw(kHeadSize * kHeadSize, -0.5, 0.5);
    float* const of = query_covariance.data() + g * kHeadSize * kHeadSize;
    for (int64_t i = 0; i < kHeadSize; ++i) {
      for (int64_t j = 0; j < kHeadSize; ++j) {
        for (int64_t m = 0; m < kHeadSize; ++m) {
          of[i * kHeadSize + j] += root[i * kHeadSize + m] * root[j * kHeadSize + m];
        }
      }
    }
  }
  input.query_covariance = query_covariance;
  input.mean_turn = mean_turn = draw(kHeadSize, -0.7, 0.7);
}

std::vector<float> ScoresOf(const char* policy, const HeadInput& head) {
  const absl::StatusOr<PolicySpec> spec = ParsePolicy(policy);
  EXPECT_TRUE(spec.ok()) << spec.status();
  std::vector<float> scores(head.tokens.size(), -1.0f);
  MakePolicy(*spec)->Score(head, scores);
  return scores;
}

std::vector<int32_t> TopOf(const std::vector<float>& scores, int64_t count) {
  std::vector<int32_t> picks;
  SelectTop(scores, count, &picks);
  return picks;
}

reference::Rows RandomAttention(int64_t heads, int64_t tokens, uint64_t seed) {
  RngSequence random{Rng(seed)};
  reference::Rows rows(heads, std::vector<double>(tokens));
  for (std::vector<double>& row : rows) {
    for (double& value : row) value = static_cast<float>(std::exp(-12 * random.Uniform()));
  }
  return rows;
}

}  // namespace palimpsest
