// Whoever does the work of a command: this process (embedded.h) or a server (server_client.h). Commands see
// only this.
//
// Errors : worded by the parts that found them. Cancelled once the token is set; what was stored stays.
// Threads: one at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/catalog.h"
#include "coordinator/prompt_plan.h"
#include "proto/base/cancel.h"
#include "proto/base/config.h"
#include "proto/base/progress.h"
#include "proto/types.pb.h"
#include "text/chat_template.h"

namespace palimpsest {

struct IngestedDocument {
  DocumentInfo info;
  std::string path;        // as named this time
  int64_t blocks = 0;      // of the document: one for 64 tokens of a layer
  int64_t host_bytes = 0;  // written to host memory by this call
  int64_t ssd_bytes = 0;   // and to the SSD tier
  double seconds = 0;      // from text to sealed blocks
  bool already_known = false;
};

struct Question {
  std::vector<std::string> documents;  // ids or paths
  std::vector<ChatMessage> messages;   // the last one is the question
  PromptOptions options;
  proto::Sampling sampling;
  std::function<void(std::string_view text)> on_text;  // the answer as it comes
};

struct Answer {
  std::string text;
  std::string finish_reason;  // stop | length
  std::vector<DocumentId> documents;
  proto::Usage usage;
  proto::Receipt receipt;
};

class Client {
 public:
  virtual ~Client() = default;
  // Finds out now what would fail later: a folder in use, a server that is not there.
  virtual absl::Status Check() = 0;
  // `path` names the text in the catalog and in errors.
  virtual absl::StatusOr<IngestedDocument> Ingest(const std::string& path, const std::string& text) = 0;
  virtual absl::StatusOr<Answer> Ask(const Question& question) = 0;
};

// The part of it that needs no model.
class DocumentsClient {
 public:
  virtual ~DocumentsClient() = default;
  virtual absl::StatusOr<std::vector<DocumentInfo>> List() = 0;          // oldest first
  virtual absl::StatusOr<Document> Show(const std::string& id) = 0;      // token_ids are empty
  virtual absl::StatusOr<DocumentId> Delete(const std::string& id) = 0;  // the whole id of what is gone
};

struct ClientOptions {
  std::string server;   // URL; empty: this process
  std::string api_key;  // for a server
  const CancelToken* cancel = &CancelToken::Never();
  ProgressOutput progress = NoProgress();
};
absl::StatusOr<std::unique_ptr<Client>> OpenClient(const Config& config, ClientOptions options);
absl::StatusOr<std::unique_ptr<DocumentsClient>> OpenDocumentsClient(const Config& config,
                                                                     const ClientOptions& options);

}  // namespace palimpsest
