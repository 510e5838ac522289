#include "apps/scratch_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLock = "in_use";

// Null: another process has it, or there is none to open.
std::unique_ptr<Descriptor> TryLock(const fs::path& folder, int flags) {
  auto lock = std::make_unique<Descriptor>(
      ::open((folder / kLock).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600));
  if (lock->get() < 0 || ::flock(lock->get(), LOCK_EX | LOCK_NB) != 0) return nullptr;
  return lock;
}

// A folder whose lock is free belongs to nobody. One without a lock file is just being made.
void RemoveAbandoned(const fs::path& scratch) {
  std::error_code error;
  for (fs::directory_iterator at(scratch, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (at->is_symlink(ignored) || !at->is_directory(ignored)) continue;
    if (const auto lock = TryLock(at->path(), 0); lock != nullptr) {
      fs::remove_all(at->path(), ignored);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScratchFolder>> ScratchFolder::Make(const std::string& data_dir,
                                                                   std::string_view command) {
  const fs::path scratch = fs::path(data_dir) / "scratch";
  std::error_code error;
  fs::create_directories(scratch, error);
  if (error) {
    return FailedPrecondition("cannot make folder {}: {}; give another --data-dir",
                              Quoted(scratch.string(), 4096), error.message());
  }
  RemoveAbandoned(scratch);
  for (int tries = 0; tries < 3; ++tries) {
    std::string path = (scratch / fmt::format("{}-XXXXXX", command)).string();
    if (::mkdtemp(path.data()) == nullptr) {
      return FailedPrecondition("cannot make a folder in {}: {}", Quoted(scratch.string(), 4096),
                                std::strerror(errno));
    }
    // Not locked: it was taken for an abandoned one in this moment.
    if (std::unique_ptr<Descriptor> lock = TryLock(path, O_CREAT); lock != nullptr) {
      return std::unique_ptr<ScratchFolder>(new ScratchFolder(std::move(path), std::move(lock)));
    }
  }
  return FailedPrecondition("cannot lock a folder of its own in {}", Quoted(scratch.string(), 4096));
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace palimpsest
