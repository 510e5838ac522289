// The worker's only door to blocks: what is computed goes in, what was computed comes back, from whichever
// tier has it.
//
// Unit   : the block group: the blocks of all layers for the same run of at most 64 tokens, under one
//          BlockId. Write before drop: a sealed group is in a tier below before its device tiles may go
//          (sealing gives it to the mover). When all tiers refuse it or evict it, the device copy is the only
//          one, and dropping it costs a recomputation: counted in `lost`.
// Miss   : whatever a tier answers but the right bytes is a miss; the caller recomputes (I-5).
// Owns   : device tiles of sealed groups; a Pin keeps one group on the device. The store outlives every
//          Pin.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "proto/base/ids.h"
#include "storage/envelope.h"
#include "storage/mover.h"
#include "storage/tile_arena.h"

namespace palimpsest {

// Shape of a model's KV, and of a group at rest: its tiles' envelopes one after another, layer by layer, each
// a header and (2, rows, D) in bf16.
struct KvShape {
  int64_t layers = 0, kv_heads = 0, head_size = 0;
  int64_t tiles() const { return layers * kv_heads; }                      // of one group
  int64_t bytes_per_token() const { return tiles() * 2 * head_size * 2; }  // bf16
  // Elements (bf16) from one tile at rest to the next.
  int64_t tile_stride(int64_t rows) const {
    return static_cast<int64_t>(kEnvelopeHeaderBytes / sizeof(Bf16)) + 2 * rows * head_size;
  }
  int64_t group_bytes(int64_t rows) const {
    return tiles() * tile_stride(rows) * static_cast<int64_t>(sizeof(Bf16));
  }
};

// Tiles being written, or sealed. Plain data; TieredStore opens, seals and frees it.
struct BlockGroup {
  std::vector<int32_t> tiles;  // (layers, kv_heads)
  int64_t first_position = 0;
  int64_t base = 0;  // of all its tiles
  int64_t rows = 0;  // slots it will hold, at most 64
  int64_t filled = 0;
  std::vector<uint8_t> envelope;  // the group at rest; empty: not kept
  // K and V at rest of a layer's first head; the next head's are a tile_stride further.
  Bf16* rest(int64_t layer, const KvShape& shape) {
    if (envelope.empty()) return nullptr;
    return reinterpret_cast<Bf16*>(envelope.data() + kEnvelopeHeaderBytes) +
           layer * shape.kv_heads * shape.tile_stride(rows);
  }
};

struct TieredStoreStats {
  int64_t device_groups = 0;                                         // sealed and on the device now
  int64_t hits_device = 0, hits_host = 0, hits_ssd = 0, misses = 0;  // groups that Find was asked for
  int64_t loaded_bytes = 0;                                          // brought to the device from below
  int64_t evicted = 0;                                               // device copies dropped to make room
  int64_t lost = 0;                                                  // of them, with no copy below
  int64_t damaged = 0;  // values from below that failed their checks
};

class TieredStore {
 public:
  TieredStore(const KvShape& shape, TileArena* arena, Backend* backend, const RopeTable* rope, Mover* mover);
  ~TieredStore();

 private:
  struct Sealed {
    BlockId id;
    BlockGroup group;
    int64_t pins = 0;
    bool below = false;                   // a copy was stored in the tier below
    std::list<Sealed*>::iterator unused;  // place in unused_, if pins == 0
  };

 public:
  // Keeps one sealed group on the device; move-only.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept : store_(other.store_), sealed_(other.sealed_) { other.store_ = nullptr; }
    Pin& operator=(Pin&& other) noexcept {
      std::swap(store_, other.store_);
      std::swap(sealed_, other.sealed_);
      return *this;
    }
    ~Pin() {
      if (store_ != nullptr) store_->Unpin(sealed_);
    }
    const BlockGroup& group() const { return sealed_->group; }

   private:
    friend class TieredStore;
    Pin(TieredStore* store, Sealed* sealed) : store_(store), sealed_(sealed) {}
    TieredStore* store_ = nullptr;
    Sealed* sealed_ = nullptr;
  };

  // Tiles for `rows` tokens at `first_position`; drops unpinned sealed groups to make room. `keep_rest`: it
  // will be sealed. ResourceExhausted when pinned and open groups leave too little.
  absl::StatusOr<BlockGroup> Open(int64_t first_position, int64_t base, int64_t rows, bool keep_rest);
  void Discard(BlockGroup group);
  // Tiles without a group, in the same way: of what a policy picked. Given back to the arena.
  absl::Status AllocateTiles(std::span<int32_t> tiles);
  // Packs tokens into tiles, one entry for each layer and KV head.
  void Gather(std::span<const GatherHead> heads);
  // Writes tokens in 2 bits, one entry for each layer and KV head.
  void Encode(std::span<const EncodeHead> heads);

