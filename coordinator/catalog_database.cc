#include "coordinator/catalog_database.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr uint64_t kWriteBufferBytes = 16 << 20;
// Opening writes some 50 KiB. On a disk without any space Debian's RocksDB, built with its assertions, aborts
// there.
constexpr uint64_t kOpenBytesMin = 1 << 20;
constexpr std::chrono::seconds kResumeWait{15}, kViewsWait{10};

std::string_view ToStd(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }
rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }

uint64_t FreeBytes(const std::string& folder) {
  struct statvfs info;
  return ::statvfs(folder.c_str(), &info) == 0 ? static_cast<uint64_t>(info.f_bavail) * info.f_frsize : 0;
}

// The one place where RocksDB's codes become ours. Its messages name files and offsets, never content.
absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& folder) {
  if (status.ok()) return absl::OkStatus();
  const std::string name = Quoted(folder, 4096), detail = OneLine(status.ToString(), 512);
  if (status.IsNoSpace() || detail.find("No space left") != std::string::npos) {
    return ResourceExhausted("catalog {}: the disk is full ({} bytes free); free some space and try again",
                             name, FreeBytes(folder));
  }
  if (detail.find("Permission denied") != std::string::npos ||
      detail.find("Read-only file") != std::string::npos) {
    return Error(absl::StatusCode::kPermissionDenied, "catalog {}: may not be written: {}", name, detail);
  }
  // Whatever kind RocksDB makes of what the system refused (a bad sector, no number left for an open file),
  // its words stay. That a file is not there says something of the store, all else of the moment.
  if (detail.find("IO error") != std::string::npos && detail.find("No such file") == std::string::npos) {
    return Error(absl::StatusCode::kUnavailable,
                 "catalog {}: {}; try again, and see the disk's health if that does not help", name, detail);
  }
  if (status.IsCorruption()) return DataLoss("catalog {}: damaged on disk: {}", name, detail);
  return Internal("catalog {}: {}", name, detail);
}

// A store that does not open holds users' text all the same: say what to do, and touch nothing.
absl::Status OpenError(const rocksdb::Status& status, const std::string& folder) {
  const std::string detail = OneLine(status.ToString(), 512);
  if (status.IsIOError() && detail.find("lock file") != std::string::npos) {
    return FailedPrecondition("catalog {} is in use by another process: {}", Quoted(folder, 4096), detail);
  }
  absl::Status translated = FromRocksDb(status, folder);
  const bool damaged = status.IsCorruption() || status.IsPathNotFound() || status.IsNotFound() ||
                       status.IsInvalidArgument() || status.IsNotSupported();
  if (!damaged || translated.code() == absl::StatusCode::kResourceExhausted ||
      translated.code() == absl::StatusCode::kPermissionDenied ||
      translated.code() == absl::StatusCode::kUnavailable) {
    return translated;
  }
  return DataLoss(
      "catalog {} is damaged and was left as it is: {}; restore the folder from a backup, or move it away "
      "and ingest the documents again",
      Quoted(folder, 4096), detail);
}

