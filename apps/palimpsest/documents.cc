// palimpsest documents: what is in the catalog. Needs no model.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "apps/palimpsest/command.h"
#include "apps/results.h"
#include "coordinator/catalog.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::Status List(const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(context.config.data_dir));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<DocumentInfo> documents, catalog->List());
  return WriteOut(context.json ? DocumentsJson(documents) + "\n" : DocumentsText(documents));
}

absl::Status Show(const std::string& id, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(context.config.data_dir));
  PALIMPSEST_ASSIGN_OR_RETURN(const Document document, catalog->Get(id, /*tokenizer_hash=*/""));
  if (context.json) return WriteOut(DocumentJson(document) + "\n");
  return WriteOut(DocumentText(document));
}

// The whole of a cut id, if the list can be read; a damaged document can be deleted all the same.
std::string WholeId(const Catalog& catalog, const std::string& id) {
  const auto documents = catalog.List();
  if (!documents.ok()) return id;
  for (const DocumentInfo& info : *documents) {
    if (info.id.starts_with(id)) return info.id;
  }
  return id;
}

absl::Status Delete(const std::string& id, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(context.config.data_dir));
  const std::string whole_id = WholeId(*catalog, id);
  PALIMPSEST_RETURN_IF_ERROR(catalog->Delete(id));
  return WriteOut(context.json ? DeletedJson(whole_id) + "\n" : fmt::format("deleted {}\n", whole_id));
}

}  // namespace

void AddDocumentsCommand(CommandSet& commands) {
  CLI::App& documents = commands.AddGroup("documents", "lists, shows and deletes documents");
  commands.AddTo(documents, "list", "what is known, oldest first", Generation::kNo, List);
  const auto add = [&](const char* name, const char* summary, auto run) {
    const auto id = std::make_shared<std::string>();
    CLI::App& command =
        commands.AddTo(documents, name, summary, Generation::kNo,
                       [id, run](const CommandContext& context) { return run(*id, context); });
    command.add_option("ID", *id)->required()->option_text(
        "a document's id, or a beginning of it that is unique");
  };
  add("show", "a document's description and its text", Show);
  add("delete", "removes a document and its text", Delete);
}

}  // namespace palimpsest
