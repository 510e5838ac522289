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
// 1 if any of them is (RULER's string_match_part, for questions with several right answers).
double StringMatchPart(std::string_view output, const std::vector<std::string>& references);
// 1 if the first whole number of the output is the reference (a passkey of digits).
double FirstInteger(std::string_view output, std::string_view reference);
// 1 if the reference is one of the output's words, without marks around it and whatever its case.
double WholeWord(std::string_view output, std::string_view reference);
// 1 if the first sentence of the output names the reference and none of the other labels, except those that
// stand in the question (BABILong's).
double OneLabel(std::string_view output, std::string_view reference, std::string_view question,
                const std::vector<std::string_view>& labels);
// F1 of the flat JSON objects in the output against those of the references: an object is right if it has
// each field with this value (numbers may be strings, words have any case).
double RecordsF1(std::string_view output, const std::vector<std::string>& references);

// Where the true share lies with 95 % confidence, after `n` trials of which the share `correct` was right.
// Sound for few trials, and for none or all right.
// Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
struct Interval {
  double low = 0, high = 1;
};
Interval WilsonInterval(double correct, int64_t n);
// Of the difference second - first of two such shares.
// Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
Interval DifferenceInterval(double first, int64_t first_n, double second, int64_t second_n);

// The middle one, or the mean of both. 0 of none.
double Median(std::vector<double> values);
double Mean(const std::vector<double>& values);

}  // namespace palimpsest
