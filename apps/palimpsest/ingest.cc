// palimpsest ingest: stores documents and reads them once.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "apps/client.h"
#include "apps/input_files.h"
#include "apps/palimpsest/command.h"
#include "apps/results.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

struct Flags {
  std::vector<std::string> paths;
};

// Errors that belong to one document; after others (disk full, Ctrl-C) going on makes no sense.
bool IsOfDocument(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument ||
         status.code() == absl::StatusCode::kNotFound ||
         status.code() == absl::StatusCode::kPermissionDenied || status.code() == absl::StatusCode::kAborted;
}

absl::StatusOr<IngestedDocument> IngestFile(Client& client, const std::string& path,
                                            const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string text,
                              ReadInput(path, context.config.limits.document_bytes, *context.cancel));
  return client.Ingest(path, text);
}

// The one line of the exit: the error itself for one document, a count for several.
absl::Status Summarize(const std::vector<FailedDocument>& failed, const absl::Status& last, size_t files) {
  if (failed.empty()) return absl::OkStatus();
  if (files == 1) return last;
  return Error(last.code(), "{} of {} documents failed, the first with: {}", failed.size(), files,
               failed.front().error);
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<std::string> files, ExpandFolders(flags.paths));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                              OpenClient(context.config, ClientOptionsOf(context)));
  // Found out now: not after the weights are loaded.
  PALIMPSEST_RETURN_IF_ERROR(client->Check());
  std::vector<IngestedDocument> documents;
  std::vector<FailedDocument> failed;
  absl::Status last;
  for (const std::string& path : files) {
    absl::StatusOr<IngestedDocument> document = IngestFile(*client, path, context);
    if (document.status().code() == absl::StatusCode::kCancelled) {
      return Error(
          absl::StatusCode::kCancelled,
          "interrupted in {} ({} of {} done); what was stored is kept, run the same command again to go on",
          Quoted(path, 1024), documents.size(), files.size());
    }
    if (!document.ok()) {
      if (!IsOfDocument(document.status())) return document.status();
      last = document.status();
      failed.push_back({path, Message(last)});
      continue;
    }
    if (!context.json) PALIMPSEST_RETURN_IF_ERROR(WriteOut(IngestText(*document)));
    documents.push_back(std::move(*document));
  }
  if (context.json) PALIMPSEST_RETURN_IF_ERROR(WriteOut(IngestJson(documents, failed) + "\n"));
  return Summarize(failed, last, files.size());
}

}  // namespace

void AddIngestCommand(CommandSet& commands) {
  const auto flags = std::make_shared<Flags>();
  CLI::App& ingest =
      commands.Add("ingest", "stores text and Markdown files and reads them once", Generation::kNo,
                   [flags](const CommandContext& context) { return Run(*flags, context); });
  commands.TakesServer(ingest);
  ingest.add_option("PATH", flags->paths, "files, folders of .txt and .md files, or - for standard input")
      ->required()
      ->type_name("");
}

}  // namespace palimpsest
