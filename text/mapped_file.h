// A file's bytes as read-only memory, for as long as the object lives.
//
// The file is opened once and judged by that descriptor, never by its path again. If someone truncates it
// while it is mapped, reading the lost pages kills the process (SIGBUS): replace model files by rename, never
// in place.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace palimpsest {

class MappedFile {
 public:
  // NotFound, PermissionDenied, or InvalidArgument for what is no regular file. An empty file maps to no
  // bytes.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept : bytes_(other.bytes_) { other.bytes_ = {}; }
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return bytes_; }  // starts at a page

  // Gives the memory of what was read back; the bytes stay valid and are read again when they are touched.
  void ReleasePages() const;

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace palimpsest
