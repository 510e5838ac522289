#include "apps/niah/score.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace palimpsest {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  // ASCII alone, the same under every locale.
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

double StringMatchAll(std::string_view output, const std::vector<std::string>& references) {
  const std::string text = Lower(output);
  const auto found = std::count_if(references.begin(), references.end(), [&](const std::string& reference) {
    return text.find(Lower(reference)) != std::string::npos;
  });
  return static_cast<double>(found) / static_cast<double>(references.size());
}

Interval WilsonInterval(double correct, int64_t n) {
  if (n <= 0) return {};
  constexpr double kZ = 1.959963984540054;  // 97.5 % of the normal distribution lie below
  const auto count = static_cast<double>(n);
  const double scale = 1 / (1 + kZ * kZ / count);
  const double middle = scale * (correct + kZ * kZ / (2 * count));
  const double half = scale * kZ * std::sqrt(correct * (1 - correct) / count + kZ * kZ / (4 * count * count));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double Mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace palimpsest
