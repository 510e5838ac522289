#include "storage/tier/rocksdb_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFormatPrefix = "palimpsest tier ";
constexpr int kFormatVersion = 1;
constexpr std::chrono::milliseconds kLockRetry{50};

std::string Name(const std::string& path) { return Quoted(path, 4096); }

absl::Status FolderError(const std::string& path, int error) {
  const std::string what = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) {
    return ResourceExhausted("ssd tier {}: the disk is full; free some space or use another folder",
                             Name(path));
  }
  return Error(absl::StatusCode::kUnavailable,
               "ssd tier {}: {}; the folder must be one that this user can read and write", Name(path), what);
}

absl::Status MakeFolder(const std::string& path, const std::string& folder) {
  if (::mkdir(folder.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return FolderError(path, errno);
  struct stat info;
  if (::stat(folder.c_str(), &info) != 0) return FolderError(path, errno);
  return S_ISDIR(info.st_mode) ? absl::OkStatus() : FolderError(path, ENOTDIR);
}

absl::Status SyncFolder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FolderError(path, errno);
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error == 0 ? absl::OkStatus() : FolderError(path, error);
}

// The first bytes of a small file; nullopt: it is not there, or cannot be read.
std::optional<std::string> ReadSmallFile(int fd) {
  std::array<char, 64> text{};
  const ssize_t bytes = fd < 0 ? -1 : ::pread(fd, text.data(), text.size(), 0);
  if (bytes < 0) return std::nullopt;
  return std::string(text.data(), static_cast<size_t>(bytes));
}

std::optional<std::string> ReadSmallFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::optional<std::string> text = ReadSmallFile(fd);
  if (fd >= 0) ::close(fd);
  return text;
}

// Whoever owns the lock wrote "PID\n" just after taking it.
absl::Status InUse(const std::string& path, int fd) {
  const std::string text = ReadSmallFile(fd).value_or("");
  long pid = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), pid).ec != std::errc()) {
    return Error(absl::StatusCode::kAborted,
                 "ssd tier {} is in use by another process; stop it or use another folder", Name(path));
  }
  return Error(absl::StatusCode::kAborted,
               "ssd tier {} is in use by process {}; stop it or use another folder", Name(path), pid);
}

absl::StatusOr<int> Lock(const std::string& path, std::chrono::milliseconds wait) {
  const int fd = ::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FolderError(path, errno);
  const auto end = std::chrono::steady_clock::now() + wait;
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EWOULDBLOCK && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(kLockRetry);
      continue;
    }
    absl::Status status = error == EWOULDBLOCK ? InUse(path, fd) : FolderError(path, error);
    ::close(fd);
    return status;
  }
  const std::string text = fmt::format("{}\n", ::getpid());
  // For people only; the lock holds without it, so a full disk does not matter here.
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, text.data(), text.size(), 0) < 0) errno = 0;
  return fd;
}

// A folder that was somebody's before it was ours is left alone: a quarantine would move it.
absl::Status CheckItIsOurs(const std::string& path) {
  std::error_code error;
  if (fs::exists(path + "/format", error)) return absl::OkStatus();
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name == "lock" || name == "db" || name == "db.new" || name == "new" || name == "format.new" ||
        name == "lost+found" || name.starts_with("damaged-")) {
      continue;
    }
    return FailedPrecondition("ssd tier {}: the folder holds {}, which is not a tier's; use an empty one",
                              Name(path), Quoted(name));
  }
  return error ? FolderError(path, error.value()) : absl::OkStatus();
}

absl::Status WriteFormat(const std::string& path) {
  const std::string fresh = path + "/format.new", text = fmt::format("{}{}\n", kFormatPrefix, kFormatVersion);
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FolderError(path, errno);
  const ssize_t written = ::write(fd, text.data(), text.size());
  int error = written == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error == 0 && ::rename(fresh.c_str(), (path + "/format").c_str()) != 0) error = errno;
  return error == 0 ? SyncFolder(path) : FolderError(path, error);
}

