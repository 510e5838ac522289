// The folder of the tier on SSD: one owner, one format, and a way out when it is damaged.
//
//   lock    held by the process that uses the folder, with its pid in it
//   format  "palimpsest tier 1": written before anything else is made here
//   db/     RocksDB; made as db.new/ and renamed, so that db/ is never half a database
//   new/    table files on their way in; emptied at open
//
// Errors : as OpenRocksDbTier says; each names the folder and what to do.
// Threads: one at a time.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace palimpsest {

struct DiskSpace {
  int64_t bytes = 0, free_bytes = 0;  // free: for us
};

class RocksDbFolder {
 public:
  // Waits up to `lock_wait` for an owner before us to end. `*damaged` says whether db/ has to go before it
  // can be used: its marker cannot be read.
  static absl::StatusOr<std::unique_ptr<RocksDbFolder>> Open(const std::string& path,
                                                             std::chrono::milliseconds lock_wait,
                                                             bool* damaged);
  ~RocksDbFolder();
  RocksDbFolder(const RocksDbFolder&) = delete;
  RocksDbFolder& operator=(const RocksDbFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string DatabasePath() const { return path_ + "/db"; }
  std::string FreshDatabasePath() const { return path_ + "/db.new"; }
  std::string NewPath() const { return path_ + "/new"; }

  // Of its file system. UNAVAILABLE: the folder, or the disk under it, is gone.
  absl::StatusOr<DiskSpace> Space() const;
  bool AllowsDirectIo() const;

  // Moves all aside and starts anew, under the lock. To "<path>.damaged-<unix seconds>"; where the folder
  // itself cannot be moved (a mount point, a parent that is not ours), db/ goes to "<path>/damaged-<unix
  // seconds>". The new name.
  absl::StatusOr<std::string> Quarantine();

 private:
  RocksDbFolder(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}

  const std::string path_;
  int lock_fd_;
};

}  // namespace palimpsest
