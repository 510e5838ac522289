// The tier on SSD: values in RocksDB, one table file for what was put together.
//
// Layout : one column family for each kind of value (block, index, picks) and one for the directory. A part
//          is a RocksDB value under batch | part | place in the batch (big-endian), so that what one Put
//          brought is one key range, ordered by layer, head and text: a recall reads one tile, a restore
//          reads the range from end to end. Put writes one table file a kind and ingests all of them in one
//          step, with the directory's entries: after a crash a batch is there whole or not at all (I-4). No
//          write-ahead log, no compaction of values; evicting a batch drops its files. An erased value
//          whose neighbours remain may be back after a crash (after an orderly end only if it was erased
//          while a batch was written). Formats: rocksdb_database.h.
// Memory : the directory (about 130 bytes a value) and RocksDB's table indices (about 40 bytes a part).
// Evicts : whole batches, least recently used first; also when the disk is full before the tier is.
// Damage : a value whose bytes fail RocksDB's checksum is DataLoss and dropped. A folder that cannot be
//          opened because its files are damaged or missing is renamed to "<folder>.damaged-<unix seconds>"
//          and an empty tier starts; never RepairDB.
// Disk   : full, and what was evicted did not help, is ResourceExhausted; an I/O error Unavailable. What is
//          stored stays readable, and writing goes on when the disk can.
// Library: storage/tier/rocksdb_*.cc are the only includers of RocksDB below storage/.
// Source : sizes and settings measured in docs/storage.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "storage/tier.h"

namespace rocksdb {
class FileSystem;
}

namespace palimpsest {

struct RocksDbTierOptions {
  std::string folder;  // made, 0700, if it is not there; belongs to this tier alone
  int64_t capacity_bytes = 0;
  bool direct_reads = true;  // past the page cache; falls back where the file system refuses O_DIRECT
  // Files go through this (faults in tests). Null: the machine's.
  std::shared_ptr<rocksdb::FileSystem> file_system = nullptr;
  // How long an owner of the folder before us may take to end: one that was killed holds it for a moment.
  std::chrono::milliseconds lock_wait{5000};
  // Called where a crash would matter, with the name of the place ("before ingest"); a test may end the
  // process.
  std::function<void(std::string_view)> at_point = nullptr;
};

// What opening found; for the log, /health and `storage status`.
struct RocksDbTierReport {
  int64_t values = 0, bytes = 0;
  int64_t dropped_batches = 0;  // of an interrupted Put or eviction, or their files were damaged
  int64_t damaged_batches = 0;  // the latter among them
  double seconds = 0;
  std::string quarantined;  // where the damaged folder went; empty: nothing was damaged
};

// InvalidArgument: a capacity that is not positive or more than the file system of the folder holds (both
// numbers). FailedPrecondition: a folder of another format version (both named, what to do), or one that
// holds something else. Aborted: another process has it open (its pid). ResourceExhausted: the disk is full.
// Unavailable: the folder cannot be made, read or written.
absl::StatusOr<std::unique_ptr<Tier>> OpenRocksDbTier(const RocksDbTierOptions& options,
                                                      RocksDbTierReport* report = nullptr);

// Reads every value of an open RocksDB tier: `visit(key, parts, value)` gets each whole, or the error that
// reading it gave. Stops when visit returns false. For `storage verify`.
absl::Status VisitRocksDbTier(Tier& tier,
                              const std::function<bool(const TierKey& key, uint32_t parts,
                                                       const absl::StatusOr<TierView>& value)>& visit);

}  // namespace palimpsest
