// What the ssd tier holds and in which batch, which batch was used last, and the counts of both: in memory
// only, and never the values themselves.
//
// Batch  : what one Put stored. Its bytes are held until its files are dropped, whatever became of its
//          values; without values that can be found it waits to be dropped.
// Threads: any. One writer at a time inserts and removes batches (the tier sees to it); no lock of this is
//          held over I/O.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "storage/tier.h"
#include "storage/tier/rocksdb_database.h"

namespace palimpsest {

class RocksDbDirectory {
 public:
  // `name`: of the tier, for errors.
  RocksDbDirectory(std::string name, int64_t capacity_bytes);

  // Values of one batch, which becomes the most recent.
  void Insert(std::span<const StoredValue> values);
  // Counts and touches what is here and notes its batches as needed; returns the rest, each key once.
  std::vector<TierItem> TakeKnown(std::span<const TierItem> items, absl::flat_hash_set<uint64_t>* needed);

  void Touch(std::span<const TierKey> keys);
  bool Contains(const TierKey& key) const;
  std::optional<StoredValue> Find(const TierKey& key) const;
  // Where it lies; its batch is the most recent. NotFound, counted as a miss; OutOfRange: no such part.
  absl::StatusOr<StoredValue> Use(const TierKey& key, std::optional<uint32_t> part);
  // False: it was forgotten before, or put again since.
  bool Forget(const StoredValue& value);

  // The values of the least recently used batches that have to go before `bytes` more fit, but for those
  // needed. `disk_is_full`: whatever the capacity, as much has to go as comes. ResourceExhausted if they
  // never will.
  absl::StatusOr<std::vector<StoredValue>> ChooseVictims(int64_t bytes,
                                                         const absl::flat_hash_set<uint64_t>& needed,
                                                         bool disk_is_full) const;
  std::vector<uint64_t> EmptyBatches() const;
  // Its files are gone.
  void Remove(uint64_t batch);

  // Batch by batch, of each kind in the order they were put.
  std::vector<StoredValue> Values() const;
  std::vector<TierEntry> List() const;
  TierStats Stats() const;
  void Count(int64_t TierStats::*what, int64_t more = 1);

 private:
  struct Batch {
    uint64_t number = 0;
    int64_t bytes = 0;
    std::array<uint32_t, kValueKinds> values_of_kind{};  // that were put
    std::vector<TierKey> keys;                           // that can be found
  };
  using Recency = std::list<Batch>;  // most recent first

  // A value; what it shares with its neighbours is in its batch.
  struct Location {
    Recency::iterator batch;
    uint32_t place = 0;
    uint32_t parts = 0;
    uint64_t part_bytes = 0;
  };
  static StoredValue Stored(const TierKey& key, const Location& at);

  const std::string name_;
  mutable std::mutex mu_;  // guards what follows
  Recency recent_;
  absl::flat_hash_map<TierKey, Location, TierKeyHash> table_;
  TierStats stats_;
};

}  // namespace palimpsest
