// palimpsest coordinator: the HTTP front and the port where workers of a cluster join.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json.hpp>

#include "apps/palimpsest/command.h"
#include "apps/palimpsest/serving_flags.h"
#include "proto/base/json.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::Status PrintReady(const std::string& url, const std::string& admin_url) {
  return WriteOut(
      PrintJson(boost::json::object{{"url", url}, {"admin_url", admin_url}, {"pid", ::getpid()}}) + "\n");
}

}  // namespace

void AddServingFlags(CommandSet& commands, CLI::App& command) {
  commands.AddShortFlag(command, "--host", "server.host");
  commands.AddShortFlag(command, "--port", "server.port");
  commands.AddShortFlag(command, "--admin-port", "server.admin_port");
}

ServingOptions ServingOptionsOf(const CommandContext& context) {
  ServingOptions options{.config = context.config, .stop = context.cancel, .environment = Environment()};
  options.notify_socket = options.environment["NOTIFY_SOCKET"];
  options.runtime_folder = options.environment["XDG_RUNTIME_DIR"];
  if (context.json) options.on_ready = PrintReady;
  return options;
}

void AddCoordinatorCommand(CommandSet& commands) {
  CLI::App& command =
      commands.Add("coordinator", "The front of a cluster: workers join it, clients ask it", Generation::kNo,
                   [](const CommandContext& context) { return RunCoordinator(ServingOptionsOf(context)); });
  AddServingFlags(commands, command);
}

}  // namespace palimpsest
