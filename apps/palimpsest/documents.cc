// palimpsest documents: what is in the catalog. Needs no model.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "apps/client.h"
#include "apps/palimpsest/command.h"
#include "apps/results.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::Status List(const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto client,
                              OpenDocumentsClient(context.config, ClientOptionsOf(context)));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<DocumentInfo> documents, client->List());
  return WriteOut(context.json ? DocumentsJson(documents) + "\n" : DocumentsText(documents));
}

absl::Status Show(const std::string& id, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto client,
                              OpenDocumentsClient(context.config, ClientOptionsOf(context)));
  PALIMPSEST_ASSIGN_OR_RETURN(const Document document, client->Show(id));
  if (context.json) return WriteOut(DocumentJson(document) + "\n");
  return WriteOut(DocumentText(document));
}

absl::Status Delete(const std::string& id, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto client,
                              OpenDocumentsClient(context.config, ClientOptionsOf(context)));
  PALIMPSEST_ASSIGN_OR_RETURN(const DocumentId deleted, client->Delete(id));
  return WriteOut(context.json ? DeletedJson(deleted) + "\n" : fmt::format("deleted {}\n", deleted));
}

}  // namespace

void AddDocumentsCommand(CommandSet& commands) {
  CLI::App& documents = commands.AddGroup("documents", "lists, shows and deletes documents");
  commands.TakesServer(
      commands.AddTo(documents, "list", "what is known, oldest first", Generation::kNo, List));
  const auto add = [&](const char* name, const char* summary, auto run) {
    const auto id = std::make_shared<std::string>();
    CLI::App& command =
        commands.AddTo(documents, name, summary, Generation::kNo,
                       [id, run](const CommandContext& context) { return run(*id, context); });
    commands.TakesServer(command);
    command.add_option("ID", *id)->required()->option_text(
        "a document's id, or a beginning of it that is unique");
  };
  add("show", "a document's description and its text", Show);
  add("delete", "removes a document and its text", Delete);
}

}  // namespace palimpsest
