#include "apps/niah/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;
using Row = NiahComparison::Row;

struct Report {
  std::string model, turns, max_tokens;
  std::vector<Row> rows;                      // first and first_n are set
  std::vector<std::pair<Row, double>> cells;  // with their depths
};

// Throws where the form is another.
Row RowOf(const json::object& row) {
  const auto text = [&](const char* key) { return std::string(row.at(key).as_string()); };
  const std::string policy = text("policy"), recall = text("recall");
  Row made{.task = text("task"),
           .how = policy == "endpoint" ? "full" : policy,
           .question = text("question"),
           .turn = row.at("turn").is_null() ? "all" : std::to_string(row.at("turn").as_int64())};
  if (recall != "none") made.how += " + " + recall;
  made.length = row.at("length").as_int64();
  made.first_n = row.at("n").as_int64();
  if (!row.at("correct").is_null()) made.first = row.at("correct").to_number<double>();
  return made;
}

absl::StatusOr<Report> ReportOf(const NiahReportFile& file) {
  Report report;
  try {
    const json::value root = json::parse(file.text);
    const json::object& run = root.at("run").as_object();
    report.model = std::string(run.at("model").as_string());
    report.turns = std::to_string(run.at("turns").as_int64());
    const json::value& limit = run.at("max_tokens");
    report.max_tokens = limit.is_null() ? "each task's own" : std::to_string(limit.as_int64());
    for (const json::value& row : root.at("summary").as_array())
      report.rows.push_back(RowOf(row.as_object()));
    for (const json::value& cell : root.at("cells").as_array()) {
      const json::value& depth = cell.at("depth");
      if (!depth.is_null()) report.cells.emplace_back(RowOf(cell.as_object()), depth.to_number<double>());
    }
  } catch (const std::exception& error) {
    return InvalidArgument("{} is not what `palimpsest niah --json` prints: {}", Quoted(file.name, 1024),
                           error.what());
  }
  return report;
}

auto KeyOf(const Row& row) { return std::tie(row.task, row.length, row.how, row.question, row.turn); }

// Of the cells that the rows are the sums of.
std::set<double> DepthsOf(const Report& report, const std::vector<Row>& rows) {
  std::set<double> depths;
  for (const auto& [cell, depth] : report.cells) {
    const bool counts = std::any_of(rows.begin(), rows.end(),
                                    [cell = &cell](const Row& row) { return KeyOf(row) == KeyOf(*cell); });
    if (counts) depths.insert(depth);
  }
  return depths;
}

// What makes scores differ that is no model's and no engine's.
std::vector<std::string> SamplesDiffer(const Report& a, const Report& b, const std::vector<Row>& rows) {
  std::vector<std::string> all;
  const auto hold = [&](std::string_view what, const std::string& first, const std::string& second) {
    if (first != second) all.push_back(fmt::format("{}: {} in A, {} in B", what, first, second));
  };
  const auto depths = [&](const Report& of) {
    return fmt::format("{:g}", fmt::join(DepthsOf(of, rows), ","));
  };
  hold("depths", depths(a), depths(b));
  hold("turns", a.turns, b.turns);
  hold("tokens of an answer", a.max_tokens, b.max_tokens);
  return all;
}

std::string RowText(const Row& row, size_t width) {
  return fmt::format("{:<16}{:>7}  {:<{}}  {:<9}{:>5}{:>9}{:>9}{:>9}{:>17}{}\n", row.task,
                     FormatCount(row.length), row.how, width, row.question, row.turn,
                     fmt::format("{:.1f}", 100 * row.first), fmt::format("{:.1f}", 100 * row.second),
                     fmt::format("{:+.1f}", 100 * (row.second - row.first)),
                     fmt::format("{:+.1f} - {:+.1f}", 100 * row.difference.low, 100 * row.difference.high),
                     row.differs() ? "  *" : "");
}

json::object RowJson(const Row& row) {
  return {{"task", row.task},
          {"length", row.length},
          {"policy", row.how},
          {"question", row.question},
          {"turn", row.turn == "all" ? json::value(nullptr) : json::value(std::stoll(row.turn))}};
}

}  // namespace

