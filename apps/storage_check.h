// What a data folder holds, documents and SSD tiers, and whether all of what is on SSD is whole. Host
// memory's tier is a process's own and goes with it.
//
// Verify : reads every value, compares the disk's checksums and opens every tile under the data key. What is
//          damaged is dropped: it is computed again when it is asked for. What other settings sealed (another
//          key, encryption on or off) is told and stays.
// Looking: evicts nothing, also where the capacity is now less than what is there. Opening a tier whose files
//          are damaged moves it aside or drops batches, as it does for whoever opens it; that is told too.
// Errors : as of OpenRocksDbTier and DataKey::Load; Aborted: a process that serves has a tier open;
//          Unavailable: the disk does not say what it holds.
// Threads: one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/model.h"
#include "proto/base/cancel.h"
#include "proto/base/progress.h"
#include "storage/tier.h"

namespace palimpsest {

struct StoredTier {
  std::string folder;
  int64_t capacity_bytes = 0, used_bytes = 0;
  struct OfKind {
    int64_t values = 0, bytes = 0;
  };
  std::array<OfKind, kValueKinds> kinds;  // by ValueKind
  std::vector<std::string> damaged;       // names of values; of a verification
  int64_t sealed_otherwise = 0;           // values that these settings cannot open; of a verification
  int64_t damaged_batches = 0;            // whose files were damaged or missing: dropped
  std::string moved_to;                   // the tier that was damaged as a whole; empty: it was not

  bool whole() const {
    return damaged.empty() && sealed_otherwise == 0 && damaged_batches == 0 && moved_to.empty();
  }
};

// Of nobody's tenant.
struct StoredDocuments {
  int64_t documents = 0, tokens = 0, text_bytes = 0;
};
// None if there is no catalog; none is made. Errors: as of Catalog::Open.
absl::StatusOr<StoredDocuments> CountDocuments(const std::string& data_dir);

struct StorageCheck {
  bool verify = false;
  const CancelToken* cancel = &CancelToken::Never();
  ProgressOutput progress = NoProgress();
};
// Tiers that are there; none is made. Cancelled: what was checked until then stays.
absl::StatusOr<std::vector<StoredTier>> CheckStorage(const Config& config, const StorageCheck& check);

// OK if all of them are whole, else what was found, in one line.
absl::Status StorageStatus(const std::vector<StoredTier>& tiers);

std::string StorageText(const StoredDocuments& documents, const std::vector<StoredTier>& tiers,
                        bool verified);
std::string StorageJson(const StoredDocuments& documents, const std::vector<StoredTier>& tiers,
                        bool verified);

}  // namespace palimpsest
