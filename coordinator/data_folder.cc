#include "coordinator/data_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr size_t kLockTextBytesMax = 512;

std::string ErrnoText(int error) { return std::generic_category().message(error); }

// What a failed system call on `path` means to who runs us.
absl::Status FolderError(const std::string& folder, const std::string& path, int error) {
  const std::string name = Quoted(folder, 4096);
  switch (error) {
    case ENOTDIR:
    case EEXIST:
      return InvalidArgument("data folder {}: {} is not a directory", name, Quoted(path, 4096));
    case EACCES:
    case EPERM:
      return Error(absl::StatusCode::kPermissionDenied,
                   "data folder {}: no permission to write {}; change its owner or use another --data-dir",
                   name, Quoted(path, 4096));
    case EROFS:
      return Error(absl::StatusCode::kPermissionDenied,
                   "data folder {} is on a read-only file system; use another --data-dir", name);
    case ENOSPC:
    case EDQUOT:
      return ResourceExhausted("data folder {}: no space left for {}; free some or use another --data-dir",
                               name, Quoted(path, 4096));
    default:
      return Internal("data folder {}: {}: {}", name, Quoted(path, 4096), ErrnoText(error));
  }
}

// Makes `path` a directory of ours; OK if it is one.
absl::Status MakeFolder(const std::string& folder, const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return FolderError(folder, path, errno);
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return FolderError(folder, path, errno);
  return S_ISDIR(info.st_mode) ? absl::OkStatus() : FolderError(folder, path, ENOTDIR);
}

absl::Status MakeFolders(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), error);
  if (error) return FolderError(folder, folder, error.value());
  PALIMPSEST_RETURN_IF_ERROR(MakeFolder(folder, folder));
  for (const char* name : {"/catalog", "/tier", "/models", "/keys"}) {
    PALIMPSEST_RETURN_IF_ERROR(MakeFolder(folder, folder + name));
  }
  struct stat keys;
  if (::stat((folder + "/keys").c_str(), &keys) != 0) return FolderError(folder, folder + "/keys", errno);
  if ((keys.st_mode & 077) != 0) {
    return FailedPrecondition("data folder {}: others may read keys/ (mode {:04o}); run chmod 700 on it",
                              Quoted(folder, 4096), keys.st_mode & 07777);
  }
  return absl::OkStatus();
}

std::string HostName() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

// "PID\nHOST\nOWNER\n" of the process that holds the lock. It writes this just after locking, so a short wait
// helps.
std::string ReadLockText(int fd) {
  std::array<char, kLockTextBytesMax> text{};
  for (int attempt = 0; attempt < 20; ++attempt) {
    const ssize_t bytes = ::pread(fd, text.data(), text.size(), 0);
    if (bytes > 0 && text[static_cast<size_t>(bytes) - 1] == '\n')
      return {text.data(), static_cast<size_t>(bytes)};
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return "";
}

absl::Status InUse(const std::string& folder, int fd) {
  const std::string text = ReadLockText(fd);
  const size_t host_at = text.find('\n') + 1, owner_at = text.find('\n', host_at) + 1;
  long pid = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), pid).ec != std::errc() || host_at == 0 ||
      owner_at == 0) {
    return FailedPrecondition(
        "data folder {} is in use by another process; stop it or use another --data-dir",
        Quoted(folder, 4096));
  }
  const std::string host = text.substr(host_at, owner_at - 1 - host_at);
  const std::string owner = text.substr(owner_at, text.size() - 1 - owner_at);
  return FailedPrecondition(
      "data folder {} is in use by process {} ({}){}; stop it or use another --data-dir",
      Quoted(folder, 4096), pid, OneLine(owner), host == HostName() ? "" : " on host " + OneLine(host));
}

absl::StatusOr<int> Lock(const std::string& folder, std::string_view owner) {
  const std::string path = folder + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FolderError(folder, path, errno == EISDIR ? EEXIST : errno);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    absl::Status status = error == EWOULDBLOCK ? InUse(folder, fd) : FolderError(folder, path, error);
    ::close(fd);
    return status;
  }
  const std::string text = fmt::format("{}\n{}\n{}\n", ::getpid(), HostName(), OneLine(owner, 128));
  // For people only; the lock holds without it, so a full disk does not matter here.
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, text.data(), text.size(), 0) < 0) errno = 0;
  return fd;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataFolder>> DataFolder::Open(const std::string& path,
                                                             std::string_view owner) {
  if (path.empty()) return InvalidArgument("data folder: the path is empty; set --data-dir");
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error).lexically_normal();
  if (error) return FolderError(path, path, error.value());
  if (!absolute.has_filename()) absolute = absolute.parent_path();  // "data/"
  const std::string folder = absolute.string();
  PALIMPSEST_RETURN_IF_ERROR(MakeFolders(folder));
  for (const char* name : {"", "/catalog", "/tier", "/models", "/keys"}) {
    if (::access((folder + name).c_str(), R_OK | W_OK | X_OK) != 0)
      return FolderError(folder, folder + name, errno);
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const int fd, Lock(folder, owner));
  return std::unique_ptr<DataFolder>(new DataFolder(folder, fd));
}

DataFolder::~DataFolder() {
  // The name goes first: whoever finds the lock free must not find our pid in it.
  if (::ftruncate(lock_fd_, 0) != 0) errno = 0;
  ::close(lock_fd_);
}

}  // namespace palimpsest