absl::StatusOr<NiahComparison> CompareNiah(const NiahReportFile& first, const NiahReportFile& second) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Report a, ReportOf(first));
  PALIMPSEST_ASSIGN_OR_RETURN(const Report b, ReportOf(second));
  NiahComparison comparison{
      .first_name = first.name, .second_name = second.name, .first_model = a.model, .second_model = b.model};
  const auto find = [](const Report& report, const Row& row) {
    return std::find_if(report.rows.begin(), report.rows.end(),
                        [&](const Row& one) { return KeyOf(one) == KeyOf(row) && one.first_n > 0; });
  };
  for (const Row& row : a.rows) {
    const auto other = find(b, row);
    if (other == b.rows.end() || row.first_n == 0) {
      comparison.only_first.push_back(row);
      continue;
    }
    Row both = row;
    both.second = other->first;
    both.second_n = other->first_n;
    both.difference = DifferenceInterval(both.first, both.first_n, both.second, both.second_n);
    comparison.rows.push_back(std::move(both));
  }
  for (const Row& row : b.rows) {
    if (find(a, row) == a.rows.end() || row.first_n == 0) comparison.only_second.push_back(row);
  }
  if (comparison.rows.empty()) {
    return InvalidArgument("{} and {} have no row in common: task, length, policy, question and turn differ",
                           Quoted(first.name, 1024), Quoted(second.name, 1024));
  }
  comparison.samples_differ = SamplesDiffer(a, b, comparison.rows);
  return comparison;
}

std::string NiahComparisonJson(const NiahComparison& comparison) {
  json::array rows, only_first, only_second;
  for (const Row& row : comparison.rows) {
    json::object object = RowJson(row);
    object.emplace("a", json::object{{"n", row.first_n}, {"correct", row.first}});
    object.emplace("b", json::object{{"n", row.second_n}, {"correct", row.second}});
    object.emplace("difference", row.second - row.first);
    object.emplace("interval", json::array{row.difference.low, row.difference.high});
    object.emplace("differs", row.differs());
    rows.push_back(std::move(object));
  }
  json::array samples;
  for (const std::string& what : comparison.samples_differ) samples.emplace_back(what);
  for (const Row& row : comparison.only_first) only_first.push_back(RowJson(row));
  for (const Row& row : comparison.only_second) only_second.push_back(RowJson(row));
  return PrintJson(json::object{{"a", {{"model", comparison.first_model}}},
                                {"b", {{"model", comparison.second_model}}},
                                {"samples_differ", std::move(samples)},
                                {"rows", std::move(rows)},
                                {"only_a", std::move(only_first)},
                                {"only_b", std::move(only_second)}});
}

std::string NiahComparisonText(const NiahComparison& comparison, bool all) {
  size_t width = 6, differ = 0;
  for (const Row& row : comparison.rows) {
    width = std::max(width, row.how.size());
    differ += row.differs() ? 1 : 0;
  }
  std::string text = fmt::format("A: {}, {}\nB: {}, {}\n", comparison.first_name, comparison.first_model,
                                 comparison.second_name, comparison.second_model);
  if (!comparison.samples_differ.empty()) {
    text += fmt::format("the samples differ, and scores may for that; {}\n",
                        fmt::join(comparison.samples_differ, "; "));
  }
  if (all || differ > 0) {
    text += fmt::format("{:<16}{:>7}  {:<{}}  {:<9}{:>5}{:>9}{:>9}{:>9}{:>17}\n", "task", "length", "policy",
                        width, "question", "turn", "A", "B", "B - A", "95 % interval");
  }
  for (const Row& row : comparison.rows) {
    if (all || row.differs()) text += RowText(row, width);
  }
  text += fmt::format("{} of {} rows differ by more than their interval\n", differ, comparison.rows.size());
  const size_t alone = comparison.only_first.size() + comparison.only_second.size();
  if (alone > 0) {
    text += fmt::format("{} rows are in A alone, {} in B alone\n", comparison.only_first.size(),
                        comparison.only_second.size());
  }
  return text;
}

}  // namespace palimpsest
