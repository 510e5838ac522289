// palimpsest niah: does the model find a needle in a haystack, and does it still under a policy?
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "apps/input_files.h"
#include "apps/model.h"
#include "apps/niah/runner.h"
#include "apps/palimpsest/command.h"
#include "apps/scratch_folder.h"
#include "proto/base/policy_spec.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

constexpr int64_t kHaystackBytesMax = 256 << 20;

struct Flags {
  std::vector<std::string> tasks, policies;
  std::vector<std::string> recalls = {"none"};
  std::string haystack, prefill = "auto", question = "hidden";
  std::vector<std::string> lengths = {"1K"}, depths = {"0", "25", "50", "75", "100"};
  int64_t seeds = 5, first_seed = 1, turns = 1, max_tokens = 32;
  bool oracle = false;
};

// What is right but not in this version is no wrong usage.
absl::Status Usage(const absl::Status& status) {
  if (status.ok() || status.code() == absl::StatusCode::kUnimplemented) return status;
  return UsageError(status);
}

absl::Status AddTasks(const Flags& flags, const CommandContext& context, NiahOptions* options) {
  NiahTaskOptions from;
  std::vector<std::string> names = flags.tasks;
  if (names.empty()) names = {flags.haystack.empty() ? "single_noise" : "single_prose"};
  if (!flags.haystack.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(from.prose, ReadInput(flags.haystack, kHaystackBytesMax, *context.cancel));
    from.prose_name = flags.haystack;
  }
  for (const std::string& name : names) {
    absl::StatusOr<std::unique_ptr<NiahTask>> task = MakeNiahTask(name, from);
    PALIMPSEST_RETURN_IF_ERROR(Usage(task.status()));
    options->tasks.push_back(*std::move(task));
  }
  return absl::OkStatus();
}

absl::Status AddSizes(const Flags& flags, NiahOptions* options) {
  for (const std::string& text : flags.lengths) {
    const absl::StatusOr<int64_t> length = ParseCount(text);
    if (!length.ok())
      return UsageError(Error(length.status().code(), "--lengths: {}", Message(length.status())));
    options->lengths.push_back(*length);
  }
  for (const std::string& text : flags.depths) {
    const absl::StatusOr<double> depth = ParseReal(text);
    if (!depth.ok()) return UsageError(Error(depth.status().code(), "--depths: {}", Message(depth.status())));
    if (*depth < 0 || *depth > 100) {
      return UsageError(InvalidArgument("--depths: {} is no percentage, expected 0 to 100", Quoted(text)));
    }
    options->depths_percent.push_back(*depth);
  }
  return absl::OkStatus();
}

absl::Status AddVariants(const Flags& flags, const CommandContext& context, NiahOptions* options) {
  options->recalls.clear();
  for (const std::string& text : flags.recalls) {
    const absl::StatusOr<RecallSpec> recall = ParseRecall(text);
    PALIMPSEST_RETURN_IF_ERROR(Usage(recall.status()));
    options->recalls.push_back(*recall);
  }
  const absl::StatusOr<PrefillChoice> prefill = ParsePrefill(flags.prefill);
  PALIMPSEST_RETURN_IF_ERROR(Usage(prefill.status()));
  options->prefill = *prefill;
  for (const std::string& text : flags.policies) {
    const absl::StatusOr<PolicySpec> spec = ParsePolicy(text);
    PALIMPSEST_RETURN_IF_ERROR(Usage(spec.status()));
    NiahPolicy policy{.text = text, .spec = *spec, .catalyst = ""};
    if (spec->catalyst == PolicySpec::Catalyst::kFile) {
      PALIMPSEST_ASSIGN_OR_RETURN(
          policy.catalyst,
          ReadInput(spec->catalyst_file, context.config.limits.question_bytes, *context.cancel));
    }
    options->policies.push_back(std::move(policy));
  }
  if (flags.question == "hidden") {
    options->visible = {false};
  } else if (flags.question == "visible") {
    options->visible = {true};
  } else if (flags.question == "both") {
    options->visible = {false, true};
  } else {
    const std::vector<std::string> names = {"hidden", "visible", "both"};
    return UsageError(InvalidArgument("--question {} is not hidden, visible or both{}",
                                      Quoted(flags.question), DidYouMean(flags.question, names)));
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  NiahOptions options;
  PALIMPSEST_RETURN_IF_ERROR(AddSizes(flags, &options));
  PALIMPSEST_RETURN_IF_ERROR(AddVariants(flags, context, &options));
  PALIMPSEST_RETURN_IF_ERROR(AddTasks(flags, context, &options));
  options.first_seed = flags.first_seed;
  options.seeds = flags.seeds;
  options.turns = flags.turns;
  options.oracle = flags.oracle;
  options.max_tokens = flags.max_tokens;
  options.cancel = context.cancel;
  options.progress = StderrProgress();
  // Outlives the engine, which writes there.
  std::unique_ptr<ScratchFolder> scratch;
  if (context.config.ssd.enabled) {
    PALIMPSEST_ASSIGN_OR_RETURN(scratch, ScratchFolder::Make(context.config.data_dir, "niah"));
    options.ssd_folder = scratch->path();
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(context.config));
  const absl::StatusOr<std::vector<NiahTrial>> trials = RunNiah(*model, options);
  if (trials.status().code() == absl::StatusCode::kCancelled) {
    return Error(absl::StatusCode::kCancelled,
                 "interrupted, and nothing of it is kept; run fewer --seeds at a time, the next ones with "
                 "--first-seed");
  }
  PALIMPSEST_RETURN_IF_ERROR(trials.status());
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model->StartEngine(options.ssd_folder));
  const NiahReport report = ReportOf(*trials);
  const NiahRun run{.model = model->config().name,
                    .numerics = engine->numerics_class(),
                    .first_seed = flags.first_seed,
                    .seeds = flags.seeds,
                    .turns = flags.turns,
                    .max_tokens = flags.max_tokens};
  return WriteOut(context.json ? ReportJson(report, run) + "\n" : ReportText(report, run));
}

}  // namespace

