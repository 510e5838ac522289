// A plain file that is written and read past the page cache: what the disk itself gives.
//
// Direct : O_DIRECT; where the file system refuses that, through the page cache (is_direct says which).
// Units  : bytes; offsets and lengths are multiples of kAlignment.
// Errors : Unavailable and ResourceExhausted: the system's answer, with the path.
// Threads: one at a time; Read starts its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/base/descriptor.h"

namespace palimpsest {

class RawFile {
 public:
  static constexpr int64_t kAlignment = 4096;
  // A new one; whoever made the folder removes it.
  static absl::StatusOr<std::unique_ptr<RawFile>> Make(const std::string& path);

  // In order, in writes of 1 MiB; on disk when it returns.
  absl::Status Append(int64_t bytes);
  // `bytes` from each offset, shared out among so many threads in the order given.
  absl::Status Read(std::span<const int64_t> offsets, int64_t bytes, int threads) const;

  int64_t bytes() const { return bytes_; }
  bool is_direct() const { return direct_; }

 private:
  RawFile(std::string path, int fd, bool direct) : path_(std::move(path)), file_(fd), direct_(direct) {}
  absl::Status Failed(const char* doing, int error) const;

  const std::string path_;
  const Descriptor file_;
  const bool direct_;
  int64_t bytes_ = 0;
};

}  // namespace palimpsest
