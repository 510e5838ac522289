// A request's body on disk: written as it comes, removed with this object.
//
// Errors : ResourceExhausted: no space. Internal: any other, without the name (it goes to a client).
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest::http {

class UploadFile {
 public:
  // Makes the folder (0700) and removes what a process that died has left in it.
  static absl::Status PrepareFolder(const std::string& folder);
  static absl::StatusOr<std::unique_ptr<UploadFile>> Create(const std::string& folder);
  ~UploadFile();
  UploadFile(const UploadFile&) = delete;
  UploadFile& operator=(const UploadFile&) = delete;

  absl::Status Write(std::string_view bytes);
  absl::Status Close();
  const std::string& path() const { return path_; }

 private:
  UploadFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  int fd_;  // -1: closed
};

}  // namespace palimpsest::http
