#include "storage/tier/rocksdb_database.h"

#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_manager.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "storage/tier/rocksdb_coding.h"
#include "storage/tier/rocksdb_file_system.h"

namespace palimpsest {
namespace {

// Opening and each change write some 50 KiB beside the values. On a disk without any space Debian's RocksDB,
// built with its assertions, aborts.
constexpr int64_t kSpareBytes = 4 << 20;
// What frees space goes on a little longer: else a tier that filled the disk up to the above could never
// evict.
constexpr int64_t kFreeingSpareBytes = 2 << 20;

rocksdb::BlockBasedTableOptions TableOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;  // CRC-32C is software in Debian's build: 1.3 GB/s
  table.format_version = 5;
  table.block_size = 1 << 10;  // a part is larger and so has a block of its own: nothing is read beside it
  table.no_block_cache = true;
  return table;
}

rocksdb::ColumnFamilyOptions FamilyOptions(bool values) {
  rocksdb::ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;
  options.disable_auto_compactions = values;
  options.write_buffer_size = 1 << 20;  // the directory's erased entries; values have none
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(TableOptions()));
  return options;
}

// Each batch is a file of each of its kinds, and an open one saves a read of its index; but sockets need
// numbers too: half of what the process may open (the command raises that to its hard limit first). RocksDB
// takes 20 at least.
int OpenFilesMax() {
  struct rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  return static_cast<int>(std::clamp<rlim_t>(limit.rlim_cur / 2, 20, 1 << 20));
}

rocksdb::DBOptions DatabaseOptions(rocksdb::Env* env, bool direct_reads) {
  rocksdb::DBOptions options;
  options.env = env;
  options.sst_file_manager.reset(rocksdb::NewSstFileManager(env));  // goes on by itself after a full disk
  options.use_direct_reads = direct_reads;
  options.max_open_files = OpenFilesMax();
  options.max_background_jobs = 2;
  options.max_manifest_file_size = 16 << 20;
  options.keep_log_file_num = 1;
  options.max_log_file_size = 1 << 20;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // Recover compares sizes itself, so that a file that was cut costs its batch and not the database.
  options.skip_checking_sst_file_sizes_on_db_open = true;
  return options;
}

rocksdb::Slice ToSlice(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

// A table file of one family, on its way in. Removed unless it was ingested.
class RocksDbDatabase::NewFile {
 public:
  NewFile(rocksdb::Env* env, std::string path, bool direct, const rocksdb::ColumnFamilyOptions& family)
      : path_(std::move(path)), writer_(FileOptions(direct), WriterOptions(env, family)) {}
  ~NewFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::string& path() const { return path_; }

  // In the order of the directory's keys.
  rocksdb::Status FillDirectory(std::span<const StoredValue> values) {
    std::map<std::string, std::string> entries;
    for (const StoredValue& value : values) entries.emplace(DirectoryKey(value), DirectoryEntry(value));
    rocksdb::Status status = writer_.Open(path_);
    for (auto entry = entries.begin(); entry != entries.end() && status.ok(); ++entry) {
      status = writer_.Put(entry->first, entry->second);
    }
    return status.ok() ? writer_.Finish() : status;
  }

  // First the first part of each value of the kind, then each second one, and so on.
  rocksdb::Status FillParts(ValueKind kind, std::span<const TierItem> items,
                            std::span<const StoredValue> values) {
    uint32_t parts = 0;
    for (const StoredValue& value : values) parts = std::max(parts, PartsOf(kind, value));
    rocksdb::Status status = writer_.Open(path_);
    for (uint32_t part = 0; part < parts; ++part) {
      for (size_t i = 0; i < values.size() && status.ok(); ++i) {
        const StoredValue& value = values[i];
        if (part >= PartsOf(kind, value)) continue;
        const auto bytes = std::span(*items[i].value).subspan(part * value.part_bytes, value.part_bytes);
        status = writer_.Put(PartKey(value.batch, part, value.place), ToSlice(bytes));
      }
    }
    return status.ok() ? writer_.Finish() : status;
  }

 private:
  static uint32_t PartsOf(ValueKind kind, const StoredValue& value) {
    return value.key.kind == kind ? value.parts : 0;
  }
  static rocksdb::EnvOptions FileOptions(bool direct) {
    rocksdb::EnvOptions options;
    options.use_direct_writes = direct;
    return options;
  }
  static rocksdb::Options WriterOptions(rocksdb::Env* env, const rocksdb::ColumnFamilyOptions& family) {
    rocksdb::Options options({}, family);
    options.env = env;
    return options;
  }

  const std::string path_;
  rocksdb::SstFileWriter writer_;
};

// The one place where RocksDB's codes become ours. Its messages name files and offsets, never content.
absl::Status RocksDbDatabase::FromRocksDb(const rocksdb::Status& status, std::string_view doing) const {
  if (status.ok()) return absl::OkStatus();
  const std::string name = Quoted(folder_.path(), 4096), detail = OneLine(status.ToString(), 512);
  if (status.IsNoSpace()) {
    PALIMPSEST_ASSIGN_OR_RETURN(const DiskSpace space, folder_.Space());
    return ResourceExhausted("ssd tier {}: {}: the disk is full ({} bytes free); free some space", name,
                             doing, space.free_bytes);
  }
  const bool damaged = status.IsCorruption() || status.IsPathNotFound() || status.IsNotFound() ||
                       status.IsInvalidArgument() || status.IsNotSupported();
  if (damaged) {
    return DataLoss("ssd tier {}: {}: damaged on disk: {}; it is dropped and computed again", name, doing,
                    detail);
  }
  return Error(absl::StatusCode::kUnavailable, "ssd tier {}: {}: {}; see the disk's health", name, doing,
               detail);
}

// ---- opening

RocksDbDatabase::RocksDbDatabase(const RocksDbFolder& folder, const RocksDbTierOptions& options)
    : folder_(folder),
      at_point_(options.at_point),
      direct_(options.direct_reads && folder.AllowsDirectIo()),
      env_(rocksdb::NewCompositeEnv(ReadThroughHugePages(
          options.file_system == nullptr ? rocksdb::FileSystem::Default() : options.file_system))) {}

RocksDbDatabase::~RocksDbDatabase() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  db_->Close().PermitUncheckedError();
}

