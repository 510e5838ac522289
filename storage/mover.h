// Moves sealed values between the tiers below the device: what is put goes to host memory at once and, in
// batches, to SSD; what is asked for comes from whichever has it.
//
// Forms  : what is put and what is got are tiles sealed with a checksum, of blocks in bf16 (the open form).
// Host
//          memory holds that, SSD holds the same tiles encrypted under the data key (storage/envelope.h);
//          both perhaps hold blocks in fewer bits (storage/block_format.h). A tile is opened and sealed again
//          on each crossing, so it is checked on each (I-2). Without a key SSD holds plain tiles, and the
//          receipt says so.
// Writes : Put never waits for a disk, but for the memory of what is on its way there, and that with a
//          deadline. A batch that the disk refuses is tried again; what cannot be kept waiting is dropped and
//          counted. Nothing that was put fails a request.
// Reads  : by a few threads, with a deadline; late bytes are thrown away. After a few failures in a row the
//          disk is left alone for a while. Whatever does not come whole and in time is a miss (I-5).
// Threads: any thread.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "proto/base/clock.h"
#include "proto/base/executor.h"
#include "storage/block_format.h"
#include "storage/breaker.h"
#include "storage/data_key.h"
#include "storage/envelope.h"
#include "storage/tier.h"
#include "storage/value_opener.h"

namespace palimpsest {

struct MoverOptions {
  int readers = 8;
  int64_t batch_bytes = int64_t{48} << 20;         // so much is written together without being told to
  int64_t waiting_bytes_max = int64_t{512} << 20;  // put, and not on SSD yet
  int64_t tile_cache_bytes = int64_t{256} << 20;   // tiles that came from SSD one by one
  Duration put_wait = std::chrono::seconds(5);
  Duration read_wait = std::chrono::seconds(2);  // and another second for each 64 MiB
  Duration retry = std::chrono::seconds(2);      // before a refused batch is tried again
  int tries = 5;
  BlockFormat host_format = BlockFormat::kBf16, ssd_format = BlockFormat::kBf16;  // of blocks there
  int breaker_failures = 5;
  Duration breaker_pause = std::chrono::seconds(5);
};

enum class Level { kHost = 0, kSsd = 1 };
inline constexpr int kLevels = 2;

struct MoverStats {
  struct OfLevel {
    int64_t hits = 0, hit_bytes = 0, misses = 0;
    int64_t put_bytes = 0;  // taken by Put, as the tier holds them; of SSD on their way, and not what it had
    int64_t written_bytes = 0;  // that are there, as the tier holds them
  };
  std::array<OfLevel, kLevels> level;
  int64_t waiting_bytes = 0;                      // put, and not on SSD yet
  int64_t damaged = 0;                            // tiles that failed their checks
  int64_t late = 0;                               // reads that missed their deadline
  int64_t dropped_full = 0, dropped_refused = 0;  // values that never reached SSD: no memory to wait, disk
  bool disk_off = false;                          // it failed, and is left alone for a while
};

class Mover {
 public:
  // Values that one reader brings together. They are tiles that lie side by side, so many at a time: more
  // make longer reads, fewer begin sooner and leave work to the other readers.
  static constexpr size_t kReadTogether = 8;

  // Either tier may be null. `key` null: SSD holds plain values.
  Mover(const MoverOptions& options, std::unique_ptr<Tier> host, std::unique_ptr<Tier> ssd,
        std::shared_ptr<DataKey> key);
  ~Mover();  // without Flush, what waits is lost
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;

  // `value`: sealed tiles of equal size, one for each part, with checksums. True: a copy is below now, or on
  // its way.
  bool Put(const TierKey& key, std::vector<uint8_t> value, uint32_t parts);
  // What was put so far is a batch: it belongs together (a span, a conversation's turn).
  void Commit();
  // Commit, and all of it is on SSD (or was dropped) before `limit`? Without SSD: true.
  bool Flush(Duration limit);

  // A value in the open form, and where it was found.
  struct Found {
    TierView value;
    Level level;
  };
  std::optional<Found> Get(const TierKey& key);
  // As Get, of a value that `opens`. One that does not was damaged in host memory: it goes there, and what
  // SSD has of it is taken. Only what does not open from there either goes everywhere.
  std::optional<Found> GetIntact(const TierKey& key,
                                 const std::function<bool(std::span<const uint8_t> value)>& opens);
  // Begins to bring these from SSD; each is taken by a Get soon after. Those that follow one another here and
  // were put together are read together, in the order of their file. More than ReadAhead are not worth it.
  void Prefetch(std::span<const TierKey> keys);
  // Values of so many bytes to prefetch beyond the one that is needed: twice what all readers take, within
  // 192 MiB.
  size_t ReadAhead(int64_t value_bytes) const;

