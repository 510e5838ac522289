#include "coordinator/http/upload_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

constexpr std::string_view kPrefix = "upload-";

absl::Status DiskError(int error) {
  if (error == ENOSPC || error == EDQUOT) {
    return ResourceExhausted("the server's disk is full: nothing was stored");
  }
  PALIMPSEST_LOG(kError, "upload folder: {}", LogName(std::generic_category().message(error)));
  return Internal("the server could not write the upload");
}

}  // namespace

absl::Status UploadFile::PrepareFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  std::filesystem::directory_iterator files(folder, error);
  if (error) {
    return InvalidArgument("upload folder {}: {}; make it writable for this user", Quoted(folder, 4096),
                           error.message());
  }
  for (const auto& entry : files) {
    if (entry.path().filename().string().starts_with(kPrefix)) std::filesystem::remove(entry.path(), error);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<UploadFile>> UploadFile::Create(const std::string& folder) {
  static std::atomic<int64_t> next{0};
  const std::string path = fmt::format("{}/{}{}-{}", folder, kPrefix, ::getpid(), next.fetch_add(1));
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return DiskError(errno);
  return std::unique_ptr<UploadFile>(new UploadFile(path, fd));
}

UploadFile::~UploadFile() {
  if (fd_ >= 0) ::close(fd_);
  ::unlink(path_.c_str());
}

absl::Status UploadFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return DiskError(errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status UploadFile::Close() {
  const int fd = fd_;
  fd_ = -1;
  return ::close(fd) == 0 ? absl::OkStatus() : DiskError(errno);
}

}  // namespace palimpsest::http
