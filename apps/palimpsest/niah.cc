// palimpsest niah: does the model find a needle in a haystack, and does it still under a policy?
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <sstream>

#include "apps/input_files.h"
#include "apps/model.h"
#include "apps/niah/report.h"
#include "apps/niah/runner.h"
#include "apps/niah_html.h"
#include "apps/output_file.h"
#include "apps/palimpsest/niah_flags.h"
#include "apps/results.h"
#include "apps/scratch_folder.h"
#include "palimpsest_version.h"
#include "proto/base/ids.h"
#include "proto/base/policy_spec.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

struct Flags {
  NiahSampleFlags samples;
  std::vector<std::string> policies, recalls;
  std::string prefill = "auto", question;
  bool oracle = false;
  std::string csv, html, resume;
  std::string endpoint, endpoint_model;
};

// What is right but not in this version is no wrong usage.
absl::Status Usage(const absl::Status& status) {
  if (status.ok() || status.code() == absl::StatusCode::kUnimplemented) return status;
  return UsageError(status);
}

absl::Status AddPolicies(const Flags& flags, const CommandContext& context, NiahOptions* options,
                         NiahSettings* settings) {
  for (const std::string& text : flags.policies) {
    const absl::StatusOr<PolicySpec> spec = ParsePolicy(text);
    PALIMPSEST_RETURN_IF_ERROR(Usage(spec.status()));
    NiahPolicy policy{.text = text, .spec = *spec, .catalyst = ""};
    if (spec->catalyst == PolicySpec::Catalyst::kFile) {
      PALIMPSEST_ASSIGN_OR_RETURN(
          policy.catalyst,
          ReadInput(spec->catalyst_file, context.config.limits.question_bytes, *context.cancel));
      settings->emplace_back("catalyst of " + text, Sha256(policy.catalyst).ToHex().substr(0, 16));
    }
    options->policies.push_back(std::move(policy));
  }
  settings->emplace_back("policies", fmt::format("{}", fmt::join(flags.policies, " ")));
  return absl::OkStatus();
}

absl::Status AddQuestion(const Flags& flags, NiahOptions* options, NiahSettings* settings) {
  // An endpoint is shown all at once.
  const std::string question = !flags.question.empty()  ? flags.question
                               : flags.endpoint.empty() ? "hidden"
                                                        : "visible";
  if (question == "hidden") {
    options->visible = {false};
  } else if (question == "visible") {
    options->visible = {true};
  } else if (question == "both") {
    options->visible = {false, true};
  } else {
    const std::vector<std::string> names = {"hidden", "visible", "both"};
    return UsageError(InvalidArgument("--question {} is not hidden, visible or both{}", Quoted(question),
                                      DidYouMean(question, names)));
  }
  settings->emplace_back("question", question);
  return absl::OkStatus();
}

absl::Status AddVariants(const Flags& flags, const CommandContext& context, NiahOptions* options,
                         NiahSettings* settings) {
  options->recalls.clear();
  for (const std::string& text : flags.recalls.empty() ? std::vector<std::string>{"none"} : flags.recalls) {
    const absl::StatusOr<RecallSpec> recall = ParseRecall(text);
    PALIMPSEST_RETURN_IF_ERROR(Usage(recall.status()));
    options->recalls.push_back(*recall);
  }
  const absl::StatusOr<PrefillChoice> prefill = ParsePrefill(flags.prefill);
  PALIMPSEST_RETURN_IF_ERROR(Usage(prefill.status()));
  options->prefill = *prefill;
  options->oracle = flags.oracle;
  PALIMPSEST_RETURN_IF_ERROR(AddPolicies(flags, context, options, settings));
  PALIMPSEST_RETURN_IF_ERROR(AddQuestion(flags, options, settings));
  settings->emplace_back("recalls", fmt::format("{}", fmt::join(flags.recalls, " ")));
  settings->emplace_back("oracle", flags.oracle ? "yes" : "no");
  settings->emplace_back("prefill", flags.prefill);
  return absl::OkStatus();
}

// What a server does not tell, and what an endpoint has no say in.
absl::Status CheckOthersFlags(const Flags& flags, const std::string& server) {
  if (!server.empty() && !flags.endpoint.empty()) {
    return UsageError(
        InvalidArgument("--endpoint asks any server as it is, --server (or $PALIMPSEST_SERVER) one of ours: "
                        "give one of them"));
  }
  if (!server.empty() && flags.oracle) {
    return UsageError(
        InvalidArgument("--oracle is not for --server, which does not tell where a needle's tokens are"));
  }
  if (flags.endpoint.empty()) {
    if (flags.endpoint_model.empty()) return absl::OkStatus();
    return UsageError(
        InvalidArgument("--endpoint-model names a model of an endpoint: give --endpoint URL, too"));
  }
  if (!flags.endpoint.starts_with("http://") && !flags.endpoint.starts_with("https://")) {
    return UsageError(InvalidArgument("--endpoint {} does not begin with http:// or https://",
                                      Quoted(flags.endpoint, 256)));
  }
  const auto refuse = [](std::string_view flag) {
    return UsageError(InvalidArgument(
        "{} is not for --endpoint: it answers as it likes, and always sees the question", flag));
  };
  if (!flags.policies.empty()) return refuse("--policy");
  if (!flags.recalls.empty()) return refuse("--recall");
  if (flags.oracle) return refuse("--oracle");
  if (flags.prefill != "auto") return refuse("--prefill");
  if (!flags.question.empty() && flags.question != "visible") return refuse("--question " + flags.question);
  return absl::OkStatus();
}

