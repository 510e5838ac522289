#include "apps/niah/report.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace palimpsest {
namespace {

bool SameTurns(const NiahTrial& a, const NiahTrial& b) {
  const auto key = [](const NiahTrial& t) {
    return std::tie(t.task, t.length, t.policy, t.recall, t.question_visible);
  };
  return key(a) == key(b);
}
bool SameRow(const NiahTrial& a, const NiahTrial& b) { return SameTurns(a, b) && a.turn == b.turn; }

using Trials = std::vector<const NiahTrial*>;

// Trials that have the same key, in the order of their first ones.
template <typename Key>
std::vector<Trials> Grouped(const Trials& trials, Key key) {
  std::map<decltype(key(*trials.front())), size_t> numbers;
  std::vector<Trials> groups;
  for (const NiahTrial* trial : trials) {
    const auto [found, is_new] = numbers.emplace(key(*trial), groups.size());
    if (is_new) groups.emplace_back();
    groups[found->second].push_back(trial);
  }
  return groups;
}

auto TurnsKey(const NiahTrial& t) {
  return std::make_tuple(t.task, t.length, t.policy, t.recall, t.question_visible);
}
auto CellKey(const NiahTrial& t) { return std::make_tuple(TurnsKey(t), t.turn, t.depth_percent); }

template <typename Field>
std::vector<double> Values(const Trials& trials, Field NiahTrial::*field) {
  std::vector<double> values;
  for (const NiahTrial* trial : trials) values.push_back(static_cast<double>(trial->*field));
  return values;
}

void AddReceipt(const NiahTrial& trial, NiahTrial* sums) {
  sums->first_token_seconds += trial.first_token_seconds;
  sums->decode_seconds += trial.decode_seconds;
  sums->load_seconds += trial.load_seconds;
  sums->prefill_seconds += trial.prefill_seconds;
  sums->recall_seconds += trial.recall_seconds;
  sums->spilled_host_bytes += trial.spilled_host_bytes;
  sums->spilled_ssd_bytes += trial.spilled_ssd_bytes;
  sums->recalled_host_bytes += trial.recalled_host_bytes;
  sums->recalled_ssd_bytes += trial.recalled_ssd_bytes;
  sums->cached_tokens += trial.cached_tokens;
  sums->recomputed_tokens += trial.recomputed_tokens;
}

// Tokens after the first, a second; answers of one token say nothing.
double DecodeRate(const Trials& trials) {
  std::vector<double> rates;
  for (const NiahTrial* trial : trials) {
    if (trial->output_tokens < 2 || trial->decode_seconds <= 0) continue;
    rates.push_back(static_cast<double>(trial->output_tokens - 1) / trial->decode_seconds);
  }
  return Median(std::move(rates));
}

NiahCell CellOf(const Trials& all) {
  NiahCell cell{.of = *all.front()};
  Trials trials;
  for (const NiahTrial* trial : all) {
    if (trial->failed.empty()) trials.push_back(trial);
  }
  cell.n = static_cast<int64_t>(trials.size());
  cell.failed = static_cast<int64_t>(all.size() - trials.size());
  if (trials.empty()) return cell;
  cell.of.measured = trials.front()->measured;
  for (const NiahTrial* trial : trials) {
    cell.kept_all += trial->kept_all ? 1 : 0;
    cell.compared += trial->compared ? 1 : 0;
    cell.as_full += trial->as_full ? 1 : 0;
    cell.degraded += trial->degraded ? 1 : 0;
    cell.peak_bytes = std::max(cell.peak_bytes, trial->peak_bytes);
    AddReceipt(*trial, &cell.receipts);
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
  cell.decode_seconds = Median(Values(trials, &NiahTrial::decode_seconds));
  cell.decode_rate = DecodeRate(trials);
  return cell;
}

NiahSummary SummaryOf(const Trials& trials, const std::vector<NiahCell>& cells, bool all_turns) {
  NiahSummary summary{.all = CellOf(trials), .all_turns = all_turns};
  summary.interval = WilsonInterval(summary.all.correct, summary.all.n);
  summary.worst_correct = 2;
  for (const NiahCell& cell : cells) {
    const bool same = all_turns ? SameTurns(cell.of, summary.all.of) : SameRow(cell.of, summary.all.of);
    if (!same || cell.n == 0 || cell.correct >= summary.worst_correct) continue;
    summary.worst_correct = cell.correct;
    summary.worst_depth_percent = cell.of.depth_percent;
  }
  if (summary.all.n == 0) summary.worst_correct = 0;
  return summary;
}

}  // namespace

NiahReport ReportOf(std::span<const NiahTrial> trials) {
  NiahReport report;
  Trials all;
  for (const NiahTrial& trial : trials) {
    all.push_back(&trial);
    report.read_tokens += trial.read_tokens;
    report.read_computed_tokens += trial.read_computed_tokens;
    report.read_peak_bytes = std::max(report.read_peak_bytes, trial.read_peak_bytes);
  }
  if (all.empty()) return report;
  for (const Trials& group : Grouped(all, CellKey)) report.cells.push_back(CellOf(group));
  for (const Trials& group : Grouped(all, TurnsKey)) {
    const std::vector<Trials> turns = Grouped(group, [](const NiahTrial& t) { return t.turn; });
    for (const Trials& turn : turns) report.summary.push_back(SummaryOf(turn, report.cells, false));
    if (turns.size() > 1) report.summary.push_back(SummaryOf(group, report.cells, true));
  }
  return report;
}

std::string_view QuestionName(const NiahTrial& trial) {
  return trial.question_visible ? "visible" : "hidden";
}

std::string NiahHow(const NiahTrial& of) {
  return of.recall == "none" ? of.policy : of.policy + " + " + of.recall;
}

}  // namespace palimpsest