  // Stores the filled group below and keeps it on the device, pinned.
  Pin Seal(const BlockId& id, BlockGroup group);

  // Seals what a group holds at rest and stores it below; its tiles stay the caller's, whose own view of them
  // nobody else can use. False if no copy is below now: counted in `lost`.
  bool WriteBelow(const BlockId& id, BlockGroup& group);
  // A group as it rests below, not brought to the device; nullopt is a miss.
  struct Rest {
    std::shared_ptr<const void> owner;  // keeps `data` alive
    const Bf16* data;                   // of the first tile; the next one's are a tile_stride further
    Level level;
  };
  std::optional<Rest> ReadRest(const BlockId& id, int64_t rows);
  // Begins to bring these groups from SSD to where ReadRest and Find look first.
  void Prefetch(std::span<const BlockId> ids);

  // From now on sealing a group makes its digests, too, and gives them to the mover.
  void MakeDigests(DigestKind kind) { digests_ = kind; }
  // The digests of a group whose keys were sealed at `position`, made of the group where they are not there;
  // nullopt: neither is.
  struct Digests {
    std::shared_ptr<const void> owner;  // keeps `data` alive
    const uint8_t* data;                // (layers, kv_heads, DigestBytes)
  };
  std::optional<Digests> ReadDigests(DigestKind kind, const BlockId& id, int64_t position, int64_t rows);
  void PrefetchDigests(DigestKind kind, std::span<const BlockId> ids);

  enum class Source { kDevice, kHost, kSsd };
  struct Found {
    Pin pin;
    Source source;
    std::optional<Rest> rest = std::nullopt;  // not of kDevice: as it was read below
  };
  // The group, on the device; nullopt is a miss (also when the device has no room for it).
  std::optional<Found> Find(const BlockId& id, int64_t first_position, int64_t base, int64_t rows);
  // Is it on the device now? Changes nothing.
  bool OnDevice(const BlockId& id) const { return sealed_.contains(id); }

  // Does some tier hold it? Changes nothing; what it holds may yet turn out to be damaged.
  bool Holds(const BlockId& id) const { return OnDevice(id) || mover_->Contains(id); }

  // These are not wanted again soon: of those that nobody pins and that are below, the device copies go.
  void Leave(std::span<const BlockId> ids);

  // Its device copy goes, if nobody pins it, wherever else it is or is not: it is to be computed again.
  void Forget(const BlockId& id);

  // Tiles that Open could get: free ones and those of unpinned sealed groups.
  int64_t available_tiles() const;
  const KvShape& shape() const { return shape_; }
  TieredStoreStats stats() const { return stats_; }
  const TileArena& arena() const { return *arena_; }
  TileArena& arena() { return *arena_; }
  Mover& mover() { return *mover_; }
  // Drops every unpinned group from the device (tests, admin).
  void DropUnpinned();

 private:
  void SetPositions(BlockGroup& group);
  TileGeometry GeometryOf(int64_t tile, int64_t rows) const;
  bool Opens(const BlockId& id, int64_t rows, std::span<const uint8_t> value) const;
  std::optional<Mover::Found> GetIntact(const TierKey& key,
                                        const std::function<bool(std::span<const uint8_t> value)>& opens);
  // Has a tier below a copy, perhaps on a disk that is left alone for a while?
  bool IsBelow(const BlockId& id) const { return mover_->Contains(id) || mover_->OnSsd(id); }
  bool PutBelow(const BlockId& id, BlockGroup& group, bool digests);
  std::vector<uint8_t> DigestsOf(DigestKind kind, const BlockId& id, int64_t position, int64_t rows,
                                 const Bf16* rest) const;
  Pin Keep(const BlockId& id, BlockGroup group, bool below);
  Pin PinSealed(Sealed* sealed);
  void Unpin(Sealed* sealed);
  void Drop(Sealed* sealed);

  const KvShape shape_;
  TileArena* const arena_;
  Backend* const backend_;
  const RopeTable* const rope_;
  Mover* const mover_;
  std::optional<DigestKind> digests_;  // that sealing makes
  std::unordered_map<BlockId, std::unique_ptr<Sealed>, BlockIdHash> sealed_;
  std::list<Sealed*> unused_;  // unpinned, least recently used first
  TieredStoreStats stats_;
};

}  // namespace palimpsest