absl::Status CheckOutputs(const Flags& flags) {
  if (!flags.csv.empty()) PALIMPSEST_RETURN_IF_ERROR(CheckOutputFile(flags.csv));
  if (!flags.html.empty()) PALIMPSEST_RETURN_IF_ERROR(CheckOutputFile(flags.html));
  return absl::OkStatus();
}

// Model, version and what of the configuration an answer or its bytes depend on. What device.isa auto stands
// for is the machine's, so the engine says how it computes: it starts here, as a run does in any case, and
// reads the whole file for its digest.
absl::Status AddMachine(const Model& model, const NiahAnswerer& answerer, const Flags& flags,
                        const CommandContext& context, NiahSettings* settings) {
  std::error_code ignored;
  std::string file = fmt::format("{}, {} bytes", model.config().name,
                                 std::filesystem::file_size(model.file().path(), ignored));
  if (flags.endpoint.empty() && context.server.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string hash, model.file().ContentHash());
    file += ", SHA-256 " + hash.substr(0, 16);
  }
  settings->emplace_back("model", file);
  settings->emplace_back("numerics", answerer.numerics());
  settings->emplace_back("version", PALIMPSEST_VERSION " (" PALIMPSEST_REVISION ")");
  settings->emplace_back("endpoint", flags.endpoint);
  settings->emplace_back("endpoint_model", flags.endpoint_model);
  settings->emplace_back("server", context.server);
  std::istringstream lines(PrintEffective(context.config));
  std::string line, section;
  while (std::getline(lines, line)) {
    if (!line.starts_with(' ')) {
      section = line.substr(0, line.find(':'));
    } else if (section == "device" || section == "host" || section == "ssd" || section == "prefill") {
      const size_t colon = line.find(':');
      const std::string value = line.substr(colon + 1, line.rfind("  #") - colon - 1);
      settings->emplace_back(section + "." + line.substr(2, colon - 2),
                             value.substr(value.find_first_not_of(' ')));
    }
  }
  return absl::OkStatus();
}

std::string Now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return FormatTime(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// Where a run that has no file of its own keeps what it finished: by its settings, so that the same command
// finds it again.
std::string StatePath(const NiahSettings& settings, const Config& config) {
  std::string all;
  for (const auto& [name, value] : settings) all.append(name).append("\n").append(value).append("\n");
  return fmt::format("{}/niah/{}.jsonl", config.data_dir, Sha256(all).ToHex().substr(0, 16));
}

// What stands in the table as a hole.
absl::Status Failures(const std::vector<NiahTrial>& trials) {
  const NiahTrial* first = nullptr;
  size_t failed = 0;
  for (const NiahTrial& trial : trials) {
    if (trial.failed.empty()) continue;
    if (first == nullptr) first = &trial;
    ++failed;
  }
  if (first == nullptr) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable,
               "{} of {} answers did not come; the first, of {}, {} tokens: {}; run it again for those",
               failed, trials.size(), first->task, first->length, first->failed);
}

absl::Status WriteReport(const std::vector<NiahTrial>& trials, const NiahRun& run, const Flags& flags,
                         bool json) {
  const NiahReport report = ReportOf(trials);
  if (!flags.csv.empty()) PALIMPSEST_RETURN_IF_ERROR(WriteOutputFile(flags.csv, ReportCsv(report)));
  if (!flags.html.empty()) {
    PALIMPSEST_RETURN_IF_ERROR(WriteOutputFile(flags.html, NiahHtml(ReportJson(report, run))));
  }
  return WriteOut(json ? ReportJson(report, run) + "\n" : ReportText(report, run));
}

