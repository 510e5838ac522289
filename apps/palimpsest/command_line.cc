// Parses the command line, runs the command, reports what went wrong.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "apps/palimpsest/command.h"
#include "palimpsest_version.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

// Every command; help shows them in this order.
constexpr void (*kCommands[])(CommandSet&) = {
    AddAskCommand,    AddIngestCommand,  AddDocumentsCommand, AddServeCommand, AddCoordinatorCommand,
    AddWorkerCommand, AddStorageCommand, AddInspectCommand,   AddBenchCommand, AddNiahCommand,
};

struct Planned {
  std::string_view name, instead;
};
constexpr Planned kPlanned[] = {
    {"plan", "the receipt of `palimpsest ask` says what a prompt costs on this machine"},
};

constexpr int kExitFailed = 1, kExitUsage = 2;

int Fail(const absl::Status& status) {
  const int exit_status = IsUsageError(status) ? kExitUsage : kExitFailed;
  std::fprintf(stderr, "palimpsest: %s\n", OneLine(Message(status), 8192).c_str());
  return exit_status;
}

// The innermost command that was named.
const CLI::App& NamedCommand(const CLI::App& app) {
  const std::vector<CLI::App*> named = app.get_subcommands();
  return named.empty() ? app : NamedCommand(*named.front());
}

// "documents list"; "" of the whole.
std::string NameOf(const CLI::App& command) {
  if (command.get_parent() == nullptr) return "";
  const std::string parent = NameOf(*command.get_parent());
  return parent.empty() ? command.get_name() : parent + " " + command.get_name();
}

// "palimpsest documents list".
std::string FullName(const CLI::App& command) {
  return command.get_parent() == nullptr ? "palimpsest" : "palimpsest " + NameOf(command);
}

// What an error begins with: "ask: ".
std::string Place(const CLI::App& command) {
  return command.get_parent() == nullptr ? "" : NameOf(command) + ": ";
}

std::string HelpOf(const CLI::App& command) {
  // Not command.help(): that of a group shows the help of what was parsed below it.
  return command.get_formatter()->make_help(&command, FullName(command), CLI::AppFormatMode::Normal);
}

absl::Status UnknownFlag(const CLI::App& command, const std::string& argument) {
  const std::string flag = argument.substr(0, argument.find('='));
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  }
  if (std::find(known.begin(), known.end(), flag) != known.end())
    return InvalidArgument("{}{} belongs behind the command's name: `{} {} ...`", Place(command), flag,
                           FullName(command), flag);
  return InvalidArgument("{}unknown flag {}{}", Place(command), Quoted(flag), DidYouMean(flag, known));
}

absl::Status UnknownCommand(const CLI::App& command, const std::string& name) {
  for (const Planned& planned : kPlanned) {
    if (name == planned.name) return Unimplemented("{} is not there yet; {}", name, planned.instead);
  }
  std::vector<std::string> known;
  for (const CLI::App* one : command.get_subcommands([](const CLI::App*) { return true; })) {
    known.push_back(one->get_name());
  }
  return UsageError(InvalidArgument("{}: unknown command {}{}; `palimpsest help` lists all",
                                    FullName(command), Quoted(name), DidYouMean(name, known)));
}

// What CLI11 found, in our words.
absl::Status Explain(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = NamedCommand(app);
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  for (const std::string& argument : rest) {
    if (argument.size() > 1 && argument.starts_with("-")) return UsageError(UnknownFlag(command, argument));
  }
  const bool has_commands = !command.get_subcommands([](const CLI::App*) { return true; }).empty();
  if (has_commands && !rest.empty()) return UnknownCommand(command, rest.front());
  if (!rest.empty()) {
    // Not quoted: it may be a part of the question (I-18).
    return UsageError(
        InvalidArgument("{}{} too many; put text with spaces into quotes", Place(command),
                        rest.size() == 1 ? "1 argument" : fmt::format("{} arguments", rest.size())));
  }
  return UsageError(InvalidArgument("{}{}; `palimpsest help{}` shows the usage", Place(command),
                                    OneLine(error.what(), 1024),
                                    FullName(command).substr(std::string_view("palimpsest").size())));
}

// The arguments as a shell would take them, quoted where they need it.
std::string Typed(int argc, char** argv) {
  std::string line = "palimpsest";
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    constexpr std::string_view kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
    const bool plain = !word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos;
    line += plain ? " " : " '";
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    if (!plain) line += '\'';
  }
  return line;
}

void AddHelpCommand(CLI::App& app, std::vector<std::string>& topic) {
  CLI::App* const help = app.add_subcommand("help", "shows every flag of a command");
  help->add_option("COMMAND", topic, "the command; none: an overview");
}

absl::Status PrintHelp(const CLI::App& app, const std::vector<std::string>& topic) {
  const CLI::App* command = &app;
  for (const std::string& name : topic) {
    const std::vector<const CLI::App*> found =
        command->get_subcommands([&](const CLI::App* one) { return one->get_name() == name; });
    if (found.empty()) return UnknownCommand(*command, name);
    command = found.front();
  }
  return WriteOut(HelpOf(*command));
}

}  // namespace

int RunCommandLine(int argc, char** argv, const CancelToken& cancel) {
  CLI::App app("Asks language models about long documents, which are read once and kept.", "palimpsest");
  app.set_version_flag("--version", "palimpsest " PALIMPSEST_VERSION " (" PALIMPSEST_REVISION ")");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.get_formatter()->label("REQUIRED", "");
  std::vector<std::string> topic;
  CommandSet commands(app);
  for (const auto add : kCommands) add(commands);
  AddHelpCommand(app, topic);
  app.footer("`palimpsest help COMMAND` shows the flags of a command.");  // of the overview only
  if (argc == 1) {
    std::fputs(HelpOf(app).c_str(), stderr);
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const absl::Status printed = WriteOut(HelpOf(NamedCommand(app)));
    return printed.ok() ? 0 : Fail(printed);
  } catch (const CLI::CallForVersion& version) {
    const absl::Status printed = WriteOut(std::string(version.what()) + "\n");
    return printed.ok() ? 0 : Fail(printed);
  } catch (const CLI::ParseError& error) {
    return Fail(Explain(app, error));
  }
  const absl::Status status =
      app.got_subcommand("help") ? PrintHelp(app, topic) : commands.Run(cancel, Typed(argc, argv));
  return status.ok() ? 0 : Fail(status);
}

}  // namespace palimpsest
