#include "apps/input_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = 1 << 18;

std::string Name(const std::string& path) { return path == kStdin ? "standard input" : Quoted(path, 4096); }

absl::Status FileError(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return NotFound("{} does not exist", Name(path));
    case EACCES:
    case EPERM:
      return Error(absl::StatusCode::kPermissionDenied, "{} may not be read", Name(path));
    case EISDIR:
      return InvalidArgument("{} is a folder; name a file, or ingest the folder first", Name(path));
    default:
      return Error(absl::StatusCode::kUnavailable, "{} cannot be read: {}", Name(path),
                   std::generic_category().message(error));
  }
}

bool IsText(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".txt" || extension == ".md";
}

absl::StatusOr<std::vector<std::string>> TextFilesBelow(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    const bool hidden = entry->path().filename().string().starts_with(".");
    std::error_code ignored;
    if (hidden && entry->is_directory(ignored)) entry.disable_recursion_pending();
    if (!hidden && entry->is_regular_file(ignored) && IsText(entry->path()))
      files.push_back(entry->path().string());
  }
  if (error) return FileError(folder, error.value());
  if (files.empty()) return InvalidArgument("folder {} has no .txt or .md files", Name(folder));
  std::sort(files.begin(), files.end());
  return files;
}

class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : fd_(path == kStdin ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (fd_ > STDIN_FILENO) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ExpandFolders(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code ignored;
    if (path == kStdin || !fs::is_directory(path, ignored)) {
      files.push_back(path);
      continue;
    }
    PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<std::string> below, TextFilesBelow(path));
    files.insert(files.end(), below.begin(), below.end());
  }
  return files;
}

absl::StatusOr<std::string> ReadInput(const std::string& path, int64_t bytes_max, const CancelToken& cancel) {
  const Descriptor file(path);
  if (file.get() < 0) return FileError(path, errno);
  const size_t limit = static_cast<size_t>(bytes_max);
  std::string text;
  while (true) {
    PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
    const size_t size = text.size();
    text.resize(size + kReadBytes);
    const ssize_t got = ::read(file.get(), text.data() + size, kReadBytes);
    const int error = errno;
    text.resize(size + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && error != EINTR) return FileError(path, error);
    if (got == 0) {  // Ctrl-C ends the other side of a pipe too: its end is not the text's
      PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
      return text;
    }
    if (text.size() > limit) {
      std::error_code unknown;
      const uintmax_t bytes = fs::file_size(path, unknown);
      return InvalidArgument(
          "{} has {} bytes, at most {} are allowed; split it, or raise the limit", Name(path),
          unknown || bytes <= limit ? fmt::format("more than {}", limit) : fmt::format("{}", bytes), limit);
    }
  }
}

}  // namespace palimpsest
