#include "apps/niah/score.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdint>
#include <map>
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

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
// Of words that are marks' neighbours: UUIDs have hyphens.
bool IsWordPart(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || c == '-' || static_cast<unsigned char>(c) >= 0x80;
}

using Record = std::map<std::string, std::string>;

// Its fields as lower-case text; empty if it is no object of plain values.
Record RecordOf(std::string_view text) {
  boost::json::error_code error;
  const boost::json::value value =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  Record record;
  if (error || !value.is_object()) return record;
  for (const auto& [key, field] : value.get_object()) {
    if (field.is_object() || field.is_array()) return {};
    const std::string plain =
        field.is_string() ? std::string(field.get_string()) : boost::json::serialize(field);
    record[Lower(std::string_view(key.data(), key.size()))] = Lower(plain);
  }
  return record;
}

// From each '{' to the '}' that follows without another '{' between: records are flat.
std::vector<Record> RecordsIn(std::string_view text) {
  std::vector<Record> records;
  for (size_t open = text.find('{'); open != std::string_view::npos;) {
    const size_t close = text.find('}', open), next = text.find('{', open + 1);
    if (close == std::string_view::npos) break;
    if (close < next) {
      if (Record record = RecordOf(text.substr(open, close + 1 - open)); !record.empty()) {
        records.push_back(std::move(record));
      }
    }
    open = next;
  }
  return records;
}

}  // namespace

double StringMatchAll(std::string_view output, const std::vector<std::string>& references) {
  const std::string text = Lower(output);
  const auto found = std::count_if(references.begin(), references.end(), [&](const std::string& reference) {
    return text.find(Lower(reference)) != std::string::npos;
  });
  return static_cast<double>(found) / static_cast<double>(references.size());
}

double StringMatchPart(std::string_view output, const std::vector<std::string>& references) {
  return StringMatchAll(output, references) > 0 ? 1 : 0;
}

double FirstInteger(std::string_view output, std::string_view reference) {
  const auto first = std::find_if(output.begin(), output.end(), IsDigit);
  const auto end = std::find_if_not(first, output.end(), IsDigit);
  return std::string_view(first, end) == reference ? 1 : 0;
}

double WholeWord(std::string_view output, std::string_view reference) {
  const std::string text = Lower(output), word = Lower(reference);
  for (auto at = text.begin(); at != text.end();) {
    const auto first = std::find_if(at, text.end(), IsWordPart);
    const auto end = std::find_if_not(first, text.end(), IsWordPart);
    if (first != end && std::string_view(first, end) == word) return 1;
    at = end;
  }
  return 0;
}

double OneLabel(std::string_view output, std::string_view reference, std::string_view question,
                const std::vector<std::string_view>& labels) {
  const size_t begin = std::min(output.find_first_not_of(" \t\r\n"), output.size());
  output.remove_prefix(begin);
  const std::string sentence = Lower(output.substr(0, output.find_first_of(".\n"))), asked = Lower(question);
  if (sentence.find(Lower(reference)) == std::string::npos) return 0;
  const bool other = std::any_of(labels.begin(), labels.end(), [&](std::string_view label) {
    return label != reference && sentence.find(label) != std::string::npos &&
           asked.find(label) == std::string::npos;
  });
  return other ? 0 : 1;
}

double RecordsF1(std::string_view output, const std::vector<std::string>& references) {
  std::vector<Record> expected;
  expected.reserve(references.size());
  for (const std::string& reference : references) expected.push_back(RecordOf(reference));
  const std::vector<Record> found = RecordsIn(output);
  const auto total = static_cast<double>(expected.size() + found.size());
  int64_t right = 0;
  for (const Record& record : found) {
    const auto match = std::find(expected.begin(), expected.end(), record);
    if (match == expected.end()) continue;
    expected.erase(match);  // one that is there twice is right once
    ++right;
  }
  return total == 0 ? 0 : 2 * static_cast<double>(right) / total;
}

Interval WilsonInterval(double correct, int64_t n) {
  if (n <= 0) return {};
  constexpr double kZ = 1.959963984540054;  // 97.5 % of the normal distribution lie below
  const auto count = static_cast<double>(n);
  const double scale = 1 / (1 + kZ * kZ / count);
  const double middle = scale * (correct + kZ * kZ / (2 * count));
  const double half = scale * kZ * std::sqrt(correct * (1 - correct) / count + kZ * kZ / (4 * count * count));
  // But for rounding the ends are these.
  return {correct <= 0 ? 0 : std::max(0.0, middle - half), correct >= 1 ? 1 : std::min(1.0, middle + half)};
}

Interval DifferenceInterval(double first, int64_t first_n, double second, int64_t second_n) {
  if (first_n <= 0 || second_n <= 0) return {-1, 1};
  const Interval a = WilsonInterval(first, first_n), b = WilsonInterval(second, second_n);
  const double difference = second - first;
  return {difference - std::hypot(second - b.low, a.high - first),
          difference + std::hypot(b.high - second, first - a.low)};
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