absl::Status RocksDbDatabase::OpenIn(const std::string& path, bool create) {
  rocksdb::DBOptions options = DatabaseOptions(env_.get(), direct_);
  options.create_if_missing = options.create_missing_column_families = options.error_if_exists = create;
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (size_t kind = 0; kind < kValueKinds; ++kind) {
    families.emplace_back(std::string(NameOf(static_cast<ValueKind>(kind))), FamilyOptions(/*values=*/true));
  }
  families.emplace_back("directory", FamilyOptions(/*values=*/false));
  families.emplace_back(rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions());
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, families, &families_, &db);
  db_.reset(db);
  if (status.IsIOError() && status.ToString().find("lock ") != std::string::npos) {
    return FailedPrecondition("ssd tier {} is in use by another process: {}; stop it or use another folder",
                              Quoted(folder_.path(), 4096), OneLine(status.ToString(), 512));
  }
  return FromRocksDb(status, "opening");
}

absl::StatusOr<std::unique_ptr<RocksDbDatabase>> RocksDbDatabase::Open(const RocksDbFolder& folder,
                                                                       const RocksDbTierOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const DiskSpace space, folder.Space());
  if (space.free_bytes < kSpareBytes) {
    return ResourceExhausted(
        "ssd tier {}: the disk is full ({} bytes free, opening needs {}); free some space",
        Quoted(folder.path(), 4096), space.free_bytes, kSpareBytes);
  }
  const auto open = [&](const std::string& path,
                        bool create) -> absl::StatusOr<std::unique_ptr<RocksDbDatabase>> {
    std::unique_ptr<RocksDbDatabase> database(new RocksDbDatabase(folder, options));
    PALIMPSEST_RETURN_IF_ERROR(database->OpenIn(path, create));
    return database;
  };
  std::error_code error;
  if (!std::filesystem::exists(folder.DatabasePath(), error)) {
    PALIMPSEST_RETURN_IF_ERROR(open(folder.FreshDatabasePath(), /*create=*/true).status());
    if (options.at_point) options.at_point("database made");
    std::filesystem::rename(folder.FreshDatabasePath(), folder.DatabasePath(), error);
  }
  if (error) {
    return Error(absl::StatusCode::kUnavailable,
                 "ssd tier {}: making its database: {}; see the disk's health", Quoted(folder.path(), 4096),
                 error.message());
  }
  // RocksDB makes a new database wherever CURRENT is missing and then removes the old one's files; so it
  // never creates where there was one.
  return open(folder.DatabasePath(), /*create=*/false);
}

// ---- writing

