#include "tests/worker/compression/key_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace palimpsest::reference {
namespace {

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}
double Norm(const std::vector<double>& a) { return std::sqrt(Dot(a, a)); }

// The mean rotation matrix (D, D) over all positions, of pairs (2i, 2i+1).
Rows MeanRotation(const Rows& turns, size_t size) {
  Rows matrix(size, std::vector<double>(size, 0.0));
  for (size_t d = 0; turns.empty() && d < size; ++d) matrix[d][d] = 1;
  for (const std::vector<double>& angles : turns) {
    for (size_t i = 0; i < size / 2; ++i) {
      const double part = 1.0 / static_cast<double>(turns.size());
      matrix[2 * i][2 * i] += std::cos(angles[i]) * part;
      matrix[2 * i][2 * i + 1] -= std::sin(angles[i]) * part;
      matrix[2 * i + 1][2 * i] += std::sin(angles[i]) * part;
      matrix[2 * i + 1][2 * i + 1] += std::cos(angles[i]) * part;
    }
  }
  return matrix;
}

Rows Transposed(const Rows& a) {
  Rows out(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[i].size(); ++j) out[j][i] = a[i][j];
  }
  return out;
}
std::vector<double> Multiply(const Rows& a, const std::vector<double>& x) {
  std::vector<double> out;
  for (const std::vector<double>& row : a) out.push_back(Dot(row, x));
  return out;
}
Rows Multiply(const Rows& a, const Rows& b) {
  Rows columns;
  for (const std::vector<double>& column : Transposed(b)) columns.push_back(Multiply(a, column));
  return Transposed(columns);
}

}  // namespace

std::vector<double> Knorm(const Rows& keys) {
  std::vector<double> scores;
  for (const std::vector<double>& key : keys) scores.push_back(-Norm(key));
  return scores;
}

std::vector<double> KeyDiff(const Rows& keys) {
  std::vector<double> mean(keys[0].size(), 0.0), scores;
  for (const std::vector<double>& key : keys) {
    for (size_t d = 0; d < key.size() && Norm(key) > 0; ++d) mean[d] += key[d] / Norm(key);
  }
  for (const std::vector<double>& key : keys) {
    const double norms = Norm(key) * Norm(mean);
    scores.push_back(norms > 0 ? -Dot(key, mean) / norms : 0);
  }
  return scores;
}

std::vector<double> Expected(const Rows& keys, const Rows& values, const std::vector<Queries>& heads,
                             const Rows& turns, const PolicySpec& spec) {
  const size_t n = keys.size(), first = std::min<size_t>(n, spec.sink), size = keys[0].size();
  const Rows rotation = MeanRotation(turns, size);
  std::vector<double> scores(n, 0.0);
  for (const Queries& head : heads) {
    const std::vector<double> mean = Multiply(rotation, head.mean);
    const Rows spread = Multiply(Multiply(rotation, head.covariance), Transposed(rotation));
    std::vector<double> weights(n, 0.0);
    for (size_t i = first; i < n; ++i) {
      double logit = Dot(mean, keys[i]) / std::sqrt(static_cast<double>(size));
      if (spec.covariance)
        logit += Dot(keys[i], Multiply(spread, keys[i])) / (2.0 * static_cast<double>(size));
      weights[i] = std::exp(logit);
    }
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (size_t i = first; i < n; ++i) scores[i] += weights[i] / sum / static_cast<double>(heads.size());
  }
  for (size_t i = first; i < n && spec.values; ++i) scores[i] = (scores[i] + spec.epsilon) * Norm(values[i]);
  std::fill_n(scores.begin(), first, std::numeric_limits<double>::infinity());
  return scores;
}

std::vector<double> Chunks(const Rows& heads, int64_t voted, int64_t chunk) {
  std::vector<double> scores(voted);
  for (int64_t i = 0; i < voted; ++i) {
    const int64_t first = i / chunk * chunk, last = std::min(voted, first + chunk);
    for (const std::vector<double>& head : heads) {
      double sum = 0;
      for (int64_t j = first; j < last; ++j) sum += head[j];
      scores[i] += sum / static_cast<double>(last - first);
    }
  }
  return scores;
}

std::vector<int32_t> Critical(const std::vector<double>& scores, const std::vector<double>& norms,
                              int64_t first, int64_t count, double epsilon) {
  std::vector<double> rest;
  for (size_t i = 0; i < scores.size(); ++i) rest.push_back((scores[i] + epsilon) * norms[i]);
  for (const int32_t i : Top(scores, first)) rest[i] = std::numeric_limits<double>::infinity();
  return Top(rest, count);
}

std::vector<int64_t> PublishedPyramid(int64_t layers, int64_t cap, int64_t tokens, int64_t window,
                                      int64_t beta) {
  if (tokens < cap) return std::vector<int64_t>(layers, tokens);
  const int64_t base = cap - window;
  if (tokens < 2 * base) return std::vector<int64_t>(layers, cap);
  int64_t least = base / beta, most = 2 * base - least;
  if (most >= tokens - window) {
    most = tokens - window;
    least = 2 * base - most;
  }
  std::vector<int64_t> counts;
  for (int64_t layer = 0; layer < layers; ++layer) {
    counts.push_back(most - layer * ((most - least) / (layers - 1)) + window);
  }
  return counts;
}

std::vector<int64_t> AdaWins(const Rows& heads, int64_t base) {
  struct Entry {
    double score;
    size_t token, head;
  };
  std::vector<Entry> all;
  for (size_t token = 0; token < heads[0].size(); ++token) {
    for (size_t head = 0; head < heads.size(); ++head) all.push_back({heads[head][token], token, head});
  }
  std::stable_sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.score > b.score; });
  std::vector<int64_t> wins(heads.size(), 0);
  for (int64_t i = 0; i < base * static_cast<int64_t>(heads.size()); ++i) ++wins[all[i].head];
  return wins;
}

std::vector<int64_t> PublishedAda(const std::vector<int64_t>& wins, int64_t base, double floor,
                                  bool half_even) {
  std::vector<int64_t> counts;
  for (const int64_t won : wins) {
    const double raw = static_cast<double>(won) * (1 - floor) + std::floor(static_cast<double>(base) * floor);
    counts.push_back(static_cast<int64_t>(half_even ? std::nearbyint(raw) : std::round(raw)));
  }
  return counts;
}

}  // namespace palimpsest::reference
