// The system calls of storage/data_key_file.h.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "proto/base/descriptor.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "storage/data_key_file.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

std::string Name(const std::string& path) { return Quoted(path, 4096); }

absl::Status SystemError(const std::string& path, std::string_view what, int error) {
  const std::string reason = std::generic_category().message(error);
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      return Error(absl::StatusCode::kPermissionDenied,
                   "{} cannot be {}: {}; check the owner and the permissions", Name(path), what, reason);
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO:  // a socket
      return FailedPrecondition("{} cannot be {}: {}; give another path", Name(path), what, reason);
    default:
      return Error(absl::StatusCode::kUnavailable, "{} cannot be {}: {}; check the disk", Name(path), what,
                   reason);
  }
}

// Relative names stay relative, to the folder the process is in.
std::string FolderOf(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// `folder` and those above it that are missing, each for the owner alone.
absl::Status MakeFolders(const std::string& folder) {
  struct stat info {};
  if (::stat(folder.c_str(), &info) == 0) return absl::OkStatus();
  if (errno != ENOENT) return SystemError(folder, "opened", errno);
  const std::string above = FolderOf(folder);
  if (above != folder) PALIMPSEST_RETURN_IF_ERROR(MakeFolders(above));
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return SystemError(folder, "made", errno);
  return SyncFolderOf(folder);
}

bool WriteAll(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return true;
}

// A fresh file beside `path`, on the disk, for its owner alone.
absl::StatusOr<std::string> WriteBeside(const std::string& path, std::span<const uint8_t> bytes) {
  std::string fresh = FolderOf(path) + "/.palimpsest-XXXXXX";
  const int fd = ::mkostemp(fresh.data(), O_CLOEXEC);
  if (fd < 0) return SystemError(path, "made", errno);
  bool done = WriteAll(fd, bytes) && ::fsync(fd) == 0;
  int error = errno;
  if (::close(fd) != 0 && done) {
    done = false;
    error = errno;
  }
  if (done) return fresh;
  ::unlink(fresh.c_str());
  return SystemError(path, "written", error);
}

// Gives `from` the name `to` unless that is taken (EEXIST). In one step where the file system can: then a
// crash never leaves a second name behind, which would be a copy of the key.
int RenameToNew(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (::link(from.c_str(), to.c_str()) != 0) return errno;
  return ::unlink(from.c_str()) == 0 ? 0 : errno;
}

}  // namespace

absl::StatusOr<std::optional<SmallFile>> ReadSmallFile(const std::string& path, bool owner_only) {
  // Not blocking, so that a pipe or device is told from a file instead of waited for.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0 && errno == ENOENT) return std::nullopt;
  if (file.get() < 0) return SystemError(path, "opened", errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return SystemError(path, "read", errno);
  if (!S_ISREG(info.st_mode)) {
    return FailedPrecondition("{} is {}; give the path of a file", Name(path),
                              S_ISDIR(info.st_mode) ? "a folder" : "no regular file");
  }
  if (owner_only && (info.st_mode & 077) != 0) {
    return FailedPrecondition(
        "{} has mode {:04o}, so that others than its owner may read or write it: chmod 600 {}", Name(path),
        info.st_mode & 07777, Name(path));
  }
  SmallFile small;
  while (small.size < small.content.bytes.size()) {
    const ssize_t got =
        ::read(file.get(), small.content.bytes.data() + small.size, small.content.bytes.size() - small.size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(path, "read", errno);
    if (got == 0) break;
    small.size += static_cast<size_t>(got);
  }
  return small;
}

absl::Status MakeSmallFile(const std::string& path, std::span<const uint8_t> bytes) {
  PALIMPSEST_RETURN_IF_ERROR(MakeFolders(FolderOf(path)));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string fresh, WriteBeside(path, bytes));
  const int error = RenameToNew(fresh, path);
  if (error != 0) ::unlink(fresh.c_str());
  if (error != 0 && error != EEXIST) return SystemError(path, "made", error);
  return SyncFolderOf(path);  // also of another's file, which may not have come that far
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = FolderOf(path);
  const Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.get() < 0) return SystemError(folder, "opened", errno);
  // EINVAL: a file system that keeps names some other way.
  if (::fsync(opened.get()) != 0 && errno != EINVAL) return SystemError(folder, "synced", errno);
  return absl::OkStatus();
}

}  // namespace palimpsest