// Whether db/ can be used. FailedPrecondition: it is another version's.
absl::StatusOr<bool> FormatIsRight(const std::string& path) {
  const std::optional<std::string> text = ReadSmallFile(path + "/format");
  std::error_code error;
  const bool database = fs::exists(path + "/db", error);
  if (text == fmt::format("{}{}\n", kFormatPrefix, kFormatVersion)) return true;
  int version = 0;
  if (text && text->starts_with(kFormatPrefix) && text->ends_with('\n')) {
    const char* const from = text->data() + kFormatPrefix.size();
    const char* const end = text->data() + text->size() - 1;
    if (const auto read = std::from_chars(from, end, version); read.ec == std::errc() && read.ptr == end) {
      return FailedPrecondition(
          "ssd tier {}: written in format {}, this build knows format {}; use the build that wrote it, or "
          "remove the folder (what it holds is computed again)",
          Name(path), version, kFormatVersion);
    }
  }
  // No marker and no database: new, or interrupted before anything was kept.
  if (!database) PALIMPSEST_RETURN_IF_ERROR(WriteFormat(path));
  return !database;
}

absl::Status Prepare(const std::string& path) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  if (error) return FolderError(path, error.value());
  PALIMPSEST_RETURN_IF_ERROR(MakeFolder(path, path));
  if (::access(path.c_str(), R_OK | W_OK | X_OK) != 0) return FolderError(path, errno);
  return CheckItIsOurs(path);
}

absl::Status ClearTemporaries(const std::string& path) {
  std::error_code error;
  fs::remove_all(path + "/new", error);
  if (!error) fs::remove_all(path + "/db.new", error);
  if (error) return FolderError(path, error.value());
  return MakeFolder(path, path + "/new");
}

}  // namespace

absl::StatusOr<std::unique_ptr<RocksDbFolder>> RocksDbFolder::Open(const std::string& path,
                                                                   std::chrono::milliseconds lock_wait,
                                                                   bool* damaged) {
  if (path.empty()) return InvalidArgument("ssd tier: the folder is empty; name one");
  std::error_code error;
  fs::path absolute = fs::absolute(path, error).lexically_normal();
  if (error) return FolderError(path, error.value());
  if (!absolute.has_filename()) absolute = absolute.parent_path();  // "tier/"
  PALIMPSEST_RETURN_IF_ERROR(Prepare(absolute.string()));
  PALIMPSEST_ASSIGN_OR_RETURN(const int fd, Lock(absolute.string(), lock_wait));
  std::unique_ptr<RocksDbFolder> folder(new RocksDbFolder(absolute.string(), fd));
  PALIMPSEST_ASSIGN_OR_RETURN(const bool right, FormatIsRight(folder->path()));
  *damaged = !right;
  PALIMPSEST_RETURN_IF_ERROR(ClearTemporaries(folder->path()));
  return folder;
}

RocksDbFolder::~RocksDbFolder() {
  // The pid goes first: whoever finds the lock free must not find ours in it.
  if (::ftruncate(lock_fd_, 0) != 0) errno = 0;
  ::close(lock_fd_);
}

absl::StatusOr<DiskSpace> RocksDbFolder::Space() const {
  struct statvfs info;
  if (::statvfs(path_.c_str(), &info) != 0) return FolderError(path_, errno);
  return DiskSpace{.bytes = static_cast<int64_t>(info.f_blocks * info.f_frsize),
                   .free_bytes = static_cast<int64_t>(info.f_bavail * info.f_frsize)};
}

bool RocksDbFolder::AllowsDirectIo() const {
  const int fd = ::open((path_ + "/format").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

absl::StatusOr<std::string> RocksDbFolder::Quarantine() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string moved;
  bool whole = true;
  std::error_code error;
  for (auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();; ++seconds) {
    moved = fmt::format("{}{}damaged-{}", path_, whole ? "." : "/", seconds);
    if (fs::exists(moved, error)) continue;
    if (::rename((whole ? path_ : DatabasePath()).c_str(), moved.c_str()) == 0) break;
    if (!whole) return FolderError(path_, errno);
    whole = false;
  }
  if (whole) {
    PALIMPSEST_RETURN_IF_ERROR(MakeFolder(path_, path_));
    PALIMPSEST_ASSIGN_OR_RETURN(const int fd, Lock(path_, std::chrono::milliseconds(0)));
    ::close(lock_fd_);  // of what was moved
    lock_fd_ = fd;
  }
  PALIMPSEST_RETURN_IF_ERROR(WriteFormat(path_));
  PALIMPSEST_RETURN_IF_ERROR(ClearTemporaries(path_));
  return moved;
}

}  // namespace palimpsest
