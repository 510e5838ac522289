// palimpsest storage: what the SSD tiers hold, and whether it is whole. Needs no model.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "apps/palimpsest/command.h"
#include "apps/storage_check.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::Status Run(const CommandContext& context, bool verify) {
  const StorageCheck check{.verify = verify, .cancel = context.cancel, .progress = StderrProgress()};
  PALIMPSEST_ASSIGN_OR_RETURN(const StoredDocuments documents, CountDocuments(context.config.data_dir));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<StoredTier> tiers, CheckStorage(context.config, check));
  PALIMPSEST_RETURN_IF_ERROR(WriteOut(context.json ? StorageJson(documents, tiers, verify) + "\n"
                                                   : StorageText(documents, tiers, verify)));
  return StorageStatus(tiers);
}

}  // namespace

void AddStorageCommand(CommandSet& commands) {
  CLI::App& storage = commands.AddGroup("storage", "shows and checks what is kept on SSD");
  commands.AddTo(storage, "status", "documents, and bytes and values of each tier", Generation::kNo,
                 [](const CommandContext& context) { return Run(context, /*verify=*/false); });
  commands.AddTo(
      storage, "verify",
      "reads and authenticates everything; exit status 1 if anything was damaged. What is damaged is "
      "dropped and computed again later",
      Generation::kNo, [](const CommandContext& context) { return Run(context, /*verify=*/true); });
}

}  // namespace palimpsest