absl::Status RocksDbDatabase::BeReadyToWrite(uint64_t bytes) {
  PALIMPSEST_ASSIGN_OR_RETURN(const DiskSpace space, folder_.Space());
  const int64_t spare = bytes > 0 ? kSpareBytes : kFreeingSpareBytes;
  if (space.free_bytes < static_cast<int64_t>(bytes) + spare) {
    return ResourceExhausted(
        "ssd tier {}: no room for {} bytes: the disk has {} bytes free; free some space or lower the tier's "
        "capacity",
        Quoted(folder_.path(), 4096), bytes, space.free_bytes);
  }
  if (!failed_) return absl::OkStatus();
  const rocksdb::Status status = db_->Resume();
  if (status.ok()) failed_ = false;
  return FromRocksDb(status, "writing again after an error");
}

// Null: none of the values belongs there.
absl::StatusOr<std::unique_ptr<RocksDbDatabase::NewFile>> RocksDbDatabase::WriteFile(
    size_t family, std::span<const TierItem> items, std::span<const StoredValue> values) {
  const auto kind = static_cast<ValueKind>(family);
  const auto is_of_kind = [&](const StoredValue& value) { return value.key.kind == kind; };
  if (family != kDirectory && std::none_of(values.begin(), values.end(), is_of_kind)) return nullptr;
  auto file = std::make_unique<NewFile>(
      env_.get(),
      fmt::format("{}/{}.{}.sst", folder_.NewPath(), values[0].batch, families_[family]->GetName()), direct_,
      FamilyOptions(family != kDirectory));
  PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(
      family == kDirectory ? file->FillDirectory(values) : file->FillParts(kind, items, values), "writing"));
  return file;
}

absl::Status RocksDbDatabase::Write(std::span<const TierItem> items, std::span<const StoredValue> values) {
  PALIMPSEST_RETURN_IF_ERROR(BeReadyToWrite(values[0].batch_bytes));
  At("before files");
  std::vector<std::unique_ptr<NewFile>> files;
  std::vector<rocksdb::IngestExternalFileArg> ingest;
  for (size_t family = 0; family <= kDirectory; ++family) {
    PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<NewFile> file, WriteFile(family, items, values));
    if (file == nullptr) continue;
    rocksdb::IngestExternalFileArg& arg = ingest.emplace_back();
    arg.column_family = families_[family];
    arg.external_files = {file->path()};
    arg.options.move_files = true;
    arg.options.snapshot_consistency = false;  // there are no snapshots
    arg.options.write_global_seqno = false;    // the file stays as it was written
    files.push_back(std::move(file));
    At("file written");
  }
  At("before ingest");
  const rocksdb::Status status = db_->IngestExternalFiles(ingest);
  if (!status.ok()) failed_ = true;
  At("after ingest");
  return FromRocksDb(status, "storing");
}

// Past the write-ahead log: a log that once met a full disk makes Debian's RocksDB, built with its
// assertions, abort at the next write. The deletions are in a table file at the latest when the database is
// closed.
absl::Status RocksDbDatabase::Erase(std::span<const StoredValue> values) {
  if (values.empty()) return absl::OkStatus();
  PALIMPSEST_RETURN_IF_ERROR(BeReadyToWrite(0));
  rocksdb::WriteBatch changes;
  rocksdb::Status status;
  for (size_t i = 0; i < values.size() && status.ok(); ++i) {
    status = changes.Delete(families_[kDirectory], DirectoryKey(values[i]));
  }
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  At("before erase");
  if (status.ok()) status = db_->Write(options, &changes);
  if (!status.ok()) failed_ = true;
  At("erased");
  return FromRocksDb(status, "erasing");
}

// First of the directory, where the batch's entries have a file of their own unless they were merged with
// others.
absl::Status RocksDbDatabase::Drop(uint64_t batch) {
  PALIMPSEST_RETURN_IF_ERROR(BeReadyToWrite(0));
  const std::string begin = BatchBegin(batch), end = BatchBegin(batch + 1);
  const rocksdb::Slice first = begin, last = end;
  for (size_t next = 0; next <= kDirectory; ++next) {
    rocksdb::ColumnFamilyHandle* const family = families_[(kDirectory + next) % (kDirectory + 1)];
    const rocksdb::Status status =
        rocksdb::DeleteFilesInRange(db_.get(), family, &first, &last, /*include_end=*/false);
    if (!status.ok()) failed_ = true;
    PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(status, "dropping a batch"));
    At("family dropped");
  }
  At("dropped");
  return absl::OkStatus();
}

}  // namespace palimpsest
