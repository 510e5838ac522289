#include "apps/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

std::string Name(const std::string& path) { return Quoted(path, 4096); }

absl::Status FileError(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return NotFound("{} cannot be written: its folder does not exist; make it first", Name(path));
    case EACCES:
    case EPERM:
    case EROFS:
      return Error(absl::StatusCode::kPermissionDenied,
                   "{} may not be written; name a file in a folder of yours", Name(path));
    default:
      return Error(absl::StatusCode::kUnavailable, "{} cannot be written: {}", Name(path),
                   std::generic_category().message(error));
  }
}

// Where the bytes go: what a link leads to, for a rename would replace the link.
absl::StatusOr<std::string> Target(const std::string& path) {
  if (path.empty() || path == "-") {
    return InvalidArgument("{} is no name of a file to write", Name(path));
  }
  std::error_code error;
  fs::path target = fs::absolute(path, error);  // weakly_canonical leaves a new file's name relative
  if (!error) target = fs::weakly_canonical(target, error);
  if (error) return FileError(path, error.value());
  const fs::file_status status = fs::status(target, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    return InvalidArgument("{} is {}; name a file", Name(path),
                           fs::is_directory(status) ? "a folder" : "no regular file");
  }
  if (path.ends_with('/')) return InvalidArgument("{} names a folder; name a file", Name(path));
  return target.string();
}

std::string FolderOf(const std::string& target) { return fs::path(target).parent_path().string(); }

// Of a new file; mkstemp's own are for the owner alone.
mode_t Rights(const std::string& target) {
  struct stat before {};
  if (::stat(target.c_str(), &before) == 0) return before.st_mode & 0777;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

absl::Status CheckOutputFile(const std::string& path) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string target, Target(path));
  struct stat folder {};
  if (::stat(FolderOf(target).c_str(), &folder) != 0) return FileError(path, errno);
  if (!S_ISDIR(folder.st_mode)) return FileError(path, ENOTDIR);
  if (::access(FolderOf(target).c_str(), W_OK | X_OK) != 0) return FileError(path, errno);
  return absl::OkStatus();
}

absl::Status WriteOutputFile(const std::string& path, std::string_view bytes) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string target, Target(path));
  std::string fresh = FolderOf(target) + "/.palimpsest-XXXXXX";  // short: names may have 255 bytes
  const int fd = ::mkostemp(fresh.data(), O_CLOEXEC);
  if (fd < 0) return FileError(path, errno);
  bool done = WriteAll(fd, bytes) && ::fchmod(fd, Rights(target)) == 0 && ::fsync(fd) == 0;
  int error = errno;
  if (::close(fd) != 0 && done) {
    done = false;
    error = errno;
  }
  if (done && std::rename(fresh.c_str(), target.c_str()) != 0) {
    done = false;
    error = errno;
  }
  if (done) return absl::OkStatus();
  ::unlink(fresh.c_str());
  return FileError(path, error);
}

}  // namespace palimpsest