  // Single tiles, opened and checked against their place.
  struct TileRequest {
    TierKey key;
    uint32_t part;
  };
  struct FoundTile {
    std::shared_ptr<const void> owner;  // of the payload
    TileGeometry geometry;
    std::span<const uint8_t> payload;
    Level level = Level::kHost;
  };
  std::vector<std::optional<FoundTile>> GetTiles(std::span<const TileRequest> tiles);

  bool Contains(const TierKey& key) const;  // a hint; not of a disk that is left alone
  bool OnSsd(const TierKey& key) const;     // written, not only on its way; also while the disk is left alone
  void Touch(std::span<const TierKey> keys);  // as of Tier, of each tier

  bool has_ssd() const { return ssd_ != nullptr; }
  bool encrypted() const { return key_ != nullptr; }
  Tier* host() { return host_.get(); }
  Tier* ssd() { return ssd_.get(); }
  MoverStats stats() const;

 private:
  struct Waiting {
    TierKey key;
    TierValue value;
    uint32_t parts;
  };
  using Batch = std::vector<Waiting>;
  struct Reading {  // a whole value on its way from SSD; shared with the reader
    std::mutex mu;
    std::condition_variable ended;
    bool done = false;
    TierValue value;      // null: a miss
    size_t together = 1;  // values that are read in one pass with it, itself included; const
  };
  using Readings = std::vector<std::shared_ptr<Reading>>;
  struct TileBatch;
  struct CachedTile {
    std::pair<TierKey, uint32_t> key;
    FoundTile tile;
  };

  void CommitLocked();
  void Write(const std::shared_ptr<Batch>& batch, int tries_left);
  std::optional<std::vector<uint8_t>> Seal(const Waiting& value, BlockFormat format, DataKey* key) const;
  std::optional<int64_t> PutToHost(const Waiting& value);
  std::optional<TierView> GetFromHost(const TierKey& key);
  void Written(const Batch& batch, bool stored, int64_t bytes);
  std::shared_ptr<Reading> TakeReading(const TierKey& key);
  std::optional<Found> Await(Reading& reading, bool* late);
  TierValue WaitingValue(const TierKey& key) const;
  Readings StartReading(std::span<const TierKey> keys);
  TierValue Opened(const TierKey& key, const absl::Status& read, ValueOpener opener);
  bool MayPrefetch(const TierKey& key) const;
  std::optional<FoundTile> ReadTile(const TileRequest& request, Level level);
  std::optional<FoundTile> WaitingTile(const TileRequest& request);
  std::optional<FoundTile> OpenTileOf(const TileRequest& request, const TierView& view, Level level);
  std::optional<FoundTile> CachedTileOf(const TileRequest& request);
  void CacheTile(const TileRequest& request, const FoundTile& tile);
  void CountHit(Level level, size_t bytes);
  void CountMiss();
  void CountDamaged(const TierKey& key, Tier* tier);
  void Erase(const TierKey& key);
  bool DiskAllowed();
  void DiskAnswered(const absl::Status& status);
  Duration ReadWait(size_t bytes) const;

  const MoverOptions options_;
  const std::unique_ptr<Tier> host_, ssd_;
  const std::shared_ptr<DataKey> key_;
  // Of values that were read.
  const std::shared_ptr<ValueMemory> memory_ = ValueMemory::Make();
  mutable std::mutex mu_;             // guards what follows
  std::condition_variable progress_;  // something waits no longer
  Batch queued_;                      // not committed yet
  int64_t queued_bytes_ = 0;
  bool refused_ = false;  // the disk takes nothing now, or hangs: who puts does not wait for it
  absl::flat_hash_map<TierKey, std::pair<TierValue, uint32_t>, TierKeyHash> waiting_;
  absl::flat_hash_map<TierKey, std::shared_ptr<Reading>, TierKeyHash> reading_;
  std::deque<TierKey> prefetched_;  // in reading_, the oldest first
  struct TileKeyHash {
    size_t operator()(const std::pair<TierKey, uint32_t>& key) const {
      return TierKeyHash{}(key.first) ^ (key.second * size_t{0xD6E8FEB86659FD93u});
    }
  };
  std::list<CachedTile> cached_;  // the most recent first
  absl::flat_hash_map<std::pair<TierKey, uint32_t>, std::list<CachedTile>::iterator, TileKeyHash> cache_;
  int64_t cached_bytes_ = 0;
  Breaker breaker_;
  MoverStats stats_;
  // Last: their threads use all of the above.
  std::unique_ptr<ThreadExecutor> readers_, writer_;
};

}  // namespace palimpsest
