// The records of one document in the database: read with all checks, written in an order that survives a
// crash.
//
// Errors : DataLoss: a record is missing or not what was written; Damaged() makes it a message for users.
// Threads: one writer at a time; readers any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/catalog_database.h"
#include "coordinator/catalog_record.h"
#include "proto/base/ids.h"

namespace palimpsest {

inline constexpr std::string_view kDocumentIdStart = "doc-";
inline constexpr size_t kDocumentIdDigits = 16;

// What a document is known by. The empty tenant's needs no key: there is nobody to hide it from.
Hash256 ContentHash(std::string_view tenant, std::string_view text);
DocumentId IdOf(const Hash256& content);

// If `why` is DataLoss: which document it hit and how to get it back. Other errors pass unchanged.
absl::Status Damaged(const DocumentId& id, const absl::Status& why);

// The body under `key`; nothing if the key is absent.
absl::StatusOr<std::optional<std::string>> ReadRecord(const CatalogDatabase::View& view, RecordKind kind,
                                                      const std::string& key);
absl::StatusOr<std::optional<InfoRecord>> ReadInfo(const CatalogDatabase::View& view, const Hash256& content);
absl::StatusOr<std::string> ReadText(const CatalogDatabase::View& view, const Hash256& content,
                                     const InfoRecord& info);
// Nothing if this tokenizer's ids are not stored.
absl::StatusOr<std::optional<std::vector<int32_t>>> ReadTokens(const CatalogDatabase::View& view,
                                                               const Hash256& content,
                                                               const Hash256& tokenizer);

// Collects changes and writes them in pieces of about 4 MiB, the last one synced. Order is kept, so what is
// written last stands for all that came before: a document is there once its info is.
class CatalogWriter {
 public:
  explicit CatalogWriter(CatalogDatabase* database) : database_(database) {}

  absl::Status Put(RecordKind kind, std::string key, std::string_view body);
  absl::Status Append(CatalogDatabase::Change change);
  absl::Status Finish();

 private:
  absl::Status Write(bool sync);

  CatalogDatabase* const database_;
  std::vector<CatalogDatabase::Change> changes_;
  size_t bytes_ = 0;
};

absl::Status WriteText(CatalogWriter* writer, const Hash256& content, std::string_view text);
// The header goes first and comes back last: without it chunks count as absent, so a crash between leaves no
// mix.
absl::Status WriteTokens(CatalogWriter* writer, const Hash256& content, const Hash256& tokenizer,
                         const std::vector<int32_t>& ids);

}  // namespace palimpsest
