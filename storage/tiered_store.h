// The worker's only door to blocks: what is computed goes in, what was computed comes back, from whichever
// tier has it.
//
// Unit   : the block group: the blocks of all layers for the same run of at most 64 tokens, under one
//          BlockId. Write before drop: a sealed group is in the tier below before its device tiles may go
//          (sealing stores it there). When the tier below refuses it or evicts it, the device copy is the
//          only one, and dropping it costs a recomputation: counted in `lost`.
// Miss   : whatever a tier answers but the right bytes is a miss; the caller recomputes (I-5).
// Owns   : device tiles of sealed groups; a Pin keeps one group on the device. The store outlives every
//          Pin.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
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
#include "storage/tier.h"
#include "storage/tile_arena.h"

namespace palimpsest {

// Shape of a model's KV.
struct KvShape {
  int64_t layers = 0, kv_heads = 0, head_size = 0;
  int64_t tiles() const { return layers * kv_heads; }  // of one group
  int64_t layer_elements(int64_t rows) const { return kv_heads * 2 * rows * head_size; }
  int64_t bytes_per_token() const { return layers * layer_elements(1) * 2; }  // bf16
};

// Tiles being written, or sealed. Plain data; TieredStore opens, seals and frees it.
struct BlockGroup {
  std::vector<int32_t> tiles;  // (layers, kv_heads)
  int64_t first_position = 0;
  int64_t base = 0;  // of all its tiles
  int64_t rows = 0;  // slots it will hold, at most 64
  int64_t filled = 0;
  std::vector<uint8_t>
      envelope;  // header, then the form at rest (layers, kv_heads, 2, rows, D); empty: not kept
  Bf16* rest(int64_t layer, const KvShape& shape) {
    if (envelope.empty()) return nullptr;
    return reinterpret_cast<Bf16*>(envelope.data() + kEnvelopeHeaderBytes) +
           layer * shape.layer_elements(rows);
  }
};

struct TieredStoreStats {
  int64_t device_groups = 0;                            // sealed and on the device now
  int64_t hits_device = 0, hits_below = 0, misses = 0;  // groups asked for by Pin
  int64_t loaded_bytes = 0;                             // brought to the device from below
  int64_t spilled_bytes = 0;                            // written below
  int64_t evicted = 0;                                  // device copies dropped to make room
  int64_t lost = 0;                                     // of them, with no copy below
  int64_t damaged = 0;                                  // values from below that failed their checks
};

class TieredStore {
 public:
  // `below` may be null: no tier under the device.
  TieredStore(const KvShape& shape, TileArena* arena, Backend* backend, const RopeTable* rope, Tier* below);
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

  // Stores the filled group below and keeps it on the device, pinned.
  Pin Seal(const BlockId& id, BlockGroup group);

  // Seals what a group holds at rest and stores it below; its tiles stay the caller's, whose own view of them
  // nobody else can use. False if no copy is below now: counted in `lost`.
  bool WriteBelow(const BlockId& id, BlockGroup& group);
  // A group as it rests below, not brought to the device; nullopt is a miss.
  struct Rest {
    TierValue value;   // keeps `data` alive
    const Bf16* data;  // (layers, kv_heads, 2, rows, D)
  };
  std::optional<Rest> ReadRest(const BlockId& id, int64_t rows);

  enum class Source { kDevice, kBelow };
  struct Found {
    Pin pin;
    Source source;
    std::optional<Rest> rest = std::nullopt;  // of kBelow: as it was read there
  };
  // The group, on the device; nullopt is a miss (also when the device has no room for it).
  std::optional<Found> Find(const BlockId& id, int64_t first_position, int64_t base, int64_t rows);
  // Is it on the device now? Changes nothing.
  bool OnDevice(const BlockId& id) const { return sealed_.contains(id); }

  // Does some tier hold it? Changes nothing; what it holds may yet turn out to be damaged.
  bool Holds(const BlockId& id) const { return OnDevice(id) || (below_ != nullptr && below_->Contains(id)); }

  // Tiles that Open could get: free ones and those of unpinned sealed groups.
  int64_t available_tiles() const;
  const KvShape& shape() const { return shape_; }
  TieredStoreStats stats() const { return stats_; }
  const TileArena& arena() const { return *arena_; }
  TileArena& arena() { return *arena_; }
  // Drops every unpinned group from the device (tests, admin).
  void DropUnpinned();

 private:
  void SetPositions(BlockGroup& group);
  BlockGeometry GeometryOf(int64_t rows) const;
  bool PutBelow(const BlockId& id, BlockGroup& group);
  Pin Keep(const BlockId& id, BlockGroup group, bool below);
  Pin PinSealed(Sealed* sealed);
  void Unpin(Sealed* sealed);
  void Drop(Sealed* sealed);

  const KvShape shape_;
  TileArena* const arena_;
  Backend* const backend_;
  const RopeTable* const rope_;
  Tier* const below_;
  std::unordered_map<BlockId, std::unique_ptr<Sealed>, BlockIdHash> sealed_;
  std::list<Sealed*> unused_;  // unpinned, least recently used first
  TieredStoreStats stats_;
};

}  // namespace palimpsest
