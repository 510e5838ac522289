#include "storage/tile_arena.h"

#include <sys/mman.h>

#include <algorithm>

#include "proto/base/host_memory.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Zero pages that cost nothing until they are written.
void* MapLazily(int64_t bytes) {
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) OutOfHostMemory(bytes);
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  madvise(memory, static_cast<size_t>(bytes), MADV_DONTDUMP);  // KV is text: keep it out of core files
  return memory;
}

}  // namespace

int64_t TileArena::TileBytes(int64_t head_size) {
  constexpr int64_t kSlotAndTileInts = kTileSlots + 3;  // positions; count, start and base
  return TileElements(head_size) * static_cast<int64_t>(sizeof(Bf16)) +
         kSlotAndTileInts * static_cast<int64_t>(sizeof(int32_t));
}

TileArena::TileArena(int64_t capacity_bytes, int64_t head_size) {
  pool_.tile_elements = TileElements(head_size);
  const int64_t data_bytes = pool_.tile_elements * static_cast<int64_t>(sizeof(Bf16));
  const int64_t slot_bytes = kTileSlots * static_cast<int64_t>(sizeof(int32_t));
  tile_bytes_ = TileBytes(head_size);
  capacity_ = std::clamp<int64_t>(capacity_bytes / tile_bytes_, 1, INT32_MAX);
  mapped_bytes_ = capacity_ * (data_bytes + slot_bytes);
  pool_.data = static_cast<Bf16*>(MapLazily(mapped_bytes_));
  positions_ = reinterpret_cast<int32_t*>(pool_.data + capacity_ * pool_.tile_elements);
  counts_.assign(static_cast<size_t>(capacity_), 0);
  starts_.assign(static_cast<size_t>(capacity_), 0);
  bases_.assign(static_cast<size_t>(capacity_), 0);
  pool_.counts = counts_.data();
  pool_.starts = starts_.data();
  pool_.bases = bases_.data();
  pool_.positions = positions_;
  used_.assign(static_cast<size_t>(capacity_), false);
  free_.reserve(static_cast<size_t>(capacity_));
  for (int64_t tile = capacity_ - 1; tile >= 0; --tile) free_.push_back(static_cast<int32_t>(tile));
}

TileArena::~TileArena() { munmap(pool_.data, static_cast<size_t>(mapped_bytes_)); }

absl::Status TileArena::Allocate(std::span<int32_t> tiles) {
  if (tiles.size() > free_.size()) {
    return ResourceExhausted(
        "device arena: {} tiles ({} bytes) asked for, {} of {} free; raise device.arena_bytes (now {})",
        tiles.size(), static_cast<int64_t>(tiles.size()) * tile_bytes_, free_.size(), capacity_,
        capacity_ * tile_bytes_);
  }
  for (int32_t& tile : tiles) {
    tile = free_.back();
    free_.pop_back();
    used_[static_cast<size_t>(tile)] = true;
    counts_[static_cast<size_t>(tile)] = 0;
    starts_[static_cast<size_t>(tile)] = 0;
    bases_[static_cast<size_t>(tile)] = 0;
  }
  peak_ = std::max(peak_, used_tiles());
  return absl::OkStatus();
}

void TileArena::Free(std::span<const int32_t> tiles) {
  for (const int32_t tile : tiles) {
    PALIMPSEST_CHECK(tile >= 0 && tile < capacity_, "tile {} of {}", tile, capacity_);
    // Else two sessions would write into it later.
    PALIMPSEST_CHECK(used_[static_cast<size_t>(tile)], "tile {} was freed twice", tile);
    used_[static_cast<size_t>(tile)] = false;
    counts_[static_cast<size_t>(tile)] = 0;
    free_.push_back(tile);
  }
}

}  // namespace palimpsest
