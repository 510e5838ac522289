// The catalog: which documents exist, their text and their token ids. Text is the truth; KV is a cache of it.
//
// An embedded RocksDB in `<data-dir>/catalog`, owned by the process that holds the data folder's lock.
// A document is known by the SHA-256 of its text: equal content added again is the same document. It belongs
// to a tenant: for others it is not there, and its hash is keyed with the tenant's name, so that an id does
// not tell whether somebody else has the same text. Token ids are kept per tokenizer (its hash), so that
// another model tokenizes anew.
//
// Errors : FailedPrecondition "... is in use by process PID". PermissionDenied/ResourceExhausted/Unavailable
//          from the disk, naming the folder and what to do. NotFound "document ID ...". InvalidArgument: an
//          empty text, one above 1 GiB, an id that is too short or stands for several documents. DataLoss if
//          a record fails its checks, naming the document: adding its text again repairs it. Damaged token
//          ids are no error, since the text says what they are: they count as not stored.
// Durable: Add, PutTokenIds and Delete are on disk when they return. A crash leaves all of a document or
//          none.
// Threads: any thread. Writers take turns; readers see the catalog as it was when they began.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/data_folder.h"
#include "proto/base/clock.h"
#include "proto/base/ids.h"

namespace palimpsest {

struct DocumentInfo {
  DocumentId id;
  std::string path;             // where it was first read from; "-" for stdin
  int64_t bytes = 0;            // of text
  int64_t tokens = 0;           // under the tokenizer it was last added with
  int64_t created_unix_ms = 0;  // wall clock, for people only
  std::string content_hash;     // hex SHA-256 of the text; of a tenant's document, keyed with its name
};

struct DocumentTokens {
  DocumentInfo info;
  std::vector<int32_t> ids;  // empty if only other tokenizers' are stored
};

struct Document {
  DocumentInfo info;
  std::string text;
  std::vector<int32_t> token_ids;
};

class Catalog {
 public:
  // Opens or creates; `data_dir` is created 0700 if absent and locked while the catalog lives.
  static absl::StatusOr<std::unique_ptr<Catalog>> Open(const std::string& data_dir);
  // The same in a folder that this process holds already; the catalog keeps it locked.
  static absl::StatusOr<std::unique_ptr<Catalog>> Open(std::shared_ptr<const DataFolder> folder,
                                                       const Clock& clock = RealClock());
  virtual ~Catalog() = default;
  // The same catalog as this tenant sees it. Open gives the empty tenant's, who is also everybody where there
  // are no tenants. Each keeps the folder locked.
  virtual std::shared_ptr<Catalog> OfTenant(std::string_view tenant) const = 0;

  struct Added {
    DocumentInfo info;
    bool already_known = false;
  };
  virtual absl::StatusOr<Added> Add(std::string_view path, std::string_view text,
                                    std::string_view tokenizer_hash,
                                    const std::vector<int32_t>& token_ids) = 0;
  // Empty if no document has this text.
  virtual absl::StatusOr<std::optional<DocumentInfo>> FindByContent(std::string_view text) const = 0;
  // `id` may be a unique prefix of at least 8 characters ("doc-1a2b").
  virtual absl::StatusOr<DocumentInfo> Find(std::string_view id) const = 0;
  // With its text. Token ids are empty if only other tokenizers' ids are stored.
  virtual absl::StatusOr<Document> Get(std::string_view id, std::string_view tokenizer_hash) const = 0;
  // Without reading its text: what a question needs.
  virtual absl::StatusOr<DocumentTokens> GetTokenIds(std::string_view id,
                                                     std::string_view tokenizer_hash) const = 0;
  virtual absl::Status PutTokenIds(std::string_view id, std::string_view tokenizer_hash,
                                   const std::vector<int32_t>& token_ids) = 0;
  virtual absl::StatusOr<std::vector<DocumentInfo>> List() const = 0;  // by creation time, then id
  // The text is gone from the files too when this returns OK. Works on damaged documents.
  virtual absl::Status Delete(std::string_view id) = 0;
};

}  // namespace palimpsest
