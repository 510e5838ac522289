#include "storage/tier/rocksdb_tier.h"

#include <algorithm>
#include <array>
#include <list>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "storage/tier/rocksdb_database.h"
#include "storage/tier/rocksdb_folder.h"

namespace palimpsest {
namespace {

constexpr std::string_view kName = "ssd";

// What one Put stored. Its bytes are held until its files are dropped, whatever became of its values.
struct Batch {
  uint64_t number = 0;
  int64_t bytes = 0;
  std::array<uint32_t, kValueKinds> values_of_kind{};  // that were put
  std::vector<TierKey> keys;  // that can be found; empty: its files are to be dropped
};
using Recency = std::list<Batch>;  // most recent first

// A value; what it shares with its neighbours is in its batch.
struct Location {
  Recency::iterator batch;
  uint32_t place = 0;
  uint32_t parts = 0;
  uint64_t part_bytes = 0;

  StoredValue Stored(const TierKey& key) const {
    return {.key = key,
            .batch = batch->number,
            .place = place,
            .parts = parts,
            .part_bytes = part_bytes,
            .batch_bytes = static_cast<uint64_t>(batch->bytes),
            .neighbours = batch->values_of_kind[static_cast<size_t>(key.kind)]};
  }
};

class RocksDbTier final : public Tier {
 public:
  RocksDbTier(std::shared_ptr<RocksDbFolder> folder, std::unique_ptr<RocksDbDatabase> database,
              int64_t capacity_bytes)
      : folder_(std::move(folder)), database_(std::move(database)) {
    stats_.capacity_bytes = capacity_bytes;
  }

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
    if (!status.ok()) {
      const std::lock_guard lock(mu_);
      stats_.refused_puts += static_cast<int64_t>(items.size());
    }
    return status;
  }

  absl::StatusOr<TierView> Get(const TierKey& key) override { return Read(key, std::nullopt); }
  absl::StatusOr<TierView> GetPart(const TierKey& key, uint32_t part) override { return Read(key, part); }
  std::vector<absl::StatusOr<std::vector<uint8_t>>> GetTogether(std::span<const TierKey> keys) override;

  bool Contains(const TierKey& key) const override {
    const std::lock_guard lock(mu_);
    return table_.contains(key);
  }

  absl::Status Erase(const TierKey& key) override {
    const std::lock_guard writer(writer_);
    std::optional<StoredValue> value = Find(key);
    if (!value) return absl::OkStatus();
    PALIMPSEST_RETURN_IF_ERROR(database_->Erase({&*value, 1}));
    Forget(*value);
    return DropEmptyBatches();
  }

  std::vector<TierEntry> List() const override {
    std::vector<TierEntry> entries;
    const std::lock_guard lock(mu_);
    for (const auto& [key, at] : table_)
      entries.push_back({key, at.parts, static_cast<int64_t>(at.parts * at.part_bytes)});
    return entries;
  }

  TierStats Stats() const override {
    const std::lock_guard lock(mu_);
    TierStats stats = stats_;
    stats.values = static_cast<int64_t>(table_.size());
    return stats;
  }

 private:
  absl::Status Store(std::span<const TierItem> items);
  std::vector<TierItem> TakeKnown(std::span<const TierItem> items, absl::flat_hash_set<uint64_t>* needed);
  absl::StatusOr<std::vector<StoredValue>> ChooseVictims(int64_t bytes,
                                                         const absl::flat_hash_set<uint64_t>& needed) const;
  absl::Status Evict(std::span<const StoredValue> values);
  absl::Status DropEmptyBatches();
  void Insert(std::span<const StoredValue> values);

  std::optional<StoredValue> Find(const TierKey& key) const {
    const std::lock_guard lock(mu_);
    const auto found = table_.find(key);
    return found == table_.end() ? std::nullopt : std::optional(found->second.Stored(key));
  }
  // False: it was forgotten before, or put again since.
  bool Forget(const StoredValue& value) {
    const std::lock_guard lock(mu_);
    const auto found = table_.find(value.key);
    if (found == table_.end() || found->second.batch->number != value.batch) return false;
    std::erase(found->second.batch->keys, value.key);
    table_.erase(found);
    return true;
  }

  absl::StatusOr<StoredValue> Use(const TierKey& key, std::optional<uint32_t> part);
  absl::StatusOr<TierView> Read(const TierKey& key, std::optional<uint32_t> part);
  absl::Status Answered(const StoredValue& value, const absl::Status& status);
  absl::Status GiveUp(const StoredValue& value, absl::Status damage);

  const std::shared_ptr<RocksDbFolder>
      folder_;  // holds the lock; shared with who opens it, to outlive database_
  const std::unique_ptr<RocksDbDatabase> database_;

  std::mutex writer_;        // held over I/O: batches are written and dropped one at a time. Before mu_.
  uint64_t next_batch_ = 1;  // guarded by writer_

