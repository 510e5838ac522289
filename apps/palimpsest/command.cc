#include "apps/palimpsest/command.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include "absl/strings/cord.h"
#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr char kUsagePayload[] = "palimpsest/usage";
constexpr std::string_view kGenerateSection = "generate.";

// --device-arena-bytes of device.arena_bytes; the settings of generate. have short names.
std::string FlagOf(std::string_view key) {
  if (key.starts_with(kGenerateSection)) key.remove_prefix(kGenerateSection.size());
  std::string flag = "--";
  for (const char c : key) flag += c == '.' || c == '_' ? '-' : c;
  return flag;
}

}  // namespace

std::map<std::string, std::string> Environment() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos) variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

namespace {

absl::Status StartLog(const Config::Log& log) {
  LogOptions options;
  PALIMPSEST_ASSIGN_OR_RETURN(options.level, ParseLogLevel(log.level));
  PALIMPSEST_ASSIGN_OR_RETURN(options.format, ParseLogFormat(log.format));
  InitLog(std::move(options));
  return absl::OkStatus();
}

}  // namespace

absl::Status UsageError(absl::Status status) {
  if (!status.ok()) status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsagePayload).has_value(); }

void CommandSet::AddCommonFlags(CLI::App& command, Generation generation) {
  command.add_flag("--json", common_.json, "print one JSON object on stdout and nothing else");
  command.add_option("--config", common_.config_file, "YAML file of settings (default: $PALIMPSEST_CONFIG)")
      ->type_name("FILE")
      ->take_last();
  command.add_flag("--print-effective-config", common_.print_config,
                   "print all settings with where each comes from, and stop");
  for (const ConfigField& field : ConfigFields()) {
    const bool generate = field.key.starts_with(kGenerateSection);
    if (generate && generation == Generation::kNo) continue;
    const bool common = generate || field.key == "data_dir" || field.key == "model";
    std::string help = field.default_value.empty() ? "" : fmt::format("default {}", field.default_value);
    if (field.key == "model") help = "default: the quick-start model";
    if (field.key == "data_dir") help = "default ~/.local/share/palimpsest";
    command
        .add_option_function<std::string>(
            FlagOf(field.key),
            [this, key = field.key](const std::string& text) { common_.settings.emplace_back(key, text); },
            help)
        ->type_name(fmt::format("({})", field.accepts))
        ->take_last()
        ->group(common ? "Options" : "Settings (also in --config FILE and as PALIMPSEST_... variables)");
  }
}

void CommandSet::AddShortFlag(CLI::App& command, std::string_view flag, std::string_view key) {
  command
      .add_option_function<std::string>(
          std::string(flag),
          [this, key = std::string(key)](const std::string& text) {
            common_.settings.emplace_back(key, text);
          },
          fmt::format("short for {}", FlagOf(key)))
      ->take_last();
}

void CommandSet::TakesServer(CLI::App& command) {
  command
      .add_option("--server", common_.server,
                  "a running `palimpsest serve` does the work: http://HOST:PORT (default: "
                  "$PALIMPSEST_SERVER, else this "
                  "process); $PALIMPSEST_API_KEY is sent as its key")
      ->type_name("URL")
      ->take_last();
}

CLI::App& CommandSet::AddTo(CLI::App& parent, std::string_view name, std::string_view summary,
                            Generation generation, RunCommand run) {
  CLI::App* const command = parent.add_subcommand(std::string(name), std::string(summary));
  AddCommonFlags(*command, generation);
  runs_.emplace_back(command, std::move(run));
  return *command;
}

CLI::App& CommandSet::Add(std::string_view name, std::string_view summary, Generation generation,
                          RunCommand run) {
  return AddTo(app_, name, summary, generation, std::move(run));
}

CLI::App& CommandSet::AddGroup(std::string_view name, std::string_view summary) {
  CLI::App* const group = app_.add_subcommand(std::string(name), std::string(summary));
  group->require_subcommand(1);
  return *group;
}

absl::StatusOr<CommandContext> CommandSet::MakeContext(const CancelToken& cancel) const {
  const ConfigInputs inputs{
      .file = common_.config_file, .environment = Environment(), .flags = common_.settings};
  absl::StatusOr<Config> config = LoadConfig(inputs);
  if (config.status().code() == absl::StatusCode::kInvalidArgument) return UsageError(config.status());
  PALIMPSEST_RETURN_IF_ERROR(config.status());
  const auto variable = [&](const char* name) {
    const auto found = inputs.environment.find(name);
    return found == inputs.environment.end() ? std::string() : found->second;
  };
  return CommandContext{.config = std::move(*config),
                        .json = common_.json,
                        .cancel = &cancel,
                        .server = common_.server.empty() ? variable("PALIMPSEST_SERVER") : common_.server,
                        .api_key = variable("PALIMPSEST_API_KEY")};
}

absl::Status CommandSet::Run(const CancelToken& cancel, const std::string& command_line) {
  for (const auto& [command, run] : runs_) {
    if (!command->parsed() || !command->get_subcommands().empty()) continue;  // one below it runs
    PALIMPSEST_ASSIGN_OR_RETURN(CommandContext context, MakeContext(cancel));
    context.command_line = command_line;
    if (common_.print_config) return WriteOut(PrintEffective(context.config));
    PALIMPSEST_RETURN_IF_ERROR(StartLog(context.config.log));
    return run(context);
  }
  return absl::OkStatus();  // help
}

ClientOptions ClientOptionsOf(const CommandContext& context) {
  return {.server = context.server,
          .api_key = context.api_key,
          .cancel = context.cancel,
          .progress = StderrProgress()};
}

absl::Status WriteOut(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) {
    return absl::OkStatus();
  }
  return Error(absl::StatusCode::kUnavailable, "standard output cannot be written: {}",
               std::generic_category().message(errno));
}

}  // namespace palimpsest
