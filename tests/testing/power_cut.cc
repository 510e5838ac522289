#include "tests/testing/power_cut.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

namespace palimpsest {

namespace fs = std::filesystem;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

class PowerCut::File final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(std::unique_ptr<rocksdb::FSWritableFile>&& file, PowerCut* disk, std::shared_ptr<Written> written)
      : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk), written_(std::move(written)) {}
  using FSWritableFileOwnerWrapper::Append;
  using FSWritableFileOwnerWrapper::PositionedAppend;

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* context) override {
    std::lock_guard lock(disk_->mu_);
    disk_->Count();
    written_->end += data.size();
    return FSWritableFileOwnerWrapper::Append(data, options, context);
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t at, const IOOptions& options,
                            IODebugContext* context) override {
    std::lock_guard lock(disk_->mu_);
    disk_->Count();
    written_->end = std::max(written_->end, at + data.size());
    written_->synced = std::min(written_->synced, at);  // what was there may be lost with it
    return FSWritableFileOwnerWrapper::PositionedAppend(data, at, options, context);
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* context) override {
    std::lock_guard lock(disk_->mu_);
    disk_->Count();
    written_->end = size;
    return FSWritableFileOwnerWrapper::Truncate(size, options, context);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    return Synced(options, context);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return Synced(options, context);
  }

 private:
  IOStatus Synced(const IOOptions& options, IODebugContext* context) {
    std::lock_guard lock(disk_->mu_);
    disk_->Count();
    IOStatus status = FSWritableFileOwnerWrapper::Sync(options, context);
    if (status.ok()) written_->synced = written_->end;
    return status;
  }

  PowerCut* const disk_;
  const std::shared_ptr<Written> written_;
};

class PowerCut::Folder final : public rocksdb::FSDirectoryWrapper {
 public:
  Folder(std::unique_ptr<rocksdb::FSDirectory>&& folder, PowerCut* disk, std::string path)
      : FSDirectoryWrapper(std::move(folder)), disk_(disk), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return Synced(options, context);
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* context,
                               const rocksdb::DirFsyncOptions&) override {
    return Synced(options, context);
  }

 private:
  IOStatus Synced(const IOOptions& options, IODebugContext* context) {
    std::lock_guard lock(disk_->mu_);
    disk_->Count();
    disk_->changes_.erase(fs::path(path_).lexically_normal().string());
    return FSDirectoryWrapper::Fsync(options, context);
  }

  PowerCut* const disk_;
  const std::string path_;
};

PowerCut::PowerCut(std::string folder, uint64_t changes, uint64_t seed, bool torn)
    : FileSystemWrapper(rocksdb::FileSystem::Default()),
      lost_(std::move(folder) + ".lost"),
      torn_(torn),
      left_(changes),
      random_(seed) {
  fs::remove_all(lost_);
  fs::create_directories(lost_);
}

IOStatus PowerCut::NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                   std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext* context) {
  std::lock_guard lock(mu_);
  Count();
  std::string instead = PutAside(path);
  IOStatus status = target()->NewWritableFile(path, options, file, context);
  if (!status.ok()) return status;
  ChangesOf(path).push_back({.made = path, .back = "", .instead = std::move(instead)});
  const auto written = std::make_shared<Written>(Written{.path = path});
  files_[path] = written;
  *file = std::make_unique<File>(std::move(*file), this, written);
  return status;
}

IOStatus PowerCut::NewDirectory(const std::string& path, const IOOptions& options,
                                std::unique_ptr<rocksdb::FSDirectory>* folder, IODebugContext* context) {
  IOStatus status = target()->NewDirectory(path, options, folder, context);
  if (status.ok()) {
    fs::path plain = fs::path(path).lexically_normal();
    if (!plain.has_filename()) plain = plain.parent_path();
    *folder = std::make_unique<Folder>(std::move(*folder), this, plain.string());
  }
  return status;
}

IOStatus PowerCut::DeleteFile(const std::string& path, const IOOptions&, IODebugContext*) {
  std::lock_guard lock(mu_);
  Count();
  std::string instead = PutAside(path);
  if (instead.empty()) return IOStatus::PathNotFound("nothing to delete", path);
  ChangesOf(path).push_back({.made = "", .back = path, .instead = std::move(instead)});
  return IOStatus::OK();
}

IOStatus PowerCut::RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                              IODebugContext* context) {
  std::lock_guard lock(mu_);
  Count();
  std::string instead = PutAside(to);
  IOStatus status = target()->RenameFile(from, to, options, context);
  if (!status.ok()) return status;
  ChangesOf(to).push_back({.made = to, .back = from, .instead = std::move(instead)});
  if (const auto found = files_.find(from); found != files_.end()) {
    found->second->path = to;
    files_[to] = found->second;
    files_.erase(from);
  }
  return status;
}

IOStatus PowerCut::LinkFile(const std::string& from, const std::string& to, const IOOptions& options,
                            IODebugContext* context) {
  std::lock_guard lock(mu_);
  Count();
  IOStatus status = target()->LinkFile(from, to, options, context);
  if (!status.ok()) return status;
  ChangesOf(to).push_back({.made = to, .back = "", .instead = ""});
  if (const auto found = files_.find(from); found != files_.end()) {
    found->second->path = to;
    files_[to] = found->second;
  }
  return status;
}

std::string PowerCut::PutAside(const std::string& path) {
  const std::string aside = lost_ + "/" + std::to_string(++aside_);
  return ::rename(path.c_str(), aside.c_str()) == 0 ? aside : "";
}

std::vector<PowerCut::Change>& PowerCut::ChangesOf(const std::string& path) {
  return changes_[fs::path(path).parent_path().lexically_normal().string()];
}

void PowerCut::Count() {
  if (--left_ > 0) return;
  Lose();
  ::kill(::getpid(), SIGKILL);
}

// Bytes first, while files have the names that are noted.
void PowerCut::Lose() {
  for (const auto& [name, file] : files_) {
    if (file->path == name && file->end > file->synced) LoseBytes(*file);
  }
  for (const auto& [folder, changes] : changes_) {
    const size_t stay = random_() % (changes.size() + 1);
    for (size_t i = changes.size(); i > stay; --i) Undo(changes[i - 1]);
  }
}

void PowerCut::LoseBytes(const Written& file) {
  const uint64_t unsynced = file.end - file.synced, stay = file.synced + random_() % (unsynced + 1);
  if (!torn_) {
    std::error_code ignored;
    fs::resize_file(file.path, stay, ignored);
    return;
  }
  const int descriptor = ::open(file.path.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  const std::vector<char> zeros(std::min<uint64_t>(file.end - stay, 1 << 20));
  if (::pwrite(descriptor, zeros.data(), zeros.size(), static_cast<off_t>(stay)) < 0)
    std::perror("power cut");
  ::close(descriptor);
}

void PowerCut::Undo(const Change& change) {
  if (!change.made.empty()) {
    change.back.empty() ? ::unlink(change.made.c_str()) : ::rename(change.made.c_str(), change.back.c_str());
  }
  const std::string& name = change.made.empty() ? change.back : change.made;
  if (!change.instead.empty()) ::rename(change.instead.c_str(), name.c_str());
}

}  // namespace palimpsest