absl::StatusOr<std::unique_ptr<NiahAnswerer>> AnswererOf(const Flags& flags, const CommandContext& context,
                                                         const NiahOptions& options, Model& model) {
  if (!flags.endpoint.empty()) {
    return MakeEndpointAnswerer(
        model, {.url = flags.endpoint, .model = flags.endpoint_model, .api_key = context.api_key},
        context.cancel);
  }
  if (context.server.empty()) {
    return MakeEngineAnswerer(model, options.prefill, options.ssd_folder, context.cancel);
  }
  return MakeServerAnswerer(model, options.prefill, context.config,
                            {.server = context.server, .api_key = context.api_key, .cancel = context.cancel});
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  NiahOptions options;
  NiahSettings settings;
  PALIMPSEST_RETURN_IF_ERROR(CheckOthersFlags(flags, context.server));
  PALIMPSEST_RETURN_IF_ERROR(CheckOutputs(flags));
  PALIMPSEST_RETURN_IF_ERROR(AddNiahSamples(flags.samples, context, &options, &settings));
  PALIMPSEST_RETURN_IF_ERROR(AddVariants(flags, context, &options, &settings));
  options.cancel = context.cancel;
  options.progress = StderrProgress();
  // Outlives the engine, which writes there.
  std::unique_ptr<ScratchFolder> scratch;
  if (context.config.ssd.enabled && flags.endpoint.empty() && context.server.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(scratch, ScratchFolder::Make(context.config.data_dir, "niah"));
    options.ssd_folder = scratch->path();
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(context.config));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<NiahAnswerer> answerer,
                              AnswererOf(flags, context, options, *model));
  PALIMPSEST_RETURN_IF_ERROR(AddMachine(*model, *answerer, flags, context, &settings));
  const std::string path = flags.resume.empty() ? StatePath(settings, context.config) : flags.resume;
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<NiahState> state, NiahState::Open(path, settings, Now()));
  options.state = state.get();
  if (state->damaged_lines() > 0) {
    options.progress.write(
        fmt::format("niah: {} damaged lines of {} are not used: what they had runs again\n",
                    state->damaged_lines(), state->path()));
  }
  const absl::StatusOr<std::vector<NiahTrial>> trials = RunNiah(*answerer, options);
  if (!trials.ok() && !state->has_any()) {
    state->Remove();
  } else if (!trials.ok()) {
    const bool interrupted = trials.status().code() == absl::StatusCode::kCancelled;
    return Error(trials.status().code(), "{}; the same command goes on from here: what is finished is in {}",
                 interrupted ? "interrupted" : Message(trials.status()), state->path());
  }
  PALIMPSEST_RETURN_IF_ERROR(trials.status());
  const NiahRun run{.model = answerer->name(),
                    .numerics = answerer->numerics(),
                    .first_seed = options.first_seed,
                    .seeds = options.seeds,
                    .turns = options.turns,
                    .max_tokens = options.max_tokens,
                    .command = context.command_line,
                    .version = PALIMPSEST_VERSION " (" PALIMPSEST_REVISION ")",
                    .started = state->started(),
                    .endpoint = flags.endpoint,
                    .server = context.server};
  PALIMPSEST_RETURN_IF_ERROR(WriteReport(*trials, run, flags, context.json));
  PALIMPSEST_RETURN_IF_ERROR(Failures(*trials));
  if (flags.resume.empty()) state->Remove();
  return absl::OkStatus();
}

}  // namespace

void AddNiahCommand(CommandSet& commands) {
  const auto flags = std::make_shared<Flags>();
  CLI::App& niah = commands.Add(
      "niah",
      "hides facts in a text and asks for them: what a policy finds again, beside full. A run that was "
      "interrupted goes on where it stopped",
      Generation::kNo, [flags](const CommandContext& context) { return Run(*flags, context); });
  commands.TakesServer(niah);
  AddNiahSampleFlags(niah, flags->samples);
  niah.add_option("--policy", flags->policies,
                  "which tokens stay on the device; give it again for more. full always runs")
      ->type_name("NAME:key=value,...")
      ->allow_extra_args(false);
  niah.add_option("--recall", flags->recalls,
                  "how dropped tokens come back to the policies besides full: none, all, or "
                  "slices:budget=1024,slice=16,refresh=1,words=256,whole=8192,index=q2; give it again for "
                  "more; default none")
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
  niah.add_option("--csv", flags->csv, "also writes the cells as comma-separated values")
      ->type_name("FILE")
      ->take_last();
  niah.add_option("--html", flags->html, "also writes a page for a browser: maps, curves, costs")
      ->type_name("FILE")
      ->take_last();
  niah.add_option(
          "--resume", flags->resume,
          "where finished answers are kept, and found again; default: a file in the data folder, until "
          "the run is done")
      ->type_name("FILE")
      ->take_last();
  niah.add_option("--endpoint", flags->endpoint,
                  "an OpenAI-compatible server answers instead of this engine; --model counts the tokens, "
                  "$PALIMPSEST_API_KEY is sent as its key")
      ->type_name("URL")
      ->take_last();
  niah.add_option("--endpoint-model", flags->endpoint_model,
                  "what the endpoint calls the model; default: the first that it lists")
      ->type_name("NAME")
      ->take_last();
  AddNiahFileCommands(commands, niah);
}

}  // namespace palimpsest
