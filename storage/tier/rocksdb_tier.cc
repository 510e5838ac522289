#include "storage/tier/rocksdb_tier.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "storage/tier/rocksdb_database.h"
#include "storage/tier/rocksdb_directory.h"
#include "storage/tier/rocksdb_folder.h"

namespace palimpsest {
namespace {

constexpr std::string_view kName = "ssd";

class RocksDbTier final : public Tier {
 public:
  RocksDbTier(std::shared_ptr<RocksDbFolder> folder, std::unique_ptr<RocksDbDatabase> database,
              int64_t capacity_bytes)
      : folder_(std::move(folder)),
        database_(std::move(database)),
        directory_(folder_->path(), capacity_bytes) {}

  // Takes over what the last process left, the newest batch being the most recent.
  absl::Status Load(RocksDbTierReport* report);
  void Visit(const std::function<bool(const TierKey& key, uint32_t parts,
                                      const absl::StatusOr<TierView>& value)>& visit);

  std::string_view Name() const override { return kName; }

  absl::Status Put(std::span<const TierItem> items) override {
    absl::Status status = CheckTierItems(kName, items);
    if (status.ok()) {
      const std::lock_guard writer(writer_);
      status = Store(items);
    }
    if (!status.ok()) directory_.Count(&TierStats::refused_puts, static_cast<int64_t>(items.size()));
    return status;
  }

  absl::StatusOr<TierView> Get(const TierKey& key) override { return Read(key, std::nullopt); }
  absl::StatusOr<TierView> GetPart(const TierKey& key, uint32_t part) override { return Read(key, part); }
  std::vector<absl::Status> GetTogether(std::span<const TierKey> keys, const TakeParts& take) override;

  void Touch(std::span<const TierKey> keys) override { directory_.Touch(keys); }
  bool Contains(const TierKey& key) const override { return directory_.Contains(key); }

  absl::Status Erase(const TierKey& key) override {
    const std::optional<StoredValue> value = directory_.Find(key);
    if (!value) return absl::OkStatus();
    const std::unique_lock writer(writer_, std::try_to_lock);
    if (!writer.owns_lock()) {
      // Who writes may wait for a disk that hangs; who erases does not. The bytes go with the writer's next
      // step, or with the neighbours; a restart before that may bring the value back.
      directory_.Forget(*value);
      return absl::OkStatus();
    }
    PALIMPSEST_RETURN_IF_ERROR(database_->Erase({&*value, 1}));
    directory_.Forget(*value);
    return DropEmptyBatches();
  }

  std::vector<TierEntry> List() const override { return directory_.List(); }
  TierStats Stats() const override { return directory_.Stats(); }

 private:
  absl::Status Store(std::span<const TierItem> items);
  absl::Status WriteBatch(std::span<const TierItem> fresh);
  absl::Status Evict(std::span<const StoredValue> values);
  absl::Status DropEmptyBatches();
  absl::StatusOr<TierView> Read(const TierKey& key, std::optional<uint32_t> part);
  absl::Status Answered(const StoredValue& value, const absl::Status& status);
  absl::Status GiveUp(const StoredValue& value, absl::Status damage);

  // Holds the lock; shared with who opens it, to outlive database_.
  const std::shared_ptr<RocksDbFolder> folder_;
  const std::unique_ptr<RocksDbDatabase> database_;
  RocksDbDirectory directory_;

