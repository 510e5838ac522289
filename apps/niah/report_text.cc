// The report for people.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "apps/niah/report.h"
#include "proto/base/sizes.h"

namespace palimpsest {
namespace {

std::string Percent(double share) { return fmt::format("{:.1f}", 100 * share); }

std::string Note(const NiahCell& cell) {
  std::string note;
  const auto add = [&](std::string_view what, int64_t count, int64_t of) {
    if (count == 0) return;
    note += count == of ? fmt::format("  {}", what) : fmt::format("  {} in {} of {}", what, count, of);
  };
  if (cell.of.policy != "full") add("kept all", cell.kept_all, cell.n);
  add("degraded", cell.degraded, cell.n);
  add("no answer", cell.failed, cell.n + cell.failed);
  return note;
}

std::string Worst(const NiahSummary& row) {
  if (row.all.n == 0 || row.worst_depth_percent < 0) return "-";
  return fmt::format("{} at {:g} %", Percent(row.worst_correct), row.worst_depth_percent);
}

std::string RowText(const NiahSummary& row, size_t task_width, size_t width) {
  const NiahCell& all = row.all;
  const bool any = all.n > 0, measured = any && all.of.measured;
  return fmt::format(
      "{:<{}}{:>7}  {:<{}}  {:<9}{:>5}{:>5}{:>8}{:>14}{:>17}{:>9}{:>10}{:>10}{:>12}{:>10.3f}{:>9}{}\n",
      all.of.task, task_width, FormatCount(all.of.length), NiahHow(all.of), width, QuestionName(all.of),
      row.all_turns ? "all" : fmt::format("{}", all.of.turn), all.n, any ? Percent(all.correct) : "-",
      any ? fmt::format("{} - {}", Percent(row.interval.low), Percent(row.interval.high)) : "-", Worst(row),
      all.compared > 0 ? Percent(static_cast<double>(all.as_full) / static_cast<double>(all.compared)) : "-",
      any ? fmt::format("{:.0f}", all.prompt_tokens) : "-",
      measured ? fmt::format("{:.0f}", all.resident_tokens) : "-",
      measured ? ApproximateBytes(all.resident_bytes) : "-", all.first_token_seconds,
      all.decode_rate > 0 ? fmt::format("{:.1f}", all.decode_rate) : "-", Note(all));
}

// One map: of a task, what the policy keeps and sees, over all turns.
struct Map {
  const NiahTrial* of;
  std::set<int64_t> lengths;
  std::set<double> depths;
};

std::string_view Shade(double share) {
  constexpr std::array<std::string_view, 5> kShades = {"  ", "░░", "▒▒", "▓▓", "██"};
  return kShades[static_cast<size_t>(std::clamp(share * 4 + 0.5, 0.0, 4.0))];
}

std::string CellText(const NiahReport& report, const Map& map, int64_t length, double depth) {
  double right = 0;
  int64_t n = 0;
  for (const NiahCell& cell : report.cells) {
    const NiahTrial& of = cell.of;
    if (of.task != map.of->task || NiahHow(of) != NiahHow(*map.of) ||
        of.question_visible != map.of->question_visible || of.length != length || of.depth_percent != depth) {
      continue;
    }
    right += cell.correct * static_cast<double>(cell.n);
    n += cell.n;
  }
  if (n == 0) return fmt::format("{:>10}", "-");
  const double share = right / static_cast<double>(n);
  return fmt::format("{:>7.0f} {}", 100 * share, Shade(share));
}

std::string MapsText(const NiahReport& report) {
  std::vector<Map> maps;
  for (const NiahCell& cell : report.cells) {
    if (cell.of.depth_percent < 0) continue;
    const auto same = [&](const Map& map) {
      return map.of->task == cell.of.task && NiahHow(*map.of) == NiahHow(cell.of) &&
             map.of->question_visible == cell.of.question_visible;
    };
    auto map = std::find_if(maps.begin(), maps.end(), same);
    if (map == maps.end()) map = maps.insert(maps.end(), Map{.of = &cell.of, .lengths = {}, .depths = {}});
    map->lengths.insert(cell.of.length);
    map->depths.insert(cell.of.depth_percent);
  }
  std::string text;
  for (const Map& map : maps) {
    if (map.lengths.size() < 2 || map.depths.size() < 2) continue;
    text += fmt::format("\n{}, {}, question {}: % correct by depth and length\n{:>7}", map.of->task,
                        NiahHow(*map.of), QuestionName(*map.of), "");
    for (const int64_t length : map.lengths) text += fmt::format("{:>10}", FormatCount(length));
    text += "\n";
    for (const double depth : map.depths) {
      text += fmt::format("{:>5.4g} %", depth);
      for (const int64_t length : map.lengths) text += CellText(report, map, length, depth);
      text += "\n";
    }
  }
  return text;
}

}  // namespace

std::string ReportText(const NiahReport& report, const NiahRun& run) {
  size_t width = 6, task_width = 14;
  for (const NiahSummary& row : report.summary) {
    width = std::max(width, NiahHow(row.all.of).size());
    task_width = std::max(task_width, row.all.of.task.size() + 1);
  }
  std::string text = fmt::format(
      "{}{}{}; % correct, 95 % interval, worst depth; means of tokens\n{:<{}}{:>7}  {:<{}}  "
      "{:<9}{:>5}{:>5}{:>8}{:>14}{:>17}{:>9}{:>10}{:>10}{:>12}{:>10}{:>9}\n",
      run.model, run.numerics.empty() ? "" : ", ", run.numerics, "task", task_width, "length", "policy",
      width, "question", "turn", "n", "correct", "interval", "worst", "as full", "prompt", "resident",
      "bytes", "first s", "tokens/s");
  for (const NiahSummary& row : report.summary) text += RowText(row, task_width, width);
  if (report.read_tokens > 0) {
    text += fmt::format(
        "\nreading the texts before anything was asked: {} tokens, {} of them computed, {} on the device\n",
        report.read_tokens, report.read_computed_tokens,
        ApproximateBytes(static_cast<double>(report.read_peak_bytes)));
  }
  return text + MapsText(report);
}

}  // namespace palimpsest
