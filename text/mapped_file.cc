#include "text/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "proto/base/descriptor.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

absl::Status SystemError(const std::string& path, const char* what, int error) {
  if (error == ENOENT) return NotFound("{}: no such file; check the path", path);
  if (error == EACCES || error == EPERM) {
    return Error(absl::StatusCode::kPermissionDenied,
                 "{}: may not be read by this user; check its permissions", path);
  }
  return Error(absl::StatusCode::kUnavailable, "{}: {} failed: {}; check the disk", path, what,
               std::strerror(error));
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  // Not blocking, so that a pipe or device is told from a file instead of waited for.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return SystemError(path, "open", errno);
  struct stat info {};
  if (fstat(file.get(), &info) != 0) return SystemError(path, "fstat", errno);
  if (!S_ISREG(info.st_mode))
    return InvalidArgument("{}: not a regular file; give the path of a model file", path);
  MappedFile mapped;
  if (info.st_size == 0) return mapped;  // mmap refuses empty mappings
  const auto size = static_cast<size_t>(info.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) return SystemError(path, "mmap", errno);
  mapped.bytes_ = {static_cast<const uint8_t*>(address), size};
  return mapped;
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

void MappedFile::ReleasePages() const {
  if (bytes_.empty()) return;
  // A hint: refused, the pages only stay. The mapping is never written, so nothing can be lost.
  madvise(const_cast<uint8_t*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

}  // namespace palimpsest
