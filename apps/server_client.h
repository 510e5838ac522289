// The client of a running server: what --server makes of a command. Speaks the public HTTP API and nothing
// else.
//
// Errors : the server's own words, with the code nearest to its HTTP status; those of http_client.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/client.h"
#include "apps/http_client.h"

namespace palimpsest {

class ServerClient final : public Client, public DocumentsClient {
 public:
  static absl::StatusOr<std::unique_ptr<ServerClient>> Open(const Config& config,
                                                            const ClientOptions& options);

  absl::Status Check() override;
  absl::StatusOr<IngestedDocument> Ingest(const std::string& path, const std::string& text) override;
  absl::StatusOr<Answer> Ask(const Question& question) override;

  absl::StatusOr<std::vector<DocumentInfo>> List() override;
  absl::StatusOr<Document> Show(const std::string& id) override;
  absl::StatusOr<DocumentId> Delete(const std::string& id) override;
  // The two halves of Ingest.
  absl::StatusOr<IngestedDocument> Put(const std::string& path, const std::string& text);
  absl::StatusOr<IngestedDocument> WaitUntilRead(IngestedDocument document);
  // A server has one model, whatever --model says.
  absl::StatusOr<std::string> ModelName();

 private:
  ServerClient(const Config& config, ClientOptions options, std::unique_ptr<HttpClient> http)
      : config_(config), options_(std::move(options)), http_(std::move(http)) {}
  absl::StatusOr<std::string> Fetch(const HttpCall& call);  // the body, if the status is 2xx
  absl::StatusOr<DocumentId> FindDocument(const std::string& name);

  const Config config_;
  const ClientOptions options_;
  const std::unique_ptr<HttpClient> http_;
};

}  // namespace palimpsest
