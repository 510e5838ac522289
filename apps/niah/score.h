// How outputs are scored, and what a score says about the next one. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace palimpsest {

// The share of references that are in the output, whatever their case (RULER's string_match_all). REQUIRES:
// references.
double StringMatchAll(std::string_view output, const std::vector<std::string>& references);

// Where the true share lies with 95 % confidence, after `n` trials of which the share `correct` was right.
// Sound for few trials, and for none or all right.
// Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
struct Interval {
  double low = 0, high = 1;
};
Interval WilsonInterval(double correct, int64_t n);

// The middle one, or the mean of both. 0 of none.
double Median(std::vector<double> values);
double Mean(const std::vector<double>& values);

}  // namespace palimpsest
