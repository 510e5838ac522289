#include "apps/client.h"

#include <utility>

#include "apps/embedded.h"
#include "apps/server_client.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// The catalog of the data folder, without a model.
class LocalDocuments final : public DocumentsClient {
 public:
  explicit LocalDocuments(std::unique_ptr<Catalog> catalog) : catalog_(std::move(catalog)) {}

  absl::StatusOr<std::vector<DocumentInfo>> List() override { return catalog_->List(); }
  absl::StatusOr<Document> Show(const std::string& id) override {
    return catalog_->Get(id, /*tokenizer_hash=*/"");
  }
  absl::StatusOr<DocumentId> Delete(const std::string& id) override {
    const DocumentId whole_id = WholeId(id);
    PALIMPSEST_RETURN_IF_ERROR(catalog_->Delete(id));
    return whole_id;
  }

 private:
  // The whole of a cut id, if the list can be read; a damaged document can be deleted all the same.
  DocumentId WholeId(const std::string& id) const {
    const auto documents = catalog_->List();
    if (!documents.ok()) return id;
    for (const DocumentInfo& info : *documents) {
      if (info.id.starts_with(id)) return info.id;
    }
    return id;
  }

  const std::unique_ptr<Catalog> catalog_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> OpenClient(const Config& config, ClientOptions options) {
  if (!options.server.empty()) return ServerClient::Open(config, options);
  return Embedded::Open(config, {.cancel = options.cancel, .progress = std::move(options.progress)});
}

absl::StatusOr<std::unique_ptr<DocumentsClient>> OpenDocumentsClient(const Config& config,
                                                                     const ClientOptions& options) {
  if (!options.server.empty()) return ServerClient::Open(config, options);
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<Catalog> catalog, Catalog::Open(config.data_dir));
  return std::make_unique<LocalDocuments>(std::move(catalog));
}

}  // namespace palimpsest