  mutable std::mutex
      mu_;  // never held over I/O; guards what follows. Batches are added and removed by writers only.
  Recency recent_;
  absl::flat_hash_map<TierKey, Location, TierKeyHash> table_;
  TierStats stats_;
};

absl::Status RocksDbTier::Load(RocksDbTierReport* report) {
  PALIMPSEST_ASSIGN_OR_RETURN(const StoredDirectory directory, database_->Recover());
  next_batch_ = directory.next_batch;
  for (size_t first = 0, last = 0; first < directory.values.size(); first = last) {
    while (last < directory.values.size() && directory.values[last].batch == directory.values[first].batch)
      ++last;
    Insert(std::span(directory.values).subspan(first, last - first));
  }
  // The capacity may have been lowered.
  const absl::StatusOr<std::vector<StoredValue>> victims = ChooseVictims(0, {});
  PALIMPSEST_RETURN_IF_ERROR(victims.status());
  PALIMPSEST_RETURN_IF_ERROR(Evict(*victims));
  report->values = static_cast<int64_t>(table_.size());
  report->bytes = stats_.used_bytes;
  report->dropped_batches = directory.dropped_batches;
  return absl::OkStatus();
}

// Values of one batch. Adds their batch as the most recent.
void RocksDbTier::Insert(std::span<const StoredValue> values) {
  if (values.empty()) return;
  Batch batch{.number = values[0].batch, .bytes = static_cast<int64_t>(values[0].batch_bytes)};
  for (const StoredValue& value : values) {
    uint32_t& count = batch.values_of_kind[static_cast<size_t>(value.key.kind)];
    count = std::max(count, value.place + 1);
    batch.keys.push_back(value.key);
  }
  const std::lock_guard lock(mu_);
  recent_.push_front(std::move(batch));
  for (const StoredValue& value : values) {
    table_.insert_or_assign(value.key, Location{recent_.begin(), value.place, value.parts, value.part_bytes});
  }
  stats_.used_bytes += recent_.front().bytes;
}

// ---- Put

// Counts and touches what is here; returns the rest, each key once.
std::vector<TierItem> RocksDbTier::TakeKnown(std::span<const TierItem> items,
                                             absl::flat_hash_set<uint64_t>* needed) {
  std::vector<TierItem> fresh;
  absl::flat_hash_set<TierKey, TierKeyHash> seen;
  const std::lock_guard lock(mu_);
  for (const TierItem& item : items) {
    if (const auto found = table_.find(item.key); found != table_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second.batch);
      needed->insert(found->second.batch->number);
    } else if (seen.insert(item.key).second) {
      fresh.push_back(item);
    }
  }
  return fresh;
}

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
  const std::vector<TierItem> fresh = TakeKnown(items, &needed);
  if (!fresh.empty()) {
    PALIMPSEST_RETURN_IF_ERROR(DropEmptyBatches());  // else more would be evicted in their place
    const std::vector<StoredValue> values = Place(fresh, next_batch_);
    PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<StoredValue> victims,
                                ChooseVictims(static_cast<int64_t>(values[0].batch_bytes), needed));
    PALIMPSEST_RETURN_IF_ERROR(Evict(victims));
    ++next_batch_;  // also if writing fails: what it may have left behind has the number
    PALIMPSEST_RETURN_IF_ERROR(database_->Write(fresh, values));
    Insert(values);
  }
  const std::lock_guard lock(mu_);
  stats_.puts += static_cast<int64_t>(fresh.size());
  stats_.known_puts += static_cast<int64_t>(items.size() - fresh.size());
  return absl::OkStatus();
}

// ---- eviction

// The values of the least recently used batches that have to go before `bytes` more fit; none if they never
// will.
absl::StatusOr<std::vector<StoredValue>> RocksDbTier::ChooseVictims(
    int64_t bytes, const absl::flat_hash_set<uint64_t>& needed) const {
  const std::lock_guard lock(mu_);
  const int64_t missing = stats_.used_bytes + bytes - stats_.capacity_bytes;
  int64_t found = 0;
  std::vector<StoredValue> victims;
  for (auto batch = recent_.rbegin(); found < missing && batch != recent_.rend(); ++batch) {
    if (batch->keys.empty() || needed.contains(batch->number)) continue;
    found += batch->bytes;
    for (const TierKey& key : batch->keys) victims.push_back(table_.at(key).Stored(key));
  }
  if (found >= missing) return victims;
  return ResourceExhausted(
      "ssd tier {}: no room for {} bytes: capacity {}, of {} used {} could be evicted; raise its capacity",
      Quoted(folder_->path(), 4096), bytes, stats_.capacity_bytes, stats_.used_bytes, found);
}

// Whole batches. Erased in the directory first: after a crash a batch without entries is dropped, while
// entries without files would be damage.
absl::Status RocksDbTier::Evict(std::span<const StoredValue> values) {
  PALIMPSEST_RETURN_IF_ERROR(database_->Erase(values));
  for (const StoredValue& value : values) {
    if (!Forget(value)) continue;
    const std::lock_guard lock(mu_);
    ++stats_.evictions;
    stats_.evicted_bytes += static_cast<int64_t>(value.parts * value.part_bytes);
  }
  return DropEmptyBatches();
}

