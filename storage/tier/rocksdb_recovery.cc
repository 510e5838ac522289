#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "proto/base/log.h"
#include "proto/base/status.h"
#include "storage/tier/rocksdb_coding.h"
#include "storage/tier/rocksdb_database.h"

namespace palimpsest {
namespace {

// Above this many directory files they are merged when the tier is opened: reading one takes some 0.3 ms.
constexpr size_t kDirectoryFilesMax = 1000;

std::string PathOf(const rocksdb::LiveFileMetaData& file) {
  return file.directory + "/" + file.relative_filename;
}
std::string_view ToStd(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

}  // namespace

// What the files of a batch are good for.
struct RocksDbDatabase::BatchFiles {
  unsigned kinds = 0;  // bit k: kind k has a file, of the right size
  bool damaged = false;
};

RocksDbDatabase::Files RocksDbDatabase::FindFiles() const {
  std::vector<rocksdb::LiveFileMetaData> live;
  db_->GetLiveFilesMetaData(&live);
  Files files;
  for (const rocksdb::LiveFileMetaData& file : live) {
    for (size_t kind = 0; kind < kValueKinds; ++kind) {
      if (file.column_family_name != NameOf(static_cast<ValueKind>(kind))) continue;
      BatchFiles& batch = files[BatchOfKey(file.smallestkey)];
      uint64_t bytes = 0;
      const bool right = env_->GetFileSize(PathOf(file), &bytes).ok() && bytes == file.size &&
                         BatchOfKey(file.largestkey) == BatchOfKey(file.smallestkey);
      if (right) batch.kinds |= 1u << kind;
      batch.damaged |= !right;
    }
  }
  return files;
}

absl::StatusOr<std::vector<StoredValue>> RocksDbDatabase::ReadDirectory() const {
  std::vector<StoredValue> values;
  const std::unique_ptr<rocksdb::Iterator> at(
      db_->NewIterator(rocksdb::ReadOptions(), families_[kDirectory]));
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    const std::optional<StoredValue> value = ParseDirectory(ToStd(at->key()), ToStd(at->value()));
    if (value) values.push_back(*value);
  }
  PALIMPSEST_RETURN_IF_ERROR(FromRocksDb(at->status(), "reading the directory"));
  return values;
}

// Whether each batch that has files has an entry.
bool RocksDbDatabase::AreAllNamed(const Files& files, const std::vector<StoredValue>& values) {
  absl::flat_hash_set<uint64_t> named;
  for (const StoredValue& value : values) named.insert(value.batch);
  return std::all_of(files.begin(), files.end(),
                     [&](const auto& file) { return named.contains(file.first); });
}

// What a damaged file of the directory names is given up; left where it is, it would stop compactions.
// Whether there was one.
absl::StatusOr<bool> RocksDbDatabase::DropDamagedDirectory() {
  bool damaged = false;
  std::vector<rocksdb::LiveFileMetaData> live;
  db_->GetLiveFilesMetaData(&live);
  const rocksdb::Options options = db_->GetOptions(families_[kDirectory]);
  for (const rocksdb::LiveFileMetaData& file : live) {
    if (file.column_family_name != families_[kDirectory]->GetName()) continue;
    const rocksdb::Status status =
        rocksdb::VerifySstFileChecksum(options, {}, rocksdb::ReadOptions(), PathOf(file));
    if (status.ok()) continue;
    absl::Status error = FromRocksDb(status, "reading the directory");
    if (error.code() != absl::StatusCode::kDataLoss) return error;  // it may be readable another time
    PALIMPSEST_LOG(kWarn, "ssd tier directory damaged: its batches are dropped error {}", error);
    damaged = true;
    const rocksdb::Slice first = file.smallestkey, last = file.largestkey;
    PALIMPSEST_RETURN_IF_ERROR(
        FromRocksDb(rocksdb::DeleteFilesInRange(db_.get(), families_[kDirectory], &first, &last),
                    "dropping a part of the directory"));
  }
  return damaged;
}

// A crash may have brought back an entry that was erased before its key was put again.
absl::Status RocksDbDatabase::KeepNewest(std::vector<StoredValue>* values) {
  absl::flat_hash_set<TierKey, TierKeyHash> seen;
  std::vector<StoredValue> kept, older;
  for (auto value = values->rbegin(); value != values->rend(); ++value) {
    (seen.insert(value->key).second ? kept : older).push_back(*value);
  }
  values->assign(kept.rbegin(), kept.rend());
  return Erase(older);
}

// Keeps the batches whose kinds all have files; drops the others, and files that no entry names: those of an
// interrupted Put or Drop, unless `names_lost`.
absl::Status RocksDbDatabase::DropWithoutFiles(std::span<const StoredValue> values, Files files,
                                               bool names_lost, StoredDirectory* directory) {
  const auto discard = [&](uint64_t batch, std::span<const StoredValue> entries) -> absl::Status {
    ++directory->dropped_batches;
    if (names_lost || !entries.empty()) ++directory->damaged_batches;
    PALIMPSEST_RETURN_IF_ERROR(Erase(entries));
    return Drop(batch);
  };
  for (size_t first = 0, last = 0; first < values.size(); first = last) {
    const uint64_t batch = values[first].batch;
    directory->next_batch = std::max(directory->next_batch, batch + 1);
    unsigned kinds = 0;
    for (; last < values.size() && values[last].batch == batch; ++last) {
      kinds |= 1u << static_cast<unsigned>(values[last].key.kind);
    }
    const std::span<const StoredValue> together = values.subspan(first, last - first);
    const auto found = files.find(batch);
    const bool whole = found != files.end() && !found->second.damaged && (kinds & ~found->second.kinds) == 0;
    if (found != files.end()) files.erase(found);
    if (whole) {
      directory->values.insert(directory->values.end(), together.begin(), together.end());
    } else {
      PALIMPSEST_RETURN_IF_ERROR(discard(batch, together));
    }
  }
  for (const auto& [batch, unknown] : files) PALIMPSEST_RETURN_IF_ERROR(discard(batch, {}));
  return absl::OkStatus();
}

absl::StatusOr<StoredDirectory> RocksDbDatabase::Recover() {
  absl::StatusOr<std::vector<StoredValue>> values = ReadDirectory();
  Files files = FindFiles();
  bool names_lost = false;
  // RocksDB 7.8.3's iterator ends at a file that it cannot open and says OK. Then batches seem to be without
  // entries, as after a crash; so before any is dropped for that, each file of the directory is read.
  if (values.ok() ? !AreAllNamed(files, *values) : values.status().code() == absl::StatusCode::kDataLoss) {
    PALIMPSEST_ASSIGN_OR_RETURN(names_lost, DropDamagedDirectory());
    values = ReadDirectory();
  }
  PALIMPSEST_RETURN_IF_ERROR(values.status());
  PALIMPSEST_RETURN_IF_ERROR(KeepNewest(&*values));
  StoredDirectory directory;
  PALIMPSEST_RETURN_IF_ERROR(DropWithoutFiles(*values, std::move(files), names_lost, &directory));
  At("recovered");
  MergeDirectory();
  return directory;
}

void RocksDbDatabase::MergeDirectory() {
  rocksdb::ColumnFamilyMetaData directory;
  db_->GetColumnFamilyMetaData(families_[kDirectory], &directory);
  if (directory.file_count <= kDirectoryFilesMax) return;
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  const rocksdb::Status status = db_->CompactRange(options, families_[kDirectory], nullptr, nullptr);
  if (!status.ok()) {
    PALIMPSEST_LOG(kWarn, "ssd tier directory not merged error {}", FromRocksDb(status, "merging"));
  }
}

}  // namespace palimpsest