void AddNiahCommand(CommandSet& commands) {
  constexpr int64_t kCountMax = int64_t{1} << 20;
  const auto flags = std::make_shared<Flags>();
  CLI::App& niah = commands.Add(
      "niah",
      "hides a number in a text and asks for it: what a policy finds again, beside full. A run that is "
      "interrupted starts anew",
      Generation::kNo, [flags](const CommandContext& context) { return Run(*flags, context); });
  niah.add_option("--task", flags->tasks,
                  fmt::format("{}; several with commas; default single_noise, with --haystack single_prose",
                              fmt::join(NiahTaskNames(), ", ")))
      ->type_name("TASK,TASK")
      ->delimiter(',');
  niah.add_option("--haystack", flags->haystack,
                  "prose of the prose tasks, a text file; - reads it from standard input")
      ->type_name("FILE");
  niah.add_option("--lengths", flags->lengths, "tokens of prompt and answer together; default 1K")
      ->type_name("N,N")
      ->delimiter(',');
  niah.add_option("--depths", flags->depths, "where the needle stands, in percent; default 0,25,50,75,100")
      ->type_name("N,N")
      ->delimiter(',');
  niah.add_option("--seeds", flags->seeds, "samples of each length and depth; default 5")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kCountMax));
  niah.add_option("--first-seed", flags->first_seed, "the seed of the first sample; default 1")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 53));
  niah.add_option("--policy", flags->policies,
                  "which tokens stay on the device; give it again for more. full always runs")
      ->type_name("NAME:key=value,...")
      ->allow_extra_args(false);
  niah.add_option(
          "--recall", flags->recalls,
          "how dropped tokens come back to the policies besides full: none, all, or "
          "slices:budget=1024,slice=16,refresh=1,look=4,index=q2; give it again for more; default none")
      ->type_name("NAME:key=value,...")
      ->allow_extra_args(false);
  niah.add_flag("--oracle", flags->oracle,
                "each recall of slices once more, with the slices of the needle itself and others by chance: "
                "what the model makes of a perfect choice");
  niah.add_option("--prefill", flags->prefill,
                  "of the policies besides full: auto, exact, anchored or pot; default auto")
      ->type_name("MODE")
      ->take_last();
  niah.add_option("--question", flags->question,
                  "may the policy see the question: hidden, visible or both; default hidden")
      ->type_name("WHICH")
      ->take_last();
  niah.add_option("--turns", flags->turns,
                  "numbers in each text, asked for one after the other in one conversation; default 1")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{100}));
  niah.add_option("--max-tokens", flags->max_tokens, "of an answer; default 32")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kCountMax));
}

}  // namespace palimpsest
