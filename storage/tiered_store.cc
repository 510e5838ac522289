#include "storage/tiered_store.h"

#include <algorithm>
#include <atomic>

#include "proto/base/status.h"

namespace palimpsest {

TieredStore::TieredStore(const KvShape& shape, TileArena* arena, Backend* backend, const RopeTable* rope,
                         Mover* mover)
    : shape_(shape), arena_(arena), backend_(backend), rope_(rope), mover_(mover) {}

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
  if (keep_rest) group.envelope.resize(static_cast<size_t>(shape_.group_bytes(rows)));
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

void TieredStore::Encode(std::span<const EncodeHead> heads) {
  backend_->EncodeKv({.head_size = shape_.head_size, .rope = rope_, .pool = arena_->pool(), .heads = heads});
}

TileGeometry TieredStore::GeometryOf(int64_t tile, int64_t rows) const {
  return {.layers = static_cast<int32_t>(shape_.layers),
          .kv_heads = static_cast<int32_t>(shape_.kv_heads),
          .layer = static_cast<int32_t>(tile / shape_.kv_heads),
          .kv_head = static_cast<int32_t>(tile % shape_.kv_heads),
          .head_size = static_cast<int32_t>(shape_.head_size),
          .tokens = static_cast<int32_t>(rows),
          .format = kTileBf16};
}

TieredStore::Pin TieredStore::Seal(const BlockId& id, BlockGroup group) {
  PALIMPSEST_CHECK(group.filled == group.rows, "sealing a group with {} of {} rows", group.filled,
                   group.rows);
  if (const auto known = sealed_.find(id);
      known != sealed_.end()) {  // another session was faster: same bytes
    Discard(std::move(group));
    return PinSealed(known->second.get());
  }
  const bool below = PutBelow(id, group, /*digests=*/true);
  return Keep(id, std::move(group), below);
}

// A value of its own for each kind; those of the usual one lie under the block's name.
static TierKey DigestKey(DigestKind kind, BlockId id) {
  id.bytes.back() ^= static_cast<uint8_t>(kind);
  return {id, ValueKind::kIndex};
}

static TileGeometry DigestGeometry(const KvShape& shape, DigestKind kind, int64_t rows) {
  return {.layers = static_cast<int32_t>(shape.layers),
          .kv_heads = static_cast<int32_t>(shape.kv_heads),
          .layer = 0,
          .kv_head = 0,
          .head_size = static_cast<int32_t>(shape.head_size),
          .tokens = static_cast<int32_t>(rows),
          .format = kTileDigests + static_cast<uint32_t>(kind)};
}

// Sealed, as host memory holds them: the digests of all tiles in one envelope.
std::vector<uint8_t> TieredStore::DigestsOf(DigestKind kind, const BlockId& id, int64_t position,
                                            int64_t rows, const Bf16* rest) const {
  const int64_t bytes = DigestBytes(kind, shape_.head_size);
  std::vector<uint8_t> value(kEnvelopeHeaderBytes + static_cast<size_t>(shape_.tiles() * bytes));
  backend_->pool().ParallelFor(shape_.tiles(), [&](int64_t tile, int) {
    backend_->BuildDigest({.kind = kind,
                           .head_size = shape_.head_size,
                           .keys = rest + tile * shape_.tile_stride(rows),
                           .rows = rows,
                           .first_position = position,
                           .rope = rope_,
                           .out = value.data() + kEnvelopeHeaderBytes + tile * bytes});
  });
  SealTile(DigestKey(kind, id).id, DigestGeometry(shape_, kind, rows), value, nullptr);
  return value;
}

std::optional<TieredStore::Digests> TieredStore::ReadDigests(DigestKind kind, const BlockId& id,
                                                             int64_t position, int64_t rows) {
  const TierKey key = DigestKey(kind, id);
  const int64_t bytes = shape_.tiles() * DigestBytes(kind, shape_.head_size);
  const auto opens = [&](std::span<const uint8_t> value) {
    const absl::StatusOr<OpenedTile> opened =
        OpenTile(key.id, DigestGeometry(shape_, kind, rows), value, nullptr, nullptr);
    return opened.ok() && static_cast<int64_t>(opened->payload.size()) == bytes;
  };
  if (const std::optional<Mover::Found> found = GetIntact(key, opens))
    return Digests{found->value.owner, found->value.bytes.data() + kEnvelopeHeaderBytes};
  const std::optional<Rest> rest = ReadRest(id, rows);
  if (!rest.has_value()) return std::nullopt;
  auto value = std::make_shared<const std::vector<uint8_t>>(DigestsOf(kind, id, position, rows, rest->data));
  mover_->Put(key, *value, 1);
  return Digests{value, value->data() + kEnvelopeHeaderBytes};
}

void TieredStore::PrefetchDigests(DigestKind kind, std::span<const BlockId> ids) {
  std::vector<TierKey> keys;
  for (const BlockId& id : ids) keys.push_back(DigestKey(kind, id));
  mover_->Prefetch(keys);
}

// True if a copy is there now; the form at rest is gone from the group either way.
bool TieredStore::PutBelow(const BlockId& id, BlockGroup& group, bool digests) {
  bool below = false;
  if (!group.envelope.empty()) {
    if (digests && digests_.has_value()) {
      mover_->Put(DigestKey(*digests_, id),
                  DigestsOf(*digests_, id, group.first_position, group.rows, group.rest(0, shape_)), 1);
    }
    const std::span<uint8_t> value = group.envelope;
    const size_t stride = value.size() / static_cast<size_t>(shape_.tiles());
    backend_->pool().ParallelFor(shape_.tiles(), [&](int64_t tile, int) {
      SealTile(id, GeometryOf(tile, group.rows), value.subspan(static_cast<size_t>(tile) * stride, stride),
               nullptr);
    });
    below = mover_->Put(id, std::move(group.envelope), static_cast<uint32_t>(shape_.tiles()));
  }
  group.envelope = {};
  return below;
}

bool TieredStore::WriteBelow(const BlockId& id, BlockGroup& group) {
  PALIMPSEST_CHECK(group.filled == group.rows, "writing a group with {} of {} rows", group.filled,
                   group.rows);
  const bool below = PutBelow(id, group, /*digests=*/false) && IsBelow(id);  // a tier may say yes and forget
  if (!below) ++stats_.lost;
  return below;
}

// Counts what was damaged on the way.
std::optional<Mover::Found> TieredStore::GetIntact(
    const TierKey& key, const std::function<bool(std::span<const uint8_t> value)>& opens) {
  const int64_t damaged = mover_->stats().damaged;
  std::optional<Mover::Found> found = mover_->GetIntact(key, opens);
  stats_.damaged += mover_->stats().damaged - damaged;
  return found;
}

std::optional<TieredStore::Rest> TieredStore::ReadRest(const BlockId& id, int64_t rows) {
  std::optional<Mover::Found> found =
      GetIntact(id, [&](std::span<const uint8_t> value) { return Opens(id, rows, value); });
  if (!found.has_value()) return std::nullopt;
  return Rest{.owner = std::move(found->value.owner),
              .data = reinterpret_cast<const Bf16*>(found->value.bytes.data() + kEnvelopeHeaderBytes),
              .level = found->level};
}

// Is it the whole group, tile by tile?
bool TieredStore::Opens(const BlockId& id, int64_t rows, std::span<const uint8_t> value) const {
  if (static_cast<int64_t>(value.size()) != shape_.group_bytes(rows)) return false;
  const size_t stride = value.size() / static_cast<size_t>(shape_.tiles());
  std::atomic<bool> opens{true};
  backend_->pool().ParallelFor(shape_.tiles(), [&](int64_t tile, int) {
    const auto envelope = value.subspan(static_cast<size_t>(tile) * stride, stride);
    if (!OpenTile(id, GeometryOf(tile, rows), envelope, nullptr, nullptr).ok()) opens = false;
  });
  return opens;
}

void TieredStore::Prefetch(std::span<const BlockId> ids) {
  std::vector<TierKey> keys;
  for (const BlockId& id : ids) {
    if (!OnDevice(id)) keys.emplace_back(id);
  }
  mover_->Prefetch(keys);
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
    backend_->LoadBlock({.rest = rest->data + layer * shape_.kv_heads * shape_.tile_stride(rows),
                         .stride = shape_.tile_stride(rows),
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
  const Source source = rest->level == Level::kSsd ? Source::kSsd : Source::kHost;
  ++(source == Source::kSsd ? stats_.hits_ssd : stats_.hits_host);
  return Found{Keep(id, std::move(*group), /*below=*/true), source, std::move(rest)};
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
  if (!sealed->below || !IsBelow(sealed->id)) ++stats_.lost;
  arena_->Free(sealed->group.tiles);
  unused_.erase(sealed->unused);
  --stats_.device_groups;
  const BlockId id = sealed->id;
  sealed_.erase(id);
}

void TieredStore::Leave(std::span<const BlockId> ids) {
  for (const BlockId& id : ids) {
    const auto found = sealed_.find(id);
    if (found == sealed_.end() || found->second->pins > 0) continue;
    if (found->second->below && mover_->Contains(id)) Drop(found->second.get());
  }
}

void TieredStore::Forget(const BlockId& id) {
  const auto found = sealed_.find(id);
  if (found != sealed_.end() && found->second->pins == 0) Drop(found->second.get());
}

void TieredStore::DropUnpinned() {
  while (!unused_.empty()) Drop(unused_.front());
}

int64_t TieredStore::available_tiles() const {
  return arena_->free_tiles() + static_cast<int64_t>(unused_.size()) * shape_.tiles();
}

}  // namespace palimpsest