// A reader that found the batch before it was emptied gets a miss from here on.
absl::Status RocksDbTier::DropEmptyBatches() {
  std::vector<Recency::iterator> empty;
  {
    const std::lock_guard lock(mu_);
    for (auto batch = recent_.begin(); batch != recent_.end(); ++batch) {
      if (batch->keys.empty()) empty.push_back(batch);
    }
  }
  for (const Recency::iterator batch : empty) {
    PALIMPSEST_RETURN_IF_ERROR(database_->Drop(batch->number));
    const std::lock_guard lock(mu_);
    stats_.used_bytes -= batch->bytes;
    recent_.erase(batch);
  }
  return absl::OkStatus();
}

// ---- Get

// Where it lies, and its batch is the most recent.
absl::StatusOr<StoredValue> RocksDbTier::Use(const TierKey& key, std::optional<uint32_t> part) {
  const std::lock_guard lock(mu_);
  const auto found = table_.find(key);
  if (found == table_.end()) {
    ++stats_.misses;
    return NotFound("{} is not in the ssd tier", key.ToString());
  }
  const Location& location = found->second;
  if (part && *part >= location.parts) return NoSuchPart(kName, key, *part, location.parts);
  recent_.splice(recent_.begin(), recent_, location.batch);
  return location.Stored(key);
}

// Counts what reading it gave; what to tell who asked.
absl::Status RocksDbTier::Answered(const StoredValue& value, const absl::Status& status) {
  if (status.code() == absl::StatusCode::kDataLoss) return GiveUp(value, status);
  const std::lock_guard lock(mu_);
  if (status.ok()) ++stats_.hits;
  return status;
}

absl::StatusOr<TierView> RocksDbTier::Read(const TierKey& key, std::optional<uint32_t> part) {
  PALIMPSEST_ASSIGN_OR_RETURN(const StoredValue value, Use(key, part));
  absl::StatusOr<TierView> view = part ? database_->ReadPart(value, *part) : database_->ReadValue(value);
  PALIMPSEST_RETURN_IF_ERROR(Answered(value, view.status()));
  return view;
}

std::vector<absl::StatusOr<std::vector<uint8_t>>> RocksDbTier::GetTogether(std::span<const TierKey> keys) {
  std::vector<absl::StatusOr<std::vector<uint8_t>>> values(keys.size(), std::vector<uint8_t>());
  absl::flat_hash_map<TierKey, size_t, TierKeyHash> first;  // where a key stands first
  std::vector<StoredValue> stored;
  std::vector<size_t> places;  // of what is stored among the values
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!first.emplace(keys[i], i).second) continue;
    const absl::StatusOr<StoredValue> value = Use(keys[i], std::nullopt);
    if (value.ok()) {
      stored.push_back(*value);
      places.push_back(i);
    } else {
      values[i] = value.status();
    }
  }
  std::vector<absl::StatusOr<std::vector<uint8_t>>> read = database_->ReadTogether(stored);
  for (size_t i = 0; i < read.size(); ++i) {
    const absl::Status answer = Answered(stored[i], read[i].status());
    if (answer.ok()) {
      values[places[i]] = std::move(read[i]);
    } else {
      values[places[i]] = answer;
    }
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    if (const size_t at = first.at(keys[i]); at != i) values[i] = values[at];
  }
  return values;
}

absl::Status RocksDbTier::GiveUp(const StoredValue& value, absl::Status damage) {
  if (!Forget(value)) {  // it was dropped while it was read
    const std::lock_guard lock(mu_);
    ++stats_.misses;
    return NotFound("{} is not in the ssd tier any more", value.key.ToString());
  }
  {
    const std::lock_guard lock(mu_);
    ++stats_.damaged;
  }
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
  std::vector<StoredValue> values;
  {
    const std::lock_guard lock(mu_);
    for (const auto& [key, location] : table_) values.push_back(location.Stored(key));
  }
  const auto order = [](const StoredValue& value) {
    return std::tuple(value.batch, value.key.kind, value.place);
  };
  std::sort(values.begin(), values.end(),
            [&](const StoredValue& a, const StoredValue& b) { return order(a) < order(b); });
  for (size_t first = 0, last = 0; first < values.size(); first = last) {
    const auto together = [&](const StoredValue& value) {
      return value.batch == values[first].batch && value.key.kind == values[first].key.kind;
    };
    while (last < values.size() && together(values[last])) ++last;
    std::vector<absl::StatusOr<std::vector<uint8_t>>> read =
        database_->ReadTogether(std::span(values).subspan(first, last - first));
    for (size_t i = 0; i < read.size(); ++i) {
      const StoredValue& value = values[first + i];
      absl::StatusOr<TierView> view = TierView();
      if (read[i].ok()) {
        const auto owner = std::make_shared<const std::vector<uint8_t>>(*std::move(read[i]));
        view = TierView{owner, *owner};
      } else {
        view = read[i].status().code() == absl::StatusCode::kDataLoss ? GiveUp(value, read[i].status())
                                                                      : read[i].status();
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
  if (const int64_t disk = folder.DiskBytes(); options.capacity_bytes > disk) {
    return InvalidArgument("ssd tier {}: capacity {} bytes, but its disk holds {}; lower the capacity",
                           Quoted(folder.path(), 4096), options.capacity_bytes, disk);
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
