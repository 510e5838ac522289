// The report for programs: JSON and CSV.
#include <fmt/format.h>

#include <boost/json.hpp>

#include "apps/niah/report.h"
#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "text/utf8.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

// JSON is UTF-8; a path may be any bytes.
std::string AsText(const std::string& text) {
  return CheckUtf8(text).ok() ? text : OneLine(text, text.size());
}

// What is not known is null: of a cell without an answer, or where only an engine of ours tells.
json::value Known(bool known, double value) { return known ? json::value(value) : json::value(nullptr); }
json::value KnownCount(bool known, int64_t value) {
  return known ? json::value(value) : json::value(nullptr);
}
json::value Depth(double percent) { return Known(percent >= 0, percent); }

json::object ReceiptsJson(const NiahTrial& sums) {
  return {{"seconds",
           {{"load", sums.load_seconds},
            {"prefill", sums.prefill_seconds},
            {"recall", sums.recall_seconds},
            {"decode", sums.decode_seconds},
            {"first_token", sums.first_token_seconds}}},
          {"spilled_bytes", {{"host", sums.spilled_host_bytes}, {"ssd", sums.spilled_ssd_bytes}}},
          {"recalled_bytes", {{"host", sums.recalled_host_bytes}, {"ssd", sums.recalled_ssd_bytes}}},
          {"cached_tokens", sums.cached_tokens},
          {"recomputed_tokens", sums.recomputed_tokens}};
}

json::object RowJson(const NiahCell& cell) {
  const bool any = cell.n > 0, measured = any && cell.of.measured;
  return {{"task", cell.of.task},
          {"length", cell.of.length},
          {"policy", cell.of.policy},
          {"recall", cell.of.recall},
          {"question", QuestionName(cell.of)},
          {"turn", cell.of.turn},
          {"n", cell.n},
          {"failed", cell.failed},
          {"correct", Known(any, cell.correct)},
          {"as_full", KnownCount(cell.compared > 0, cell.as_full)},
          {"kept_all", cell.kept_all},
          {"degraded", cell.degraded},
          {"prompt_tokens", Known(any, cell.prompt_tokens)},
          {"resident_tokens", Known(measured, cell.resident_tokens)},
          {"resident_bytes", Known(measured, cell.resident_bytes)},
          {"device_bytes_peak", KnownCount(measured, cell.peak_bytes)},
          {"recalled_slices", {{"host", cell.recalled_host}, {"ssd", cell.recalled_ssd}}},
          {"needle_seen", Known(cell.needle_seen >= 0, cell.needle_seen)},
          {"first_token_seconds", Known(any, cell.first_token_seconds)},
          {"decode_tokens_per_second", Known(cell.decode_rate > 0, cell.decode_rate)},
          {"output_tokens", Known(any, cell.output_tokens)},
          {"receipts", ReceiptsJson(cell.receipts)}};
}

json::array IntervalJson(const Interval& interval) { return {interval.low, interval.high}; }

json::object CellJson(const NiahCell& cell) {
  json::object row = RowJson(cell);
  row.emplace("depth", Depth(cell.of.depth_percent));
  row.emplace("interval", IntervalJson(WilsonInterval(cell.correct, cell.n)));
  return row;
}

json::object SummaryJson(const NiahSummary& summary) {
  json::object row = RowJson(summary.all);
  if (summary.all_turns) row["turn"] = nullptr;
  row.emplace("interval", IntervalJson(summary.interval));
  row.emplace("worst", json::object{{"depth", Depth(summary.worst_depth_percent)},
                                    {"correct", Known(summary.all.n > 0, summary.worst_correct)}});
  return row;
}

json::value ReadingJson(const NiahReport& report) {
  if (report.read_tokens == 0) return nullptr;
  return {{"tokens", report.read_tokens},
          {"computed", report.read_computed_tokens},
          {"device_bytes_peak", report.read_peak_bytes}};
}

json::object RunJson(const NiahRun& run, const NiahReport& report) {
  json::object object{{"model", AsText(run.model)},
                      {"numerics", run.numerics},
                      {"first_seed", run.first_seed},
                      {"seeds", run.seeds},
                      {"turns", run.turns},
                      {"max_tokens", KnownCount(run.max_tokens > 0, run.max_tokens)},
                      {"command", AsText(run.command)},
                      {"version", run.version},
                      {"started", run.started},
                      {"reading", ReadingJson(report)}};
  if (!run.endpoint.empty()) object.emplace("endpoint", AsText(run.endpoint));
  if (!run.server.empty()) object.emplace("server", AsText(run.server));
  return object;
}

// A field of a CSV file (RFC 4180).
std::string CsvField(const json::value& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return PrintJson(value);
  std::string text(value.get_string());
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

// The objects and arrays of a cell as columns: "recalled_slices.host", "interval.0".
void Flatten(const std::string& name, const json::value& value, json::object* flat) {
  if (const json::object* const object = value.if_object()) {
    for (const auto& [key, field] : *object) Flatten(name + "." + std::string(key), field, flat);
  } else if (const json::array* const array = value.if_array()) {
    for (size_t i = 0; i < array->size(); ++i) Flatten(fmt::format("{}.{}", name, i), (*array)[i], flat);
  } else {
    flat->emplace(name.substr(1), value);
  }
}

}  // namespace

std::string ReportJson(const NiahReport& report, const NiahRun& run) {
  json::array cells, summary;
  for (const NiahCell& cell : report.cells) cells.push_back(CellJson(cell));
  for (const NiahSummary& row : report.summary) summary.push_back(SummaryJson(row));
  return PrintJson(json::object{
      {"run", RunJson(run, report)}, {"cells", std::move(cells)}, {"summary", std::move(summary)}});
}

std::string ReportCsv(const NiahReport& report) {
  std::string csv;
  for (const NiahCell& cell : report.cells) {
    json::object flat;
    Flatten("", CellJson(cell), &flat);
    std::string names, values;
    for (const auto& [name, value] : flat) {
      names += (names.empty() ? "" : ",") + std::string(name);
      values += (values.empty() ? "" : ",") + CsvField(value);
    }
    if (csv.empty()) csv = names + "\r\n";
    csv += values + "\r\n";
  }
  return csv;
}

}  // namespace palimpsest
