// The data folder: everything palimpsest keeps on this machine, for one process at a time.
//
//   catalog/  documents (coordinator)        models/  model files
//   tier/     sealed blocks (worker)         keys/    tenants' keys
//   lock      held by the process that uses the folder, with its pid in it
//
// Open creates what is missing, readable by the owner only (0700), since documents and blocks are users'
// text. The lock goes with the process, however it ends: nothing is left to clean up after a crash.
//
// Errors : InvalidArgument: an empty path, or a part of it is not a directory. FailedPrecondition: in use by
//          another process, naming it, or keys/ is readable by others. PermissionDenied: may not be written,
//          or is on a read-only disk. ResourceExhausted: no space. All name the folder and what to do.
// Threads: immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest {

class DataFolder {
 public:
  // `owner` is what another process is told about this one: "palimpsest serve".
  static absl::StatusOr<std::unique_ptr<DataFolder>> Open(const std::string& path,
                                                          std::string_view owner = "palimpsest");
  ~DataFolder();  // releases the lock
  DataFolder(const DataFolder&) = delete;
  DataFolder& operator=(const DataFolder&) = delete;

  const std::string& path() const { return path_; }  // absolute
  std::string CatalogPath() const { return path_ + "/catalog"; }
  std::string TierPath() const { return path_ + "/tier"; }
  std::string ModelsPath() const { return path_ + "/models"; }
  std::string KeysPath() const { return path_ + "/keys"; }

 private:
  DataFolder(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}

  const std::string path_;
  const int lock_fd_;
};

}  // namespace palimpsest
