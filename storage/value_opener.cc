#include "storage/value_opener.h"

#include <optional>
#include <utility>

#include "storage/block_format.h"

namespace palimpsest {

void ValueOpener::Take(uint64_t offset, uint64_t total, std::span<const uint8_t> bytes) {
  if (offset == 0) {
    opened_ = 0;
    damaged_ = false;
  }
  damaged_ = damaged_ || !OpenTiles(total, bytes);  // each tile says where it belongs
}

TierValue ValueOpener::Finish() && {
  if (damaged_ || opened_ == 0 || opened_ != parts_) return nullptr;
  return memory_->Share(std::move(value_));
}

bool ValueOpener::OpenTiles(uint64_t total, std::span<const uint8_t> bytes) {
  if (opened_ == 0) {
    // The first header says how large a tile is; a lie makes some tile fail its check.
    const std::optional<size_t> tile_bytes = TileEnvelopeBytes(bytes);
    if (!tile_bytes.has_value() || total % *tile_bytes != 0) return false;
    tile_bytes_ = *tile_bytes;
    parts_ = static_cast<uint32_t>(total / tile_bytes_);
  }
  if (bytes.size() % tile_bytes_ != 0) return false;
  for (size_t at = 0; at < bytes.size(); at += tile_bytes_) {
    if (!OpenNext(bytes.subspan(at, tile_bytes_))) return false;
  }
  return true;
}

bool ValueOpener::OpenNext(std::span<const uint8_t> tile) {
  if (opened_ == parts_) return false;  // more came than was said
  const bool straight = opened_ > 0 && DecodedFormat(geometry_.format) == geometry_.format;
  if (!(straight ? OpenStraight(tile) : OpenDecoded(tile))) return false;
  ++opened_;
  return true;
}

// What the first tile says, but for the place.
TileGeometry ValueOpener::NextGeometry() const {
  TileGeometry geometry = geometry_;
  geometry.layer = static_cast<int32_t>(opened_) / geometry.kv_heads;
  geometry.kv_head = static_cast<int32_t>(opened_) % geometry.kv_heads;
  return geometry;
}

// Nothing is decoded: it goes where it belongs at once.
bool ValueOpener::OpenStraight(std::span<const uint8_t> tile) {
  const TileGeometry geometry = NextGeometry();
  const std::span<uint8_t> to = std::span(value_).subspan(opened_ * open_bytes_, open_bytes_);
  if (!OpenTileInto(id_, geometry, tile, key_, to.subspan(kEnvelopeHeaderBytes), require()).ok())
    return false;
  SealTile(id_, geometry, to, nullptr);
  return true;
}

bool ValueOpener::OpenDecoded(std::span<const uint8_t> tile) {
  absl::StatusOr<OpenedTile> opened = VerifyTile(tile, key_, &plain_, require());
  if (!opened.ok() || int64_t{parts_} != TilesOfValue(opened->geometry) || !InPlace(id_, opened_, *opened))
    return false;
  const size_t open_bytes = kEnvelopeHeaderBytes + DecodedPayloadBytes(*opened);
  if (opened_ == 0) {
    geometry_ = opened->geometry;
    open_bytes_ = open_bytes;
    if (value_.size() != open_bytes * parts_) value_ = memory_->Take(open_bytes * parts_);
  } else if (opened->geometry != NextGeometry()) {
    return false;
  }
  if (open_bytes != open_bytes_) return false;
  const std::span<uint8_t> to = std::span(value_).subspan(opened_ * open_bytes, open_bytes);
  if (!DecodeInto(*opened, to.subspan(kEnvelopeHeaderBytes)).ok()) return false;
  opened->geometry.format = DecodedFormat(opened->geometry.format);
  SealTile(id_, opened->geometry, to, nullptr);
  return true;
}

}  // namespace palimpsest
