#include "storage/tier/host_tier.h"

#include <xxhash.h>

#include <atomic>
#include <list>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Bytes that are still held. Shared by the tier and each buffer, as a view may outlive the tier.
using Account = std::shared_ptr<std::atomic<int64_t>>;

// A value and its entry in the account: charged when made, credited when the last reference goes.
struct Buffer {
  Buffer(std::vector<uint8_t> value, uint64_t sum, Account charged)
      : bytes(std::move(value)), checksum(sum), account(std::move(charged)) {
    *account += static_cast<int64_t>(bytes.size());
  }
  ~Buffer() { *account -= static_cast<int64_t>(bytes.size()); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const std::vector<uint8_t> bytes;
  const uint64_t checksum;  // XXH3-64 of bytes
  const Account account;
};

uint64_t Checksum(const std::vector<uint8_t>& bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

class HostTier final : public Tier {
 public:
  explicit HostTier(const HostTierOptions& options) : options_(options) {
    stats_.capacity_bytes = options.capacity_bytes;
  }

  std::string_view Name() const override { return "host"; }

  absl::Status Put(const BlockId& id, std::vector<uint8_t> value) override {
    if (value.capacity() != value.size()) value.shrink_to_fit();  // else RAM nobody counts
    const uint64_t checksum = Checksum(value);                    // before the lock: it reads all bytes
    std::lock_guard lock(mu_);
    if (auto found = table_.find(id); found != table_.end()) {
      Touch(found->second);
      ++stats_.known_puts;
      return absl::OkStatus();
    }
    absl::Status status = value.empty()
                              ? InvalidArgument("host tier: block {} has an empty value", id.ToHex())
                              : MakeRoom(static_cast<int64_t>(value.size()));
    if (!status.ok()) {
      ++stats_.refused_puts;
      return status;
    }
    recent_.push_front({id, std::make_shared<Buffer>(std::move(value), checksum, used_)});
    table_.emplace(id, recent_.begin());
    ++stats_.puts;
    return absl::OkStatus();
  }

  absl::StatusOr<TierValue> Get(const BlockId& id) override {
    std::shared_ptr<Buffer> buffer;
    {
      std::lock_guard lock(mu_);
      auto found = table_.find(id);
      if (found == table_.end()) {
        ++stats_.misses;
        return NotFound("block {} is not in the host tier", id.ToHex());
      }
      Touch(found->second);
      buffer = found->second->buffer;
      if (!options_.verify_reads) {
        ++stats_.hits;
        return TierValue(buffer, &buffer->bytes);
      }
    }
    const bool intact = Checksum(buffer->bytes) == buffer->checksum;
    std::lock_guard lock(mu_);
    if (!intact) {
      ++stats_.damaged;
      if (auto found = table_.find(id); found != table_.end() && found->second->buffer == buffer) Drop(found);
      return DataLoss("block {} was damaged in host memory: {} bytes fail their checksum", id.ToHex(),
                      buffer->bytes.size());
    }
    ++stats_.hits;
    return TierValue(buffer, &buffer->bytes);
  }

  bool Contains(const BlockId& id) const override {
    std::lock_guard lock(mu_);
    return table_.contains(id);
  }

  absl::Status Erase(const BlockId& id) override {
    std::lock_guard lock(mu_);
    if (auto found = table_.find(id); found != table_.end()) Drop(found);
    return absl::OkStatus();
  }

  TierStats Stats() const override {
    std::lock_guard lock(mu_);
    TierStats stats = stats_;
    stats.used_bytes = *used_;
    stats.values = static_cast<int64_t>(table_.size());
    return stats;
  }

 private:
  struct Entry {
    BlockId id;
    std::shared_ptr<Buffer> buffer;
  };
  using Recency = std::list<Entry>;  // most recent first
  using Table = absl::flat_hash_map<BlockId, Recency::iterator, BlockIdHash>;

  // The functions below are called with mu_ held.
  void Touch(Recency::iterator entry) { recent_.splice(recent_.begin(), recent_, entry); }

  void Drop(Table::iterator found) {
    recent_.erase(found->second);
    table_.erase(found);
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
      found += static_cast<int64_t>(entry->buffer->bytes.size());
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
      stats_.evicted_bytes += static_cast<int64_t>(victim->buffer->bytes.size());
      table_.erase(victim->id);
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
