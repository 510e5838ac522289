#include "storage/tier/host_tier.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Bytes that are still held. Shared by the tier and each buffer, as a view may outlive the tier.
using Account = std::shared_ptr<std::atomic<int64_t>>;

// A value and its entry in the account: charged when made, credited when the last reference goes.
struct Buffer {
  Buffer(const TierItem& item, std::vector<uint64_t> sums, Account charged)
      : value(item.value), parts(item.parts), checksums(std::move(sums)), account(std::move(charged)) {
    *account += Bytes();
  }
  ~Buffer() { *account -= Bytes(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  int64_t Bytes() const { return static_cast<int64_t>(value->size()); }
  std::span<const uint8_t> Part(uint32_t part) const {
    const size_t bytes = value->size() / parts;
    return std::span(*value).subspan(part * bytes, bytes);
  }

  const TierValue value;
  const uint32_t parts;
  const std::vector<uint64_t> checksums;  // [parts] XXH3-64; empty: not verified
  const Account account;
};

// What of a value is read: all parts, or one.
struct Parts {
  uint32_t first = 0, count = 0;
};

std::vector<uint64_t> Checksums(const TierItem& item) {
  std::vector<uint64_t> checksums(item.parts);
  const size_t bytes = item.value->size() / item.parts;
  for (size_t i = 0; i < item.parts; ++i) checksums[i] = XXH3_64bits(item.value->data() + i * bytes, bytes);
  return checksums;
}

bool IsIntact(const Buffer& buffer, Parts read) {
  if (buffer.checksums.empty()) return true;
  for (uint32_t part = read.first; part < read.first + read.count; ++part) {
    const auto bytes = buffer.Part(part);
    if (XXH3_64bits(bytes.data(), bytes.size()) != buffer.checksums[part]) return false;
  }
  return true;
}

class HostTier final : public Tier {
 public:
  explicit HostTier(const HostTierOptions& options) : options_(options) {
    stats_.capacity_bytes = options.capacity_bytes;
  }

  std::string_view Name() const override { return "host"; }

  absl::Status Put(std::span<const TierItem> items) override {
    absl::Status status = CheckTierItems(Name(), items);
    std::vector<std::vector<uint64_t>> checksums(items.size());
    if (status.ok() && options_.verify_reads) {  // before the lock: it reads all bytes
      std::transform(items.begin(), items.end(), checksums.begin(), Checksums);
    }
    std::lock_guard lock(mu_);
    if (status.ok()) status = Store(items, std::move(checksums));
    if (!status.ok()) stats_.refused_puts += static_cast<int64_t>(items.size());
    return status;
  }

  absl::StatusOr<TierView> Get(const TierKey& key) override {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Buffer> buffer, Find(key, 0));
    return Read(key, buffer, {.first = 0, .count = buffer->parts}, *buffer->value);
  }

  absl::StatusOr<TierView> GetPart(const TierKey& key, uint32_t part) override {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::shared_ptr<Buffer> buffer, Find(key, part));
    return Read(key, buffer, {.first = part, .count = 1}, buffer->Part(part));
  }

  void Touch(std::span<const TierKey> keys) override {
    std::lock_guard lock(mu_);
    for (const TierKey& key : keys) {
      if (const auto found = table_.find(key); found != table_.end()) MakeRecent(found->second);
    }
  }

  bool Contains(const TierKey& key) const override {
    std::lock_guard lock(mu_);
    return table_.contains(key);
  }

  absl::Status Erase(const TierKey& key) override {
    std::lock_guard lock(mu_);
    if (auto found = table_.find(key); found != table_.end()) Drop(found);
    return absl::OkStatus();
  }

  std::vector<TierEntry> List() const override {
    std::vector<TierEntry> entries;
    std::lock_guard lock(mu_);
    for (const Entry& entry : recent_)
      entries.push_back({entry.key, entry.buffer->parts, entry.buffer->Bytes()});
    return entries;
  }

  TierStats Stats() const override {
    std::lock_guard lock(mu_);
    TierStats stats = stats_;
    stats.used_bytes = *used_;
    stats.values = static_cast<int64_t>(table_.size());
    return stats;
  }

