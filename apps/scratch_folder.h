// A folder for what one command writes while it runs, below the data folder's `scratch`: removed at the end.
// What commands that were killed left there goes when the next one makes its own.
//
// Errors : those of the file system, with the path.
// Threads: immutable.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "proto/base/descriptor.h"

namespace palimpsest {

class ScratchFolder {
 public:
  static absl::StatusOr<std::unique_ptr<ScratchFolder>> Make(const std::string& data_dir,
                                                             std::string_view command);
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  ScratchFolder(std::string path, std::unique_ptr<Descriptor> lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}

  const std::string path_;
  const std::unique_ptr<Descriptor> lock_;  // held: the folder is in use
};

}  // namespace palimpsest
