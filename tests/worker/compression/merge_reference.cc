#include "tests/worker/compression/merge_reference.h"

#include <algorithm>
#include <cmath>

namespace palimpsest::reference {
namespace {

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

double Cosine(const std::vector<double>& a, const std::vector<double>& b) {
  const double lengths = std::sqrt(Dot(a, a) * Dot(b, b));
  return lengths > 0 ? Dot(a, b) / lengths : 0;
}

// The words of the header, one loop for each.
Tokens Merge(PolicySpec::Merge merge, const Tokens& stays, const Tokens& goes) {
  std::vector<size_t> best;
  std::vector<double> similarity;
  double mean = 0;
  for (const Token& token : goes) {
    size_t at = 0;
    for (size_t j = 1; j < stays.size(); ++j) {
      if (Cosine(token.key, stays[j].key) > Cosine(token.key, stays[at].key)) at = j;
    }
    best.push_back(at);
    similarity.push_back(Cosine(token.key, stays[at].key));
    mean += similarity.back() / static_cast<double>(goes.size());
  }
  Tokens out = stays;
  for (size_t j = 0; j < stays.size(); ++j) {
    std::vector<double> key = stays[j].key, value = stays[j].value;
    double n = 0, weights = 0;
    for (size_t i = 0; i < goes.size(); ++i) {
      const double s = similarity[i];
      if (best[i] != j || (merge == PolicySpec::Merge::kThreshold && s < mean)) continue;
      double w = 1;
      if (merge == PolicySpec::Merge::kWeighted || merge == PolicySpec::Merge::kThreshold) w = s;
      if (merge == PolicySpec::Merge::kNormalized) w = std::max((s + 1) / 2, 1e-6);
      if (merge == PolicySpec::Merge::kValues) {
        const double own = std::sqrt(Dot(goes[i].value, goes[i].value));
        const double pivot = std::sqrt(Dot(stays[j].value, stays[j].value));
        w = std::max(s, 0.0) * own / (own + pivot + 1e-6);
      }
      for (size_t d = 0; d < key.size(); ++d) {
        const bool half = merge == PolicySpec::Merge::kPivotal;
        key[d] += half ? (goes[i].key[d] + stays[j].key[d]) / 2 : w * goes[i].key[d];
        value[d] += half ? (goes[i].value[d] + stays[j].value[d]) / 2 : w * goes[i].value[d];
      }
      n += 1;
      weights += w;
    }
    const bool by_weight = merge == PolicySpec::Merge::kNormalized || merge == PolicySpec::Merge::kValues;
    for (size_t d = 0; d < key.size(); ++d) {
      if (merge != PolicySpec::Merge::kValues) out[j].key[d] = key[d] / (by_weight ? 1 + weights : n + 1);
      out[j].value[d] = value[d] / (by_weight ? 1 + weights : n + 1);
    }
  }
  return out;
}

}  // namespace palimpsest::reference