  std::mutex writer_;        // held over I/O: batches are written and dropped one at a time
  uint64_t next_batch_ = 1;  // guarded by writer_
};

absl::Status RocksDbTier::Load(RocksDbTierReport* report) {
  PALIMPSEST_ASSIGN_OR_RETURN(const StoredDirectory stored, database_->Recover());
  next_batch_ = stored.next_batch;
  for (size_t first = 0, last = 0; first < stored.values.size(); first = last) {
    while (last < stored.values.size() && stored.values[last].batch == stored.values[first].batch) ++last;
    directory_.Insert(std::span(stored.values).subspan(first, last - first));
  }
  // The capacity may have been lowered.
  const absl::StatusOr<std::vector<StoredValue>> victims =
      directory_.ChooseVictims(0, {}, /*disk_is_full=*/false);
  PALIMPSEST_RETURN_IF_ERROR(victims.status());
  PALIMPSEST_RETURN_IF_ERROR(Evict(*victims));
  report->values = directory_.Stats().values;
  report->bytes = directory_.Stats().used_bytes;
  report->dropped_batches = stored.dropped_batches;
  report->damaged_batches = stored.damaged_batches;
  return absl::OkStatus();
}

// ---- Put

// Numbers the items as one batch: places count the values of a kind.
std::vector<StoredValue> Place(std::span<const TierItem> items, uint64_t batch) {
  std::vector<StoredValue> values;
  std::array<uint32_t, kValueKinds> places{};
  uint64_t bytes = 0;
  for (const TierItem& item : items) bytes += item.value->size();
  for (const TierItem& item : items) {
    values.push_back({.key = item.key,
                      .batch = batch,
                      .place = places[static_cast<size_t>(item.key.kind)]++,
                      .parts = item.parts,
                      .part_bytes = item.value->size() / item.parts,
                      .batch_bytes = bytes});
  }
  return values;
}

absl::Status RocksDbTier::Store(std::span<const TierItem> items) {
  absl::flat_hash_set<uint64_t> needed;
  const std::vector<TierItem> fresh = directory_.TakeKnown(items, &needed);
  if (!fresh.empty()) {
    PALIMPSEST_RETURN_IF_ERROR(DropEmptyBatches());  // else more would be evicted in their place
    int64_t bytes = 0;
    for (const TierItem& item : fresh) bytes += static_cast<int64_t>(item.value->size());
    const auto evict = [&](bool disk_is_full) -> absl::Status {
      PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<StoredValue> victims,
                                  directory_.ChooseVictims(bytes, needed, disk_is_full));
      return Evict(victims);
    };
    PALIMPSEST_RETURN_IF_ERROR(evict(/*disk_is_full=*/false));
    absl::Status written = WriteBatch(fresh);
    // The disk holds less than the capacity says, or others fill it: the oldest goes, as at a full tier.
    // Once; what that does not help is refused with the disk's own words.
    if (absl::IsResourceExhausted(written) && evict(/*disk_is_full=*/true).ok() && WriteBatch(fresh).ok())
      written = absl::OkStatus();
    PALIMPSEST_RETURN_IF_ERROR(written);
  }
  directory_.Count(&TierStats::puts, static_cast<int64_t>(fresh.size()));
  directory_.Count(&TierStats::known_puts, static_cast<int64_t>(items.size() - fresh.size()));
  return absl::OkStatus();
}

absl::Status RocksDbTier::WriteBatch(std::span<const TierItem> fresh) {
  // The number is used up also if writing fails: what it may have left behind has it.
  const std::vector<StoredValue> values = Place(fresh, next_batch_++);
  PALIMPSEST_RETURN_IF_ERROR(database_->Write(fresh, values));
  directory_.Insert(values);
  return absl::OkStatus();
}

// ---- eviction

// Whole batches. Erased in the directory first: after a crash a batch without entries is dropped, while
// entries without files would be damage.
absl::Status RocksDbTier::Evict(std::span<const StoredValue> values) {
  PALIMPSEST_RETURN_IF_ERROR(database_->Erase(values));
  for (const StoredValue& value : values) {
    if (!directory_.Forget(value)) continue;
    directory_.Count(&TierStats::evictions);
    directory_.Count(&TierStats::evicted_bytes, static_cast<int64_t>(value.parts * value.part_bytes));
  }
  return DropEmptyBatches();
}

// A reader that found the batch before it was emptied gets a miss from here on.
absl::Status RocksDbTier::DropEmptyBatches() {
  for (const uint64_t batch : directory_.EmptyBatches()) {
    PALIMPSEST_RETURN_IF_ERROR(database_->Drop(batch));
    directory_.Remove(batch);
  }
  return absl::OkStatus();
}

// ---- Get

// Counts what reading it gave; what to tell who asked.
absl::Status RocksDbTier::Answered(const StoredValue& value, const absl::Status& status) {
  if (status.code() == absl::StatusCode::kDataLoss) return GiveUp(value, status);
  if (status.ok()) directory_.Count(&TierStats::hits);
  return status;
}

absl::StatusOr<TierView> RocksDbTier::Read(const TierKey& key, std::optional<uint32_t> part) {
  PALIMPSEST_ASSIGN_OR_RETURN(const StoredValue value, directory_.Use(key, part));
  absl::StatusOr<TierView> view = part ? database_->ReadPart(value, *part) : database_->ReadValue(value);
  PALIMPSEST_RETURN_IF_ERROR(Answered(value, view.status()));
  return view;
}

std::vector<absl::Status> RocksDbTier::GetTogether(std::span<const TierKey> keys, const TakeParts& take) {
  std::vector<absl::Status> answers(keys.size());
  absl::flat_hash_map<TierKey, size_t, TierKeyHash> number;  // of a key's value among those read
  std::vector<StoredValue> stored;
  std::vector<std::vector<size_t>> places;  // where among the keys each stands
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto [known, is_new] = number.emplace(keys[i], stored.size());
    if (!is_new) {
      places[known->second].push_back(i);
      continue;
    }
    const absl::StatusOr<StoredValue> value = directory_.Use(keys[i], std::nullopt);
    answers[i] = value.status();
    if (!value.ok()) {
      number.erase(known);
      continue;
    }
    stored.push_back(*value);
    places.push_back({i});
  }
  const std::vector<absl::Status> read = database_->ReadTogether(
      stored, [&](size_t n, uint64_t offset, uint64_t total, std::span<const uint8_t> bytes) {
        for (const size_t i : places[n]) take(i, offset, total, bytes);
      });
  for (size_t n = 0; n < read.size(); ++n) {
    const absl::Status answer = Answered(stored[n], read[n]);
    for (const size_t i : places[n]) answers[i] = answer;
  }
  return answers;
}

