#include "apps/niah/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <tuple>

#include "proto/base/json.h"
#include "proto/base/sizes.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

std::string_view QuestionName(const NiahTrial& trial) {
  return trial.question_visible ? "visible" : "hidden";
}

bool SameTurns(const NiahTrial& a, const NiahTrial& b) {
  const auto key = [](const NiahTrial& t) {
    return std::tie(t.task, t.length, t.policy, t.recall, t.question_visible);
  };
  return key(a) == key(b);
}
bool SameRow(const NiahTrial& a, const NiahTrial& b) { return SameTurns(a, b) && a.turn == b.turn; }
bool SameCell(const NiahTrial& a, const NiahTrial& b) {
  return SameRow(a, b) && a.depth_percent == b.depth_percent;
}

using Trials = std::vector<const NiahTrial*>;

// Trials that are `same`, in the order of their first ones.
std::vector<Trials> Grouped(std::span<const NiahTrial> trials,
                            bool (*same)(const NiahTrial&, const NiahTrial&)) {
  std::vector<Trials> groups;
  for (const NiahTrial& trial : trials) {
    const auto group = std::find_if(groups.begin(), groups.end(),
                                    [&](const Trials& one) { return same(*one.front(), trial); });
    if (group == groups.end()) {
      groups.push_back({&trial});
    } else {
      group->push_back(&trial);
    }
  }
  return groups;
}

template <typename Field>
std::vector<double> Values(const Trials& trials, Field NiahTrial::*field) {
  std::vector<double> values;
  for (const NiahTrial* trial : trials) values.push_back(static_cast<double>(trial->*field));
  return values;
}

NiahCell CellOf(const Trials& trials) {
  NiahCell cell{.of = *trials.front()};
  cell.n = static_cast<int64_t>(trials.size());
  for (const NiahTrial* trial : trials) {
    cell.kept_all += trial->kept_all ? 1 : 0;
    cell.as_full += trial->as_full ? 1 : 0;
    cell.degraded += trial->degraded ? 1 : 0;
    cell.peak_bytes = std::max(cell.peak_bytes, trial->peak_bytes);
  }
  cell.correct = Mean(Values(trials, &NiahTrial::score));
  cell.prompt_tokens = Mean(Values(trials, &NiahTrial::prompt_tokens));
  cell.output_tokens = Mean(Values(trials, &NiahTrial::output_tokens));
  cell.resident_tokens = Mean(Values(trials, &NiahTrial::resident_tokens));
  cell.resident_bytes = Mean(Values(trials, &NiahTrial::resident_bytes));
  cell.recalled_host = Mean(Values(trials, &NiahTrial::recalled_host));
  cell.recalled_ssd = Mean(Values(trials, &NiahTrial::recalled_ssd));
  cell.needle_seen = Mean(Values(trials, &NiahTrial::needle_seen));
  cell.first_token_seconds = Median(Values(trials, &NiahTrial::first_token_seconds));
  return cell;
}

NiahSummary SummaryOf(const Trials& trials, const std::vector<NiahCell>& cells, bool all_turns) {
  NiahSummary summary{.all = CellOf(trials), .all_turns = all_turns};
  summary.interval = WilsonInterval(summary.all.correct, summary.all.n);
  summary.worst_correct = 2;
  for (const NiahCell& cell : cells) {
    const bool same = all_turns ? SameTurns(cell.of, summary.all.of) : SameRow(cell.of, summary.all.of);
    if (!same || cell.correct >= summary.worst_correct) continue;
    summary.worst_correct = cell.correct;
    summary.worst_depth_percent = cell.of.depth_percent;
  }
  return summary;
}

json::object RowJson(const NiahCell& cell) {
  return {{"task", cell.of.task},
          {"length", cell.of.length},
          {"policy", cell.of.policy},
          {"recall", cell.of.recall},
          {"question", QuestionName(cell.of)},
          {"turn", cell.of.turn},
          {"n", cell.n},
          {"correct", cell.correct},
          {"as_full", cell.as_full},
          {"kept_all", cell.kept_all},
          {"degraded", cell.degraded},
          {"prompt_tokens", cell.prompt_tokens},
          {"resident_tokens", cell.resident_tokens},
          {"resident_bytes", cell.resident_bytes},
          {"device_bytes_peak", cell.peak_bytes},
          {"recalled_slices", {{"host", cell.recalled_host}, {"ssd", cell.recalled_ssd}}},
          {"needle_seen", cell.needle_seen < 0 ? json::value(nullptr) : json::value(cell.needle_seen)},
          {"first_token_seconds", cell.first_token_seconds},
          {"output_tokens", cell.output_tokens}};
}

