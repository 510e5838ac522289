// The database of the tier on SSD: where a batch of values lies in RocksDB, and how it is written, read,
// found after a restart and dropped. What is kept and for how long is the tier's concern (rocksdb_tier.cc).
//
// Column families, all numbers big-endian:
//   block, index, picks   batch u64 | part u32 | place u32  ->  the part's bytes
//   directory             batch u64 | kind u8 | place u32   ->  id 32 | parts u32 | part bytes u64 |
//                                                               batch bytes u64
// A batch is what one Put stored, a place a value's number among those of its kind in it. As the directory
// begins with the batch too, a new batch's entries lie behind all others: ingesting them never meets a
// memtable that would have to be flushed first.
//
// Errors : DataLoss: what was asked for is damaged or gone. ResourceExhausted: the disk is full. Unavailable:
//          an I/O error. All name the folder.
// Threads: reads and Erase: any thread, also beside one writer; Write and Drop: one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/tier.h"
#include "storage/tier/rocksdb_folder.h"
#include "storage/tier/rocksdb_tier.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Env;
class Status;
}  // namespace rocksdb

namespace palimpsest {

// Where a value lies.
struct StoredValue {
  TierKey key;
  uint64_t batch = 0;
  uint32_t place = 0;
  uint32_t parts = 0;
  uint64_t part_bytes = 0;
  uint64_t batch_bytes = 0;  // of all values that were put with it
  uint32_t neighbours = 1;   // values of its kind in its batch, itself included; not stored
};

// What the database holds.
struct StoredDirectory {
  std::vector<StoredValue> values;  // by batch, kind, place; each key once
  uint64_t next_batch = 1;          // above every number in use
  int64_t dropped_batches = 0;      // by Recover: of an interrupted Put or Drop, or their files were damaged
  int64_t damaged_batches = 0;      // the latter among them
};

class RocksDbDatabase {
 public:
  // `folder` outlives it. Also DataLoss: it cannot be opened because its files are damaged or missing;
  // FailedPrecondition: RocksDB's own lock is held.
  static absl::StatusOr<std::unique_ptr<RocksDbDatabase>> Open(const RocksDbFolder& folder,
                                                               const RocksDbTierOptions& options);
  ~RocksDbDatabase();
  RocksDbDatabase(const RocksDbDatabase&) = delete;
  RocksDbDatabase& operator=(const RocksDbDatabase&) = delete;

  // Reads the directory and drops what has no entries, or entries without files. Once, before all else.
  absl::StatusOr<StoredDirectory> Recover();

  // All or nothing, on disk when it returns. items[i] is stored at values[i], which have one batch.
  absl::Status Write(std::span<const TierItem> items, std::span<const StoredValue> values);

  absl::StatusOr<TierView> ReadPart(const StoredValue& value, uint32_t part) const;
  absl::StatusOr<TierView> ReadValue(const StoredValue& value) const;
  // As Tier::GetTogether: those of one batch and kind in one pass over its file; where that fails, each by
  // itself.
  std::vector<absl::Status> ReadTogether(std::span<const StoredValue> values, const TakeParts& take) const;

  // Their directory entries. They are gone for good when the batch is dropped or the database closed; after a
  // crash before that they may be back. Their bytes stay until Drop.
  absl::Status Erase(std::span<const StoredValue> values);
  // The files of a batch whose entries were erased; for good when it returns.
  absl::Status Drop(uint64_t batch);

 private:
  struct BatchFiles;
  class NewFile;
  using Files = std::map<uint64_t, BatchFiles>;
  static constexpr size_t kDirectory = kValueKinds;  // its place among the families, after the kinds

  RocksDbDatabase(const RocksDbFolder& folder, const RocksDbTierOptions& options);

  // rocksdb_database.cc: opening and writing.
  absl::Status OpenIn(const std::string& path, bool create);
  absl::Status BeReadyToWrite(uint64_t bytes);
  absl::StatusOr<std::unique_ptr<NewFile>> WriteFile(size_t family, std::span<const TierItem> items,
                                                     std::span<const StoredValue> values);
  absl::Status FromRocksDb(const rocksdb::Status& status, std::string_view doing) const;
  void At(std::string_view point) const {
    if (at_point_) at_point_(point);
  }

  // rocksdb_recovery.cc
  Files FindFiles() const;
  absl::StatusOr<std::vector<StoredValue>> ReadDirectory() const;
  static bool AreAllNamed(const Files& files, const std::vector<StoredValue>& values);
  absl::StatusOr<bool> DropDamagedDirectory();
  absl::Status DropWithoutFiles(std::span<const StoredValue> values, Files files, bool names_lost,
                                StoredDirectory* directory);
  absl::Status KeepNewest(std::vector<StoredValue>* values);
  void MergeDirectory();

  // rocksdb_read.cc
  bool ScanTogether(std::span<const StoredValue> values, const TakeParts& take) const;
  absl::Status ReadPartByPart(std::span<const StoredValue> values, size_t i, const TakeParts& take) const;

  const RocksDbFolder& folder_;
  const std::function<void(std::string_view)> at_point_;
  const bool direct_;
  const std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;  // by kind, then the directory, then RocksDB's default
  std::atomic<bool> failed_{false};  // a write failed: RocksDB may refuse others until it is asked
};

}  // namespace palimpsest