 private:
  absl::StatusOr<std::shared_ptr<Buffer>> Find(const TierKey& key, uint32_t part) {
    std::lock_guard lock(mu_);
    const auto found = table_.find(key);
    if (found == table_.end()) {
      ++stats_.misses;
      return NotFound("{} is not in the host tier", key.ToString());
    }
    const std::shared_ptr<Buffer>& buffer = found->second->buffer;
    if (part >= buffer->parts) return NoSuchPart(Name(), key, part, buffer->parts);
    MakeRecent(found->second);
    return buffer;
  }

  // Hashing happens outside the lock; the buffer stays, whatever becomes of the entry meanwhile.
  absl::StatusOr<TierView> Read(const TierKey& key, const std::shared_ptr<Buffer>& buffer, Parts parts,
                                std::span<const uint8_t> bytes) {
    const bool intact = IsIntact(*buffer, parts);
    std::lock_guard lock(mu_);
    if (intact) {
      ++stats_.hits;
      return TierView{buffer, bytes};
    }
    ++stats_.damaged;
    if (auto found = table_.find(key); found != table_.end() && found->second->buffer == buffer) Drop(found);
    return DataLoss("{} was damaged in host memory: {} bytes fail their checksum", key.ToString(),
                    bytes.size());
  }

  struct Entry {
    TierKey key;
    std::shared_ptr<Buffer> buffer;
  };
  using Recency = std::list<Entry>;  // most recent first
  using Table = absl::flat_hash_map<TierKey, Recency::iterator, TierKeyHash>;

  // The functions below are called with mu_ held.
  void MakeRecent(Recency::iterator entry) { recent_.splice(recent_.begin(), recent_, entry); }

  void Drop(Table::iterator found) {
    recent_.erase(found->second);
    table_.erase(found);
  }

  absl::Status Store(std::span<const TierItem> items, std::vector<std::vector<uint64_t>> checksums) {
    std::vector<std::shared_ptr<Buffer>>
        known;  // held, so that what belongs together is not evicted for itself
    absl::flat_hash_set<TierKey, TierKeyHash> seen;
    std::vector<size_t> fresh;
    int64_t bytes = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      if (auto found = table_.find(items[i].key); found != table_.end()) {
        MakeRecent(found->second);
        known.push_back(found->second->buffer);
      } else if (seen.insert(items[i].key).second) {
        fresh.push_back(i);
        bytes += static_cast<int64_t>(items[i].value->size());
      }
    }
    if (!fresh.empty()) PALIMPSEST_RETURN_IF_ERROR(MakeRoom(bytes));
    for (auto i = fresh.rbegin(); i != fresh.rend(); ++i) {
      recent_.push_front(
          {items[*i].key, std::make_shared<Buffer>(items[*i], std::move(checksums[*i]), used_)});
      table_.emplace(items[*i].key, recent_.begin());
    }
    stats_.puts += static_cast<int64_t>(fresh.size());
    stats_.known_puts += static_cast<int64_t>(items.size() - fresh.size());
    return absl::OkStatus();
  }

  // Evicts from the old end until `bytes` more fit; evicts nothing if they never will.
  absl::Status MakeRoom(int64_t bytes) {
    // Views may be given back meanwhile, so this reads the account once: what it promises can only get
    // easier.
    const int64_t missing = *used_ + bytes - options_.capacity_bytes;
    int64_t found = 0;
    std::vector<Recency::iterator> victims;
    for (auto entry = recent_.end(); found < missing && entry != recent_.begin();) {
      --entry;
      // Only the table refers to it, and a new view is made under mu_: it stays that way until we are done.
      if (entry->buffer.use_count() > 1) continue;
      found += entry->buffer->Bytes();
      victims.push_back(entry);
    }
    if (found < missing) {
      return ResourceExhausted(
          "host tier: no room for {} bytes: capacity {}, of {} used {} could be evicted; raise its "
          "capacity or release views",
          bytes, options_.capacity_bytes, used_->load(), found);
    }
    for (Recency::iterator victim : victims) {
      ++stats_.evictions;
      stats_.evicted_bytes += victim->buffer->Bytes();
      table_.erase(victim->key);
      recent_.erase(victim);
    }
    return absl::OkStatus();
  }

  const HostTierOptions options_;
  const Account used_ = std::make_shared<std::atomic<int64_t>>(0);
  mutable std::mutex mu_;  // guards what follows
  Recency recent_;
  Table table_;
  TierStats stats_;
};

}  // namespace

std::unique_ptr<Tier> MakeHostTier(const HostTierOptions& options) {
  return std::make_unique<HostTier>(options);
}

}  // namespace palimpsest
