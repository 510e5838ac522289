// What one session has on the device: shared sealed groups it pins, tiles that a policy's picks were packed
// into, groups of its own, and one list of tiles per layer and KV head that attention walks.
//
// Words  : position = where a token stands for attention; slot = physical place in a tile. They are
//          different numbers, and neither is the token's index in the prompt: a partial block leaves slots
//          empty, compression leaves tokens out, and what was packed may have been renumbered.
// Bits   : what is packed, and what grows behind it, can be written in 2 bits (kernels/coded_tile.h), as
//          many as the residual of a head at a time; between one and two times as many, its last ones, stay
//          exact. Coded tiles are parts of tiles that heads share, and are seen by every row that follows.
// Lists  : heads may hold different numbers of packed tokens; none pays for the largest.
// Owns   : pins, packed tiles and open groups; the store outlives the sequence.
// Threads: one at a time (the engine's).
#pragma once

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "storage/tiered_store.h"

namespace palimpsest {

class Sequence {
 public:
  // Reserves lists for so many groups (of prompt and answer), so that decoding allocates only to open one.
  // `residual`: a multiple of 64; 0: all stays exact.
  Sequence(TieredStore* store, int64_t groups_max, int64_t residual = 0);
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // A sealed group whose tokens follow what is there. It stands `shift` positions behind its own: its first
  // position and the shift must make next_position().
  void AddPinned(TieredStore::Pin pin, int64_t shift = 0);
  // Opens a group for the next `rows` tokens (at most 64); `keep_rest`: it will be sealed. ResourceExhausted:
  // no room.
  absl::Status OpenGroup(int64_t rows, bool keep_rest);
  // Slots left in the open group.
  int64_t room() const { return open_.empty() ? 0 : open_.back().rows - open_.back().filled; }
  // Takes the next n <= room() slots: they count from now on. Their K and V must be stored in this step.
  void Extend(int64_t n);
  // Seals the oldest open group, which is full and keeps its form at rest, under `id`. True if there was one.
  bool SealOldest(const BlockId& id);

  // Tokens of one layer and KV head that are to be packed, in order.
  struct Packing {
    std::vector<KvSource> sources;
    std::vector<int32_t> positions;  // ascending
  };
  // Packs one run of tokens per (layer, kv_head) into new tiles of base `base` behind what is there; heads
  // may have different numbers. With a residual the base is 0, and all but the last tokens go to 2 bits. No
  // group may be open. ResourceExhausted: no room; nothing has changed.
  absl::Status AppendPacked(std::span<const Packing> heads, int64_t base, int64_t next_position);
  // Empty tiles behind what is there, so many for each head, whose slots the caller fills: nothing of them is
  // seen before. What follows stands at `next_position`. No group may be open.
  absl::Status AppendTiles(int64_t tiles_each, int64_t next_position,
                           std::vector<std::vector<int32_t>>* tiles);
  // The same in the place of all that is there, none of which may be pinned: the first tiles of each head
  // take them, the rest is free. Sources may be these very slots (see GatherKvArgs) or at rest.
  void Repack(std::span<const Packing> heads, int64_t next_position);

  // Of each head that has twice the residual exact behind what is pinned, the oldest go to 2 bits until it
  // has not. No group that is to be sealed may be open. ResourceExhausted: no room; nothing has changed.
  absl::Status EncodeOldest();

  // Forgets what is opened from now on when EndProbe is called: tokens that only look. With `seen`, they see
  // only these places of every head's list, which ascend, and what is opened.
  void BeginProbe(std::span<const size_t> seen = {});
  void EndProbe();
  bool probing() const { return probe_open_ >= 0; }

  // Drops the oldest token of tile list entry `first_tile` on, in all heads alike, and moves the tiles before
  // it one position further: what stays keeps its distances as if it were numbered by slot. None of these
  // tiles may be pinned.
  void SlideWindow(size_t first_tile);

  // The newest token leaves its slot, which is the next one's: the same in all heads. Positions go on.
  void TakeBack();

  int64_t next_position() const { return next_position_; }
  std::span<const int32_t> tiles(int64_t layer, int64_t kv_head) const {
    return tiles_[static_cast<size_t>(layer * store_->shape().kv_heads + kv_head)];
  }
  std::span<const CodedTile> coded(int64_t layer, int64_t kv_head) const {
    return coded_[static_cast<size_t>(layer * store_->shape().kv_heads + kv_head)];
  }
  bool has_coded() const { return coded_count_ > 0; }
  // Empty: no tile stands elsewhere than it says.
  std::span<const int32_t> shifts(int64_t layer, int64_t kv_head) const {
    if (!shifted_) return {};
    return shifts_[static_cast<size_t>(layer * store_->shape().kv_heads + kv_head)];
  }
  // The open group that holds `position`, and its slot there.
  struct Place {
    BlockGroup* group;
    int64_t slot;
  };
  Place PlaceOf(int64_t position);
  std::span<BlockGroup> open_groups() { return open_; }
  int64_t resident_tiles() const;   // of the arena
  int64_t resident_tokens() const;  // over all layers and KV heads
  int64_t depth() const {
    return static_cast<int64_t>(tiles_.front().size() + coded_.front().size()) * kTileSlots;
  }

 private:
  void AddTiles(std::span<const int32_t> tiles, int64_t shift);
  int64_t SurplusOf(int64_t exact) const;
  int64_t ExactTokens(size_t head) const;
  // Tiles that hold the parts there are, and so many more of each head.
  int64_t MoreCodedTiles(std::span<const int64_t> in_bits) const;
  absl::Status AllocatePacked(std::span<const Packing> heads, std::span<const int64_t> in_bits, int64_t base,
                              std::vector<std::vector<int32_t>>* tiles);
  // The first in_bits[i] tokens of each head, to the next parts of coded_tiles_; the others, to tiles.
  void Encode(std::span<const Packing> heads, std::span<const int64_t> in_bits);
  void Gather(std::span<const Packing> heads, std::span<const int64_t> in_bits,
              std::span<const std::vector<int32_t>> tiles);
  Packing OldestOf(size_t head, int64_t count) const;
  void DropOldest(size_t head, int64_t count);
  void FreePacked(int32_t tile);
  void AbsorbFull();

  TieredStore* const store_;
  const int64_t residual_;
  std::vector<TieredStore::Pin> pins_;
  std::vector<int32_t> packed_;   // tiles of all heads
  std::vector<BlockGroup> open_;  // this session's own, after the pinned; the last one is being filled
  std::vector<std::vector<int32_t>> tiles_;    // (layers * kv_heads), in the order of their tokens
  std::vector<std::vector<int32_t>> shifts_;   // the same
  std::vector<std::vector<CodedTile>> coded_;  // the same, before all of them
  std::vector<int32_t> coded_tiles_;           // whose parts they are, of all heads
  int64_t coded_count_ = 0;                    // parts in use
  bool shifted_ = false;                       // some shift is not 0
  int64_t next_position_ = 0;
  int64_t probe_open_ = -1;  // groups that were open when the probe began; -1: none runs
  int64_t probe_position_ = 0;
  std::vector<std::vector<int32_t>> all_tiles_, all_shifts_;  // of a probe that sees some of them
};

}  // namespace palimpsest