absl::Status RocksDbTier::GiveUp(const StoredValue& value, absl::Status damage) {
  if (!directory_.Forget(value)) {  // it was dropped while it was read
    directory_.Count(&TierStats::misses);
    return NotFound("{} is not in the ssd tier any more", value.key.ToString());
  }
  directory_.Count(&TierStats::damaged);
  // Should the disk refuse this, the value is found damaged once more after a restart.
  database_->Erase({&value, 1}).IgnoreError();
  if (writer_.try_lock()) {  // else the writer's next step does it
    const std::lock_guard writer(writer_, std::adopt_lock);
    DropEmptyBatches().IgnoreError();
  }
  return damage;
}

void RocksDbTier::Visit(const std::function<bool(const TierKey& key, uint32_t parts,
                                                 const absl::StatusOr<TierView>& value)>& visit) {
  const std::vector<StoredValue> values = directory_.Values();
  for (size_t first = 0, last = 0; first < values.size(); first = last) {
    const auto together = [&](const StoredValue& value) {
      return value.batch == values[first].batch && value.key.kind == values[first].key.kind;
    };
    while (last < values.size() && together(values[last])) ++last;
    GatheredValues bytes(last - first);
    const std::vector<absl::Status> read =
        database_->ReadTogether(std::span(values).subspan(first, last - first), bytes.take());
    for (size_t i = 0; i < read.size(); ++i) {
      const StoredValue& value = values[first + i];
      absl::StatusOr<TierView> view = TierView();
      if (read[i].ok()) {
        const auto owner = std::make_shared<const std::vector<uint8_t>>(std::move(bytes[i]));
        view = TierView{owner, *owner};
      } else {
        view = read[i].code() == absl::StatusCode::kDataLoss ? GiveUp(value, read[i]) : read[i];
        if (view.status().code() == absl::StatusCode::kNotFound) continue;
      }
      if (!visit(value.key, value.parts, view)) return;
    }
  }
}

absl::StatusOr<std::unique_ptr<Tier>> OpenInFolder(const std::shared_ptr<RocksDbFolder>& folder,
                                                   const RocksDbTierOptions& options,
                                                   RocksDbTierReport* report) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<RocksDbDatabase> database,
                              RocksDbDatabase::Open(*folder, options));
  auto tier = std::make_unique<RocksDbTier>(folder, std::move(database), options.capacity_bytes);
  PALIMPSEST_RETURN_IF_ERROR(tier->Load(report));
  return tier;
}

absl::Status CheckCapacity(const RocksDbTierOptions& options, const RocksDbFolder& folder) {
  PALIMPSEST_ASSIGN_OR_RETURN(const DiskSpace space, folder.Space());
  if (options.capacity_bytes > space.bytes) {
    return InvalidArgument("ssd tier {}: capacity {} bytes, but its disk holds {}; lower the capacity",
                           Quoted(folder.path(), 4096), options.capacity_bytes, space.bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tier>> OpenRocksDbTier(const RocksDbTierOptions& options,
                                                      RocksDbTierReport* report) {
  const auto begin = std::chrono::steady_clock::now();
  RocksDbTierReport unused;
  if (report == nullptr) report = &unused;
  *report = {};
  if (options.capacity_bytes <= 0) {
    return InvalidArgument("ssd tier {}: capacity {} bytes; it must be positive",
                           Quoted(options.folder, 4096), options.capacity_bytes);
  }
  bool damaged = false;
  PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<RocksDbFolder> folder,
                              RocksDbFolder::Open(options.folder, options.lock_wait, &damaged));
  PALIMPSEST_RETURN_IF_ERROR(CheckCapacity(options, *folder));
  absl::StatusOr<std::unique_ptr<Tier>> tier = absl::DataLossError("its format marker cannot be read");
  if (!damaged) tier = OpenInFolder(folder, options, report);
  if (tier.status().code() == absl::StatusCode::kDataLoss) {
    PALIMPSEST_ASSIGN_OR_RETURN(report->quarantined, folder->Quarantine());
    PALIMPSEST_LOG(kWarn, "ssd tier damaged, starting empty; remove what was moved aside folder {} error {}",
                   LogName(report->quarantined), tier.status());
    tier = OpenInFolder(folder, options, report);
  }
  report->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return tier;
}

absl::Status VisitRocksDbTier(Tier& tier,
                              const std::function<bool(const TierKey& key, uint32_t parts,
                                                       const absl::StatusOr<TierView>& value)>& visit) {
  auto* const rocksdb = dynamic_cast<RocksDbTier*>(&tier);
  if (rocksdb == nullptr)
    return InvalidArgument("the {} tier is not one on SSD: nothing to visit", tier.Name());
  rocksdb->Visit(visit);
  return absl::OkStatus();
}

}  // namespace palimpsest