json::object CellJson(const NiahCell& cell) {
  json::object row = RowJson(cell);
  row.emplace("depth", cell.of.depth_percent);
  return row;
}

json::object SummaryJson(const NiahSummary& summary) {
  json::object row = RowJson(summary.all);
  if (summary.all_turns) row["turn"] = nullptr;
  row.emplace("interval", json::array{summary.interval.low, summary.interval.high});
  row.emplace("worst",
              json::object{{"depth", summary.worst_depth_percent}, {"correct", summary.worst_correct}});
  return row;
}

std::string Percent(double share) { return fmt::format("{:.1f}", 100 * share); }

// What recall brings back belongs to what the policy keeps.
std::string HowOf(const NiahTrial& of) {
  return of.recall == "none" ? of.policy : of.policy + " + " + of.recall;
}

std::string Note(const NiahCell& cell) {
  std::string note;
  const auto add = [&](std::string_view what, int64_t count) {
    if (count == cell.n) note += fmt::format("  {}", what);
    if (count > 0 && count < cell.n) note += fmt::format("  {} in {} of {}", what, count, cell.n);
  };
  if (cell.of.policy != "full") add("kept all", cell.kept_all);
  add("degraded", cell.degraded);
  return note;
}

}  // namespace

NiahReport ReportOf(std::span<const NiahTrial> trials) {
  NiahReport report;
  for (const Trials& group : Grouped(trials, SameCell)) report.cells.push_back(CellOf(group));
  for (const Trials& group : Grouped(trials, SameTurns)) {
    std::vector<NiahTrial> of_group;
    for (const NiahTrial* trial : group) of_group.push_back(*trial);
    const std::vector<Trials> turns = Grouped(of_group, SameRow);
    for (const Trials& turn : turns) report.summary.push_back(SummaryOf(turn, report.cells, false));
    if (turns.size() > 1) report.summary.push_back(SummaryOf(group, report.cells, true));
  }
  return report;
}

std::string ReportJson(const NiahReport& report, const NiahRun& run) {
  json::array cells, summary;
  for (const NiahCell& cell : report.cells) cells.push_back(CellJson(cell));
  for (const NiahSummary& row : report.summary) summary.push_back(SummaryJson(row));
  return PrintJson(json::object{{"run",
                                 {{"model", run.model},
                                  {"numerics", run.numerics},
                                  {"first_seed", run.first_seed},
                                  {"seeds", run.seeds},
                                  {"turns", run.turns},
                                  {"max_tokens", run.max_tokens}}},
                                {"cells", std::move(cells)},
                                {"summary", std::move(summary)}});
}

std::string ReportText(const NiahReport& report, const NiahRun& run) {
  size_t width = 6;
  for (const NiahSummary& row : report.summary) width = std::max(width, HowOf(row.all.of).size());
  std::string text = fmt::format(
      "{}, {}; % correct, 95 % interval, worst depth; means of tokens\n{:<14}{:>7}  {:<{}}  {:<9}{:>5}{:>5}"
      "{:>8}{:>14}{:>17}{:>9}{:>10}{:>10}{:>12}{:>10}\n",
      run.model, run.numerics, "task", "length", "policy", width, "question", "turn", "n", "correct",
      "interval", "worst", "as full", "prompt", "resident", "bytes", "first s");
  for (const NiahSummary& row : report.summary) {
    const NiahCell& all = row.all;
    text += fmt::format(
        "{:<14}{:>7}  {:<{}}  {:<9}{:>5}{:>5}{:>8}{:>14}{:>17}{:>9}{:>10.0f}{:>10.0f}{:>12}{:>10.3f}{}\n",
        all.of.task, FormatCount(all.of.length), HowOf(all.of), width, QuestionName(all.of),
        row.all_turns ? "all" : fmt::format("{}", all.of.turn), all.n, Percent(all.correct),
        fmt::format("{} - {}", Percent(row.interval.low), Percent(row.interval.high)),
        fmt::format("{} at {:g} %", Percent(row.worst_correct), row.worst_depth_percent),
        Percent(static_cast<double>(all.as_full) / static_cast<double>(all.n)), all.prompt_tokens,
        all.resident_tokens, ApproximateBytes(all.resident_bytes), all.first_token_seconds, Note(all));
  }
  return text;
}

}  // namespace palimpsest
