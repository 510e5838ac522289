#include "storage/tier/rocksdb_directory.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {

RocksDbDirectory::RocksDbDirectory(std::string name, int64_t capacity_bytes) : name_(std::move(name)) {
  stats_.capacity_bytes = capacity_bytes;
}

StoredValue RocksDbDirectory::Stored(const TierKey& key, const Location& at) {
  return {.key = key,
          .batch = at.batch->number,
          .place = at.place,
          .parts = at.parts,
          .part_bytes = at.part_bytes,
          .batch_bytes = static_cast<uint64_t>(at.batch->bytes),
          .neighbours = at.batch->values_of_kind[static_cast<size_t>(key.kind)]};
}

void RocksDbDirectory::Insert(std::span<const StoredValue> values) {
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

std::vector<TierItem> RocksDbDirectory::TakeKnown(std::span<const TierItem> items,
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

void RocksDbDirectory::Touch(std::span<const TierKey> keys) {
  const std::lock_guard lock(mu_);
  for (const TierKey& key : keys) {
    if (const auto found = table_.find(key); found != table_.end())
      recent_.splice(recent_.begin(), recent_, found->second.batch);
  }
}

bool RocksDbDirectory::Contains(const TierKey& key) const {
  const std::lock_guard lock(mu_);
  return table_.contains(key);
}

std::optional<StoredValue> RocksDbDirectory::Find(const TierKey& key) const {
  const std::lock_guard lock(mu_);
  const auto found = table_.find(key);
  return found == table_.end() ? std::nullopt : std::optional(Stored(key, found->second));
}

absl::StatusOr<StoredValue> RocksDbDirectory::Use(const TierKey& key, std::optional<uint32_t> part) {
  const std::lock_guard lock(mu_);
  const auto found = table_.find(key);
  if (found == table_.end()) {
    ++stats_.misses;
    return NotFound("{} is not in the ssd tier", key.ToString());
  }
  const Location& location = found->second;
  if (part && *part >= location.parts) return NoSuchPart("ssd", key, *part, location.parts);
  recent_.splice(recent_.begin(), recent_, location.batch);
  return Stored(key, location);
}

bool RocksDbDirectory::Forget(const StoredValue& value) {
  const std::lock_guard lock(mu_);
  const auto found = table_.find(value.key);
  if (found == table_.end() || found->second.batch->number != value.batch) return false;
  std::erase(found->second.batch->keys, value.key);
  table_.erase(found);
  return true;
}

absl::StatusOr<std::vector<StoredValue>> RocksDbDirectory::ChooseVictims(
    int64_t bytes, const absl::flat_hash_set<uint64_t>& needed, bool disk_is_full) const {
  const std::lock_guard lock(mu_);
  const int64_t missing = disk_is_full ? bytes : stats_.used_bytes + bytes - stats_.capacity_bytes;
  int64_t found = 0;
  std::vector<StoredValue> victims;
  for (auto batch = recent_.rbegin(); found < missing && batch != recent_.rend(); ++batch) {
    if (batch->keys.empty() || needed.contains(batch->number)) continue;
    found += batch->bytes;
    for (const TierKey& key : batch->keys) victims.push_back(Stored(key, table_.at(key)));
  }
  if (found >= missing) return victims;
  return ResourceExhausted(
      "ssd tier {}: no room for {} bytes: capacity {}, of {} used {} could be evicted; raise its capacity",
      Quoted(name_, 4096), bytes, stats_.capacity_bytes, stats_.used_bytes, found);
}

std::vector<uint64_t> RocksDbDirectory::EmptyBatches() const {
  std::vector<uint64_t> empty;
  const std::lock_guard lock(mu_);
  for (const Batch& batch : recent_) {
    if (batch.keys.empty()) empty.push_back(batch.number);
  }
  return empty;
}

void RocksDbDirectory::Remove(uint64_t batch) {
  const std::lock_guard lock(mu_);
  const auto found =
      std::find_if(recent_.begin(), recent_.end(), [batch](const Batch& one) { return one.number == batch; });
  if (found == recent_.end()) return;
  stats_.used_bytes -= found->bytes;
  recent_.erase(found);
}

std::vector<StoredValue> RocksDbDirectory::Values() const {
  std::vector<StoredValue> values;
  {
    const std::lock_guard lock(mu_);
    for (const auto& [key, location] : table_) values.push_back(Stored(key, location));
  }
  const auto order = [](const StoredValue& value) {
    return std::tuple(value.batch, value.key.kind, value.place);
  };
  std::sort(values.begin(), values.end(),
            [&](const StoredValue& a, const StoredValue& b) { return order(a) < order(b); });
  return values;
}

std::vector<TierEntry> RocksDbDirectory::List() const {
  std::vector<TierEntry> entries;
  const std::lock_guard lock(mu_);
  for (const auto& [key, at] : table_)
    entries.push_back({key, at.parts, static_cast<int64_t>(at.parts * at.part_bytes)});
  return entries;
}

TierStats RocksDbDirectory::Stats() const {
  const std::lock_guard lock(mu_);
  TierStats stats = stats_;
  stats.values = static_cast<int64_t>(table_.size());
  return stats;
}

void RocksDbDirectory::Count(int64_t TierStats::*what, int64_t more) {
  const std::lock_guard lock(mu_);
  stats_.*what += more;
}

}  // namespace palimpsest
