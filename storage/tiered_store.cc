#include "storage/tiered_store.h"

#include <algorithm>

#include "proto/base/status.h"

namespace palimpsest {

TieredStore::TieredStore(const KvShape& shape, TileArena* arena, Backend* backend, const RopeTable* rope,
                         Tier* below)
    : shape_(shape), arena_(arena), backend_(backend), rope_(rope), below_(below) {}

TieredStore::~TieredStore() { DropUnpinned(); }

absl::Status TieredStore::AllocateTiles(std::span<int32_t> tiles) {
  while (arena_->free_tiles() < static_cast<int64_t>(tiles.size()) && !unused_.empty()) Drop(unused_.front());
  return arena_->Allocate(tiles);
}

absl::StatusOr<BlockGroup> TieredStore::Open(int64_t first_position, int64_t base, int64_t rows,
                                             bool keep_rest) {
  PALIMPSEST_CHECK(rows >= 1 && rows <= kTileSlots, "a group of {} rows", rows);
  BlockGroup group;
  group.first_position = first_position;
  group.base = base;
  group.rows = rows;
  group.tiles.resize(static_cast<size_t>(shape_.tiles()));
  PALIMPSEST_RETURN_IF_ERROR(AllocateTiles(group.tiles));
  SetPositions(group);
  if (keep_rest) {
    group.envelope.resize(kEnvelopeHeaderBytes +
                          static_cast<size_t>(shape_.layers * shape_.layer_elements(rows) * 2));
  }
  return group;
}

// All positions and bases at once; counts grow as slots are filled.
void TieredStore::SetPositions(BlockGroup& group) {
  const TilePool pool = arena_->pool();
  for (const int32_t tile : group.tiles) {
    pool.bases[tile] = static_cast<int32_t>(group.base);
    for (int64_t slot = 0; slot < kTileSlots; ++slot) {
      pool.positions[tile * kTileSlots + slot] = static_cast<int32_t>(group.first_position + slot);
    }
  }
}

void TieredStore::Discard(BlockGroup group) { arena_->Free(group.tiles); }

void TieredStore::Gather(std::span<const GatherHead> heads) {
  backend_->GatherKv({.head_size = shape_.head_size, .rope = rope_, .pool = arena_->pool(), .heads = heads});
}

BlockGeometry TieredStore::GeometryOf(int64_t rows) const {
  return {.layers = static_cast<int32_t>(shape_.layers),
          .kv_heads = static_cast<int32_t>(shape_.kv_heads),
          .head_size = static_cast<int32_t>(shape_.head_size),
          .tokens = static_cast<int32_t>(rows),
          .format = 1};
}

TieredStore::Pin TieredStore::Seal(const BlockId& id, BlockGroup group) {
  PALIMPSEST_CHECK(group.filled == group.rows, "sealing a group with {} of {} rows", group.filled,
                   group.rows);
  if (const auto known = sealed_.find(id);
      known != sealed_.end()) {  // another session was faster: same bytes
    Discard(std::move(group));
    return PinSealed(known->second.get());
  }
  const bool below = PutBelow(id, group);
  return Keep(id, std::move(group), below);
}

// True if a copy is there now; the form at rest is gone from the group either way.
bool TieredStore::PutBelow(const BlockId& id, BlockGroup& group) {
  bool below = false;
  if (below_ != nullptr && !group.envelope.empty()) {
    SealEnvelope(id, GeometryOf(group.rows), group.envelope);
    const int64_t bytes = static_cast<int64_t>(group.envelope.size());
    below = below_->Put(id, std::move(group.envelope)).ok();
    if (below) stats_.spilled_bytes += bytes;
  }
  group.envelope = {};
  return below;
}

bool TieredStore::WriteBelow(const BlockId& id, BlockGroup& group) {
  PALIMPSEST_CHECK(group.filled == group.rows, "writing a group with {} of {} rows", group.filled,
                   group.rows);
  const bool below = PutBelow(id, group) && below_->Contains(id);  // a tier may say yes and forget
  if (!below) ++stats_.lost;
  return below;
}

std::optional<TieredStore::Rest> TieredStore::ReadRest(const BlockId& id, int64_t rows) {
  if (below_ == nullptr) return std::nullopt;
  absl::StatusOr<TierValue> value = below_->Get(id);
  if (!value.ok()) {
    if (value.status().code() == absl::StatusCode::kDataLoss) ++stats_.damaged;
    return std::nullopt;
  }
  const absl::StatusOr<OpenedEnvelope> opened = OpenEnvelope(id, GeometryOf(rows), **value);
  const size_t bytes = static_cast<size_t>(shape_.layers * shape_.layer_elements(rows)) * sizeof(Bf16);
  if (!opened.ok() || opened->payload.size() != bytes) {
    ++stats_.damaged;
    (void)below_->Erase(id);  // it would only be found damaged again
    return std::nullopt;
  }
  return Rest{std::move(*value), reinterpret_cast<const Bf16*>(opened->payload.data())};
}

// A new sealed group on the device, pinned once.
TieredStore::Pin TieredStore::Keep(const BlockId& id, BlockGroup group, bool below) {
  auto sealed = std::make_unique<Sealed>();
  sealed->id = id;
  sealed->group = std::move(group);
  sealed->below = below;
  sealed->pins = 1;
  Sealed* raw = sealed.get();
  sealed_.emplace(id, std::move(sealed));
  ++stats_.device_groups;
  return Pin(this, raw);
}

std::optional<TieredStore::Found> TieredStore::Find(const BlockId& id, int64_t first_position, int64_t base,
                                                    int64_t rows) {
  if (const auto known = sealed_.find(id); known != sealed_.end()) {
    ++stats_.hits_device;
    return Found{PinSealed(known->second.get()), Source::kDevice};
  }
  const auto miss = [&]() -> std::optional<Found> {
    ++stats_.misses;
    return std::nullopt;
  };
  std::optional<Rest> rest = ReadRest(id, rows);
  if (!rest.has_value()) return miss();
  absl::StatusOr<BlockGroup> group = Open(first_position, base, rows, /*keep_rest=*/false);
  if (!group.ok()) return miss();
  backend_->pool().ParallelFor(shape_.layers, [&](int64_t layer, int) {
    backend_->LoadBlock({.rest = rest->data + layer * shape_.layer_elements(rows),
                         .rows = rows,
                         .kv_heads = shape_.kv_heads,
                         .head_size = shape_.head_size,
                         .first_position = first_position,
                         .rope = rope_,
                         .pool = arena_->pool(),
                         .tiles = group->tiles.data() + layer * shape_.kv_heads});
  });
  for (const int32_t tile : group->tiles) arena_->pool().counts[tile] = static_cast<int32_t>(rows);
  group->filled = rows;
  stats_.loaded_bytes += rows * shape_.bytes_per_token();
  ++stats_.hits_below;
  return Found{Keep(id, std::move(*group), /*below=*/true), Source::kBelow, std::move(rest)};
}

TieredStore::Pin TieredStore::PinSealed(Sealed* sealed) {
  if (sealed->pins++ == 0) unused_.erase(sealed->unused);
  return Pin(this, sealed);
}

void TieredStore::Unpin(Sealed* sealed) {
  if (--sealed->pins == 0) sealed->unused = unused_.insert(unused_.end(), sealed);
}

void TieredStore::Drop(Sealed* sealed) {
  ++stats_.evicted;
  if (!sealed->below || !below_->Contains(sealed->id)) ++stats_.lost;
  arena_->Free(sealed->group.tiles);
  unused_.erase(sealed->unused);
  --stats_.device_groups;
  const BlockId id = sealed->id;
  sealed_.erase(id);
}

void TieredStore::DropUnpinned() {
  while (!unused_.empty()) Drop(unused_.front());
}

int64_t TieredStore::available_tiles() const {
  return arena_->free_tiles() + static_cast<int64_t>(unused_.size()) * shape_.tiles();
}

}  // namespace palimpsest
