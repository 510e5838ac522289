// What one session has on the device: shared sealed groups it pins, groups of its own, and one list of tiles
// per layer and KV head that attention walks.
//
// Words  : position = logical place in the session's text; slot = physical place in a tile. They are
// different numbers:
//          a partial block leaves slots empty, and compression will leave positions out.
// Owns   : pins and open groups; the store outlives the sequence.
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
  Sequence(TieredStore* store, int64_t groups_max);
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // A sealed group whose tokens follow what is there; its first position must be length().
  void AddPinned(TieredStore::Pin pin);
  // Opens a group for the next `rows` tokens (at most 64); `keep_rest`: it will be sealed. ResourceExhausted:
  // no room.
  absl::Status OpenGroup(int64_t rows, bool keep_rest);
  // Slots left in the open group.
  int64_t room() const { return open_.empty() ? 0 : open_.back().rows - open_.back().filled; }
  // Takes the next n <= room() slots: they count from now on. Their K and V must be stored in this step.
  void Extend(int64_t n);
  // Seals the oldest open group, which is full and keeps its form at rest, under `id`. True if there was one.
  bool SealOldest(const BlockId& id);

  int64_t length() const { return length_; }  // logical tokens
  std::span<const int32_t> tiles(int64_t layer, int64_t kv_head) const {
    return tiles_[static_cast<size_t>(layer * store_->shape().kv_heads + kv_head)];
  }
  // The open group that holds `position`, and its slot there.
  struct Place {
    BlockGroup* group;
    int64_t slot;
  };
  Place PlaceOf(int64_t position);
  int64_t resident_tiles() const;

 private:
  void AddTiles(const BlockGroup& group);

  TieredStore* const store_;
  std::vector<TieredStore::Pin> pins_;
  std::vector<BlockGroup> open_;  // this session's own, after the pinned; the last one is being filled
  std::vector<std::vector<int32_t>> tiles_;  // (layers * kv_heads), in the order of their tokens
  int64_t length_ = 0;
};

}  // namespace palimpsest
