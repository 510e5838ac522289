// The device's memory for KV: a hard-capped arena of tiles. On the CPU too: what does not fit fails, instead
// of taking memory that nobody counted.
//
// Units  : tiles of 64 slots of one layer and KV head (kernels/ops.h says how they are laid out).
// Errors : ResourceExhausted with what was asked, what is free and the cap.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/ops.h"

namespace palimpsest {

class TileArena {
 public:
  // Reserves address space for as many tiles as fit into `capacity_bytes`; memory is taken as tiles are first
  // used.
  TileArena(int64_t capacity_bytes, int64_t head_size);
  ~TileArena();
  TileArena(const TileArena&) = delete;
  TileArena& operator=(const TileArena&) = delete;

  // Fills all of `tiles` with ids, empty and with base 0, or none.
  absl::Status Allocate(std::span<int32_t> tiles);
  void Free(std::span<const int32_t> tiles);  // each must have been allocated

  TilePool pool() const { return pool_; }
  int64_t capacity_tiles() const { return capacity_; }
  int64_t free_tiles() const { return static_cast<int64_t>(free_.size()); }
  int64_t used_tiles() const { return capacity_ - free_tiles(); }
  int64_t peak_tiles() const { return peak_; }
  void ResetPeak() { peak_ = used_tiles(); }
  // What one tile counts against the cap: its numbers and its share of counts, bases and positions.
  static int64_t TileBytes(int64_t head_size);
  int64_t tile_bytes() const { return tile_bytes_; }

 private:
  int64_t capacity_ = 0, peak_ = 0, tile_bytes_ = 0, mapped_bytes_ = 0;
  TilePool pool_;
  std::vector<int32_t> free_;  // the last freed is used first: it is warm
  std::vector<bool> used_;
  std::vector<int32_t> counts_, starts_, bases_;
  int32_t* positions_ = nullptr;  // mapped like the tiles
};

}  // namespace palimpsest
