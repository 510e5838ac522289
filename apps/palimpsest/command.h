// How a subcommand is made: its flags, what it gets when it runs, and how it fails.
//
// To add one: a file apps/palimpsest/NAME.cc with
//     void AddNameCommand(CommandSet& commands) {
//       auto flags = std::make_shared<Flags>();
//       CLI::App& app = commands.Add("name", "what it does", Generation::kNo,
//                                    [flags](const CommandContext& context) { return Run(*flags, context);
//                                    });
//       app.add_option(...);
//     }
// a line here and one in the table of commands.cc.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "apps/client.h"
#include "proto/base/cancel.h"
#include "proto/base/config.h"

namespace CLI {
class App;
}

namespace palimpsest {

struct CommandContext {
  Config config;              // of all sources
  bool json = false;          // one JSON object on stdout and nothing else
  const CancelToken* cancel;  // set by Ctrl-C
  std::string server;         // URL of --server or $PALIMPSEST_SERVER; empty: this process does the work
  std::string api_key;        // $PALIMPSEST_API_KEY, for that server
  std::string command_line;   // as it was typed, for a shell
};

// OK: exit status 0. An error: one line on stderr and 1, or 2 if it is a UsageError.
using RunCommand = std::function<absl::Status(const CommandContext& context)>;

// Marks an error as wrong usage.
absl::Status UsageError(absl::Status status);
bool IsUsageError(const absl::Status& status);

// Whether a command takes the settings of generate.* as flags (--max-tokens, --seed, ...).
enum class Generation { kNo, kYes };

class CommandSet {
 public:
  explicit CommandSet(CLI::App& app) : app_(app) {}
  // A subcommand with the flags that all take; the command adds its own.
  CLI::App& Add(std::string_view name, std::string_view summary, Generation generation, RunCommand run);
  // A subcommand that prints its help alone; its own subcommands run.
  CLI::App& AddGroup(std::string_view name, std::string_view summary);
  CLI::App& AddTo(CLI::App& parent, std::string_view name, std::string_view summary, Generation generation,
                  RunCommand run);

  // Another name for the flag of a setting.
  void AddShortFlag(CLI::App& command, std::string_view flag, std::string_view key);
  // Gives the command --server.
  void TakesServer(CLI::App& command);

  CLI::App& app() { return app_; }
  // Runs what was parsed.
  absl::Status Run(const CancelToken& cancel, const std::string& command_line);

 private:
  struct Common {
    std::string config_file;
    std::vector<std::pair<std::string, std::string>> settings;  // dotted key and text
    bool json = false;
    bool print_config = false;
    std::string server;
  };
  void AddCommonFlags(CLI::App& command, Generation generation);
  absl::StatusOr<CommandContext> MakeContext(const CancelToken& cancel) const;

  CLI::App& app_;
  Common common_;
  std::vector<std::pair<CLI::App*, RunCommand>> runs_;
};

// Who does the work of the command.
ClientOptions ClientOptionsOf(const CommandContext& context);

void AddAskCommand(CommandSet& commands);
void AddBenchCommand(CommandSet& commands);
void AddCoordinatorCommand(CommandSet& commands);
void AddDocumentsCommand(CommandSet& commands);
void AddIngestCommand(CommandSet& commands);
void AddInspectCommand(CommandSet& commands);
void AddNiahCommand(CommandSet& commands);
void AddServeCommand(CommandSet& commands);
void AddStorageCommand(CommandSet& commands);
void AddWorkerCommand(CommandSet& commands);

// All of it: parses, runs, reports. The exit status.
int RunCommandLine(int argc, char** argv, const CancelToken& cancel);

// All variables of this process.
std::map<std::string, std::string> Environment();

// Writes to stdout, now. Unavailable if it cannot.
absl::Status WriteOut(std::string_view text);

}  // namespace palimpsest