rocksdb::Options MakeOptions() {
  rocksdb::Options options;
  options.create_if_missing = false;  // see Create
  // A crash in the middle of unsynced writes may leave holes in the log's tail; up to the first hole
  // everything is there, and what was acknowledged lies before it.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.write_buffer_size = kWriteBufferBytes;
  options.max_background_jobs = 2;
  options.max_open_files = 256;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // Measured on 64 MiB of prose and as many bytes of token ids: LZ4 takes 26 % less disk and reads at 0.4
  // times the speed, ZSTD less disk still and slower yet. Text is 30,000 times smaller than its KV, so speed
  // wins.
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;  // CRC-32C is software in Debian's build: 1.3 GB/s
  table.format_version = 5;
  table.block_cache = rocksdb::NewLRUCache(8 << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// Which views live, numbered in the order in which they began.
class LiveViews {
 public:
  uint64_t Begin() {
    const std::lock_guard lock(mu_);
    live_.insert(next_);
    return next_++;
  }
  void End(uint64_t number) {
    const std::lock_guard lock(mu_);
    live_.erase(number);
    ended_.notify_all();
  }
  // Until all that began before this call have ended; false if that takes longer.
  bool WaitForPresent(std::chrono::seconds at_most) {
    std::unique_lock lock(mu_);
    return ended_.wait_for(lock, at_most,
                           [this, now = next_] { return live_.empty() || *live_.begin() >= now; });
  }

 private:
  std::mutex mu_;  // guards what follows
  std::condition_variable ended_;
  std::set<uint64_t> live_;
  uint64_t next_ = 0;
};

class SnapshotView final : public CatalogDatabase::View {
 public:
  SnapshotView(rocksdb::DB* db, const std::string& folder, LiveViews* live)
      : db_(db), folder_(folder), live_(live), number_(live->Begin()), snapshot_(db->GetSnapshot()) {}
  ~SnapshotView() override {
    db_->ReleaseSnapshot(snapshot_);
    live_->End(number_);
  }

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
    std::string value;
    const rocksdb::Status status = db_->Get(Options(), ToSlice(key), &value);
    if (status.IsNotFound()) return std::nullopt;
    PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(status, folder_));
    return value;
  }

  absl::Status Scan(std::string_view begin, std::string_view end,
                    const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    rocksdb::ReadOptions options = Options();
    const rocksdb::Slice bound = ToSlice(end);
    options.iterate_upper_bound = &bound;
    const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(options));
    for (at->Seek(ToSlice(begin)); at->Valid() && visit(ToStd(at->key()), ToStd(at->value())); at->Next()) {
    }
    return FromRocksDb(at->status(), folder_);
  }

 private:
  rocksdb::ReadOptions Options() const {
    rocksdb::ReadOptions options;
    options.snapshot = snapshot_;
    options.fill_cache = false;  // documents are read once, in full
    return options;
  }

  rocksdb::DB* const db_;
  const std::string& folder_;
  LiveViews* const live_;
  const uint64_t number_;
  const rocksdb::Snapshot* const snapshot_;
};

class Database final : public CatalogDatabase {
 public:
  Database(std::unique_ptr<rocksdb::DB> db, std::string folder)
      : folder_(std::move(folder)), db_(std::move(db)) {}

  // After an orderly end all is in checksummed tables and none in the log.
  ~Database() override { db_->Flush(rocksdb::FlushOptions()).PermitUncheckedError(); }

  absl::Status Write(const std::vector<Change>& changes, bool sync) override {
    if (failed_.exchange(false)) {
      if (absl::Status resumed = Resume(); !resumed.ok()) {
        failed_ = true;
        return resumed;
      }
    }
    rocksdb::WriteBatch batch;
    rocksdb::Status status;
    for (const Change& change : changes) {
      switch (change.kind) {
        case Change::kPut:
          status = batch.Put(change.key, change.value);
          break;
        case Change::kDelete:
          status = batch.Delete(change.key);
          break;
        case Change::kDeleteRange:
          status = batch.DeleteRange(change.key, change.value);
          break;
      }
      if (!status.ok()) return FromRocksDb(status, folder_);
    }
    rocksdb::WriteOptions options;
    options.sync = sync;
    status = db_->Write(options, &batch);
    if (!status.ok()) failed_ = true;
    return FromRocksDb(status, folder_);
  }

  std::unique_ptr<View> MakeView() const override {
    return std::make_unique<SnapshotView>(db_.get(), folder_, &live_views_);
  }

