// palimpsest serve: a coordinator and its workers on this machine, until a signal.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json.hpp>
#include <memory>

#include "apps/palimpsest/command.h"
#include "apps/palimpsest/serving_flags.h"
#include "coordinator/http/api_keys.h"
#include "proto/base/json.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

struct Flags {
  std::string make_key;
};

// For the key file: the key itself is printed once, here, and kept nowhere.
absl::Status PrintNewKey(const Flags& flags, bool as_json) {
  if (!IsPlainText(flags.make_key) || flags.make_key.size() > 64) {
    return UsageError(InvalidArgument(
        "--make-key {} is not a name of 1 to 64 bytes without control characters", Quoted(flags.make_key)));
  }
  const http::NewKey key = http::MakeKey(flags.make_key);
  if (as_json) {
    return WriteOut(PrintJson(boost::json::object{{"key", key.key}, {"entry", key.entry}}) + "\n");
  }
  return WriteOut(
      fmt::format("# The key, for the client; it is not shown again:\n# {}\n# For the file of "
                  "server.api_keys_file, below `keys:`:\n{}\n",
                  key.key, key.entry));
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  if (!flags.make_key.empty()) return PrintNewKey(flags, context.json);
  return RunServe(ServingOptionsOf(context));
}

}  // namespace

void AddServeCommand(CommandSet& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App& command =
      commands.Add("serve", "Answer over HTTP: a coordinator and its workers on this machine",
                   Generation::kNo, [flags](const CommandContext& context) { return Run(*flags, context); });
  AddServingFlags(commands, command);
  commands.AddShortFlag(command, "--workers", "server.workers");
  command
      .add_option("--make-key", flags->make_key,
                  "print a new API key and the lines for server.api_keys_file, and stop")
      ->type_name("NAME");
}

}  // namespace palimpsest
