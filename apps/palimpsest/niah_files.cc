// palimpsest niah generate, score and compare: samples, answers and reports as files.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "apps/input_files.h"
#include "apps/model.h"
#include "apps/niah/compare.h"
#include "apps/niah/ruler_files.h"
#include "apps/palimpsest/niah_flags.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kFileBytesMax = int64_t{4} << 30;

// Line by line, so that millions of tokens never are in memory together.
absl::Status Generate(const NiahSampleFlags& flags, const CommandContext& context) {
  NiahOptions options;
  NiahSettings settings;
  PALIMPSEST_RETURN_IF_ERROR(AddNiahSamples(flags, context, &options, &settings));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(context.config));
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model->MakePlanner());
  NiahPrompter prompter(std::move(planner), model->tokenizer(), PrefillChoice::kAuto, GreedySampling(0));
  const std::vector<NiahPlace> places = NiahPlaces(options);
  Progress progress("niah generate", "samples", static_cast<int64_t>(places.size()), StderrProgress());
  int64_t index = 0;
  for (const NiahPlace& place : places) {
    PALIMPSEST_RETURN_IF_ERROR(context.cancel->Check());
    const auto count = [&](const NiahSample& sample) { return prompter.CountTokens(sample); };
    const absl::StatusOr<NiahSample> sample = place.task->Generate(place.request, count);
    if (!sample.ok()) {
      return Error(sample.status().code(), "{}: {}", place.task->name(), Message(sample.status()));
    }
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t length, prompter.CountTokens(*sample));
    for (size_t turn = 0; turn < sample->turns.size(); ++turn) {
      PALIMPSEST_RETURN_IF_ERROR(
          WriteOut(NiahSampleLine(index++, *place.task, place.request, *sample, turn, length)));
    }
    progress.Add(1);
  }
  progress.Done();
  return absl::OkStatus();
}

absl::Status Score(const std::string& file, const std::string& task, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string text, ReadInput(file, kFileBytesMax, *context.cancel));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<NiahScoreRow> rows, ScoreNiahAnswers(text, file, task));
  return WriteOut(context.json ? NiahScoresJson(rows) + "\n" : NiahScoresText(rows));
}

absl::Status Compare(const std::vector<std::string>& files, bool all, const CommandContext& context) {
  NiahReportFile reports[2];
  for (size_t i = 0; i < 2; ++i) {
    reports[i].name = files[i];
    PALIMPSEST_ASSIGN_OR_RETURN(reports[i].text, ReadInput(files[i], kFileBytesMax, *context.cancel));
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const NiahComparison comparison, CompareNiah(reports[0], reports[1]));
  return WriteOut(context.json ? NiahComparisonJson(comparison) + "\n" : NiahComparisonText(comparison, all));
}

}  // namespace

void AddNiahFileCommands(CommandSet& commands, CLI::App& niah) {
  const auto samples = std::make_shared<NiahSampleFlags>();
  CLI::App& generate = commands.AddTo(
      niah, "generate",
      "writes samples as JSON lines in RULER's form, for other engines; needs the tokenizer alone",
      Generation::kNo, [samples](const CommandContext& context) { return Generate(*samples, context); });
  AddNiahSampleFlags(generate, *samples);

  const auto file = std::make_shared<std::string>(), task = std::make_shared<std::string>();
  CLI::App& score = commands.AddTo(
      niah, "score", "scores another engine's answers: samples' lines with \"pred\"", Generation::kNo,
      [file, task](const CommandContext& context) { return Score(*file, *task, context); });
  score.add_option("FILE", *file)->required()->option_text("JSON lines; - is standard input");
  score.add_option("--task", *task, "of lines that do not say; default: the name of the file")
      ->type_name("TASK");

  const auto files = std::make_shared<std::vector<std::string>>();
  const auto all = std::make_shared<bool>(false);
  CLI::App& compare = commands.AddTo(
      niah, "compare", "two reports of `niah --json`: which differences exceed their intervals",
      Generation::kNo,
      [files, all](const CommandContext& context) { return Compare(*files, *all, context); });
  compare.add_option("FILE", *files)->required()->expected(2)->option_text("A.json B.json");
  compare.add_flag("--all", *all, "also the rows that do not differ");
}

}  // namespace palimpsest