  absl::Status Scrub(std::string_view begin, std::string_view end) override {
    PALIMPSEST_RETURN_IF_ERROR(WaitForViews());  // what they see is kept by the compaction
    PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(db_->Flush(rocksdb::FlushOptions()), folder_));
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    const rocksdb::Slice first = ToSlice(begin), last = ToSlice(end);
    PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(db_->CompactRange(options, &first, &last), folder_));
    PALIMPSEST_RETURN_IF_ERROR(WaitForViews());  // these hold the old files open
    // Files whose last user was a reader are removed with the next ones only, or on this occasion.
    PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(db_->DisableFileDeletions(), folder_));
    return FromRocksDb(db_->EnableFileDeletions(/*force=*/false), folder_);
  }

 private:
  absl::Status WaitForViews() {
    if (live_views_.WaitForPresent(kViewsWait)) return absl::OkStatus();
    return Error(absl::StatusCode::kUnavailable,
                 "catalog {}: what was deleted is still in its files, as a reader was at work for {} seconds",
                 Quoted(folder_, 4096), kViewsWait.count());
  }

  // A failed write makes RocksDB refuse all others until it is asked to go on. After a full disk it looks for
  // space itself, every 5 seconds, and answers Busy meanwhile: worth waiting for only once there is space.
  absl::Status Resume() {
    const bool there_is_space = FreeBytes(folder_) >= kWriteBufferBytes;
    for (auto end = std::chrono::steady_clock::now() + kResumeWait;;) {
      const rocksdb::Status status = db_->Resume();
      if (!status.IsBusy()) return FromRocksDb(status, folder_);
      if (!there_is_space || std::chrono::steady_clock::now() > end) {
        return FromRocksDb(rocksdb::Status::NoSpace(), folder_);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  const std::string folder_;
  const std::unique_ptr<rocksdb::DB> db_;
  std::atomic<bool> failed_{false};
  mutable LiveViews live_views_;
};

absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenDb(const rocksdb::Options& options,
                                                    const std::string& folder) {
  if (const uint64_t free_bytes = FreeBytes(folder); free_bytes < kOpenBytesMin) {
    return ResourceExhausted(
        "catalog {}: the disk is full ({} bytes free, opening needs {}); free some space and try again",
        Quoted(folder, 4096), free_bytes, kOpenBytesMin);
  }
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, folder, &db);
  if (!status.ok()) return OpenError(status, folder);
  return std::unique_ptr<rocksdb::DB>(db);
}

absl::Status SyncFolder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  return synced ? absl::OkStatus() : Internal("catalog: folder {} could not be synced", Quoted(folder, 4096));
}

absl::Status Create(const std::string& folder) {
  const std::string fresh = folder + ".new";
  std::error_code error;
  std::filesystem::remove_all(fresh, error);  // of a creation that was interrupted: never in use
  if (!error && ::mkdir(fresh.c_str(), 0700) != 0) error = std::error_code(errno, std::generic_category());
  if (error) return FromRocksDb(rocksdb::Status::IOError(error.message()), folder);
  rocksdb::Options options = MakeOptions();
  options.create_if_missing = true;
  options.error_if_exists = true;
  PALIMPSEST_RETURN_IF_ERROR(OpenDb(options, fresh).status());
  std::filesystem::rename(fresh, folder, error);
  if (error) return FromRocksDb(rocksdb::Status::IOError(error.message()), folder);
  return SyncFolder(std::filesystem::path(folder).parent_path().string());
}

}  // namespace

absl::StatusOr<std::unique_ptr<CatalogDatabase>> CatalogDatabase::Open(const std::string& folder) {
  std::error_code error;
  // RocksDB makes a new store wherever the file CURRENT is missing, and then removes the old one's files as
  // obsolete. So it may create in an empty folder only.
  const bool absent = !std::filesystem::exists(folder, error) || std::filesystem::is_empty(folder, error);
  if (error) return FromRocksDb(rocksdb::Status::IOError(error.message()), folder);
  if (absent) PALIMPSEST_RETURN_IF_ERROR(Create(folder));
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<rocksdb::DB> db, OpenDb(MakeOptions(), folder));
  return std::make_unique<Database>(std::move(db), folder);
}

}  // namespace palimpsest
