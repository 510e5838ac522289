#include "apps/niah/ruler_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <map>
#include <utility>

#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

struct Line {
  std::string task, answer;
  int64_t tokens = 0;
  NiahTurn turn;
};

// A text, or the first of a list of them.
absl::StatusOr<std::string> TextAt(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (value != nullptr && value->is_array() && !value->get_array().empty())
    value = &value->get_array().front();
  if (value != nullptr && value->is_string()) return std::string(value->get_string());
  return InvalidArgument("it has no text \"{}\"", key);
}

absl::StatusOr<std::vector<std::string>> OutputsOf(const json::object& object) {
  std::vector<std::string> outputs;
  const json::value* const value = object.if_contains("outputs");
  if (value != nullptr && value->is_string()) outputs.emplace_back(value->get_string());
  if (value != nullptr && value->is_array()) {
    for (const json::value& one : value->get_array()) {
      if (one.is_string()) outputs.emplace_back(one.get_string());
    }
  }
  if (outputs.empty()) return InvalidArgument("it has no \"outputs\"");
  return outputs;
}

absl::StatusOr<Line> LineOf(std::string_view text, const std::string& task) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error || !value.is_object()) return InvalidArgument("it is no JSON object");
  const json::object& object = value.get_object();
  Line line;
  PALIMPSEST_ASSIGN_OR_RETURN(line.answer, TextAt(object, "pred"));
  PALIMPSEST_ASSIGN_OR_RETURN(line.turn.references, OutputsOf(object));
  line.turn.question = TextAt(object, "question").value_or("");
  line.task = TextAt(object, "task").value_or(task);
  const json::value* const tokens = object.if_contains("tokens");
  line.tokens = tokens == nullptr ? 0 : tokens->to_number<int64_t>(error);
  return line;
}

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

std::string NiahSampleLine(int64_t index, const NiahTask& task, const NiahRequest& request,
                           const NiahSample& sample, size_t turn, int64_t length) {
  const NiahTurn& of = sample.turns[turn];
  json::object line{{"index", index},
                    {"input", sample.context + "\n" + of.question},
                    {"outputs", json::array(of.references.begin(), of.references.end())},
                    {"length", length},
                    {"answer_prefix", of.answer_prefix},
                    {"task", task.name()},
                    {"tokens", request.tokens},
                    {"depth", task.has_depths() ? json::value(of.depth_percent) : json::value(nullptr)},
                    {"seed", request.seed},
                    {"turn", turn + 1},
                    {"question", of.question},
                    {"max_tokens", sample.answer_tokens}};
  return PrintJson(line) + "\n";
}

absl::StatusOr<std::vector<NiahScoreRow>> ScoreNiahAnswers(std::string_view text, const std::string& file,
                                                           const std::string& task) {
  std::string task_of_file = task.empty() ? std::filesystem::path(file).stem().string() : task;
  std::map<std::pair<std::string, int64_t>, std::vector<double>> scores;
  std::map<std::pair<std::string, int64_t>, int64_t> empty;
  int64_t number = 0;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    at = end + 1;
    if (IsBlank(part)) continue;
    const absl::StatusOr<Line> line = LineOf(part, task_of_file);
    const absl::StatusOr<NiahScorer> scorer = line.ok() ? NiahScorerOf(line->task) : line.status();
    if (!scorer.ok()) {
      return Error(scorer.status().code(), "{}, line {}: {}{}", Quoted(file, 1024), number + 1,
                   Message(scorer.status()), line.ok() ? "; name it with --task" : "");
    }
    const auto key = std::make_pair(line->task, line->tokens);
    scores[key].push_back((*scorer)(line->answer, line->turn));
    empty[key] += IsBlank(line->answer) ? 1 : 0;
  }
  std::vector<NiahScoreRow> rows;
  for (const auto& [key, values] : scores) {
    NiahScoreRow row{.task = key.first, .tokens = key.second, .n = static_cast<int64_t>(values.size())};
    row.empty = empty[key];
    row.correct = Mean(values);
    row.interval = WilsonInterval(row.correct, row.n);
    rows.push_back(std::move(row));
  }
  if (rows.empty()) return InvalidArgument("{} has no answers", Quoted(file, 1024));
  return rows;
}

std::string NiahScoresJson(const std::vector<NiahScoreRow>& rows) {
  json::array array;
  for (const NiahScoreRow& row : rows) {
    array.push_back(json::object{{"task", row.task},
                                 {"length", row.tokens > 0 ? json::value(row.tokens) : json::value(nullptr)},
                                 {"n", row.n},
                                 {"empty", row.empty},
                                 {"correct", row.correct},
                                 {"interval", json::array{row.interval.low, row.interval.high}}});
  }
  return PrintJson(json::object{{"scores", std::move(array)}});
}

std::string NiahScoresText(const std::vector<NiahScoreRow>& rows) {
  std::string text = fmt::format("{:<18}{:>8}{:>7}{:>9}{:>16}{:>7}\n", "task", "length", "n", "correct",
                                 "interval", "empty");
  for (const NiahScoreRow& row : rows) {
    text += fmt::format("{:<18}{:>8}{:>7}{:>9.1f}{:>16}{:>7}\n", row.task,
                        row.tokens > 0 ? FormatCount(row.tokens) : "-", row.n, 100 * row.correct,
                        fmt::format("{:.1f} - {:.1f}", 100 * row.interval.low, 100 * row.interval.high),
                        row.empty);
  }
  return text;
}

}  // namespace palimpsest
