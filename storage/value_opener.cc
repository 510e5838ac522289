#include "storage/value_opener.h"

#include <memory>
#include <optional>
#include <utility>

#include "storage/block_format.h"

namespace palimpsest {

void ValueOpener::Take(uint64_t offset, uint64_t total, std::span<const uint8_t> bytes) {
  if (offset == 0) {
    opened_ = 0;
    damaged_ = false;
    value_.clear();
  }
  damaged_ = damaged_ || !OpenTiles(total, bytes);  // each tile says where it belongs
}

TierValue ValueOpener::Finish() && {
  if (damaged_ || opened_ == 0 || opened_ != parts_) return nullptr;
  return std::make_shared<const std::vector<uint8_t>>(std::move(value_));
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
  const Require require = key_ != nullptr ? Require::kEncrypted : Require::kAny;
  absl::StatusOr<OpenedTile> opened = VerifyTile(tile, key_, &plain_, require);
  if (!opened.ok() || int64_t{parts_} != TilesOfValue(opened->geometry) || !InPlace(id_, opened_, *opened))
    return false;
  if (opened_ == 0) format_ = opened->geometry.format;
  if (opened->geometry.format != format_) return false;
  const size_t at = value_.size(), size = kEnvelopeHeaderBytes + DecodedPayloadBytes(*opened);
  if (opened_ == 0) value_.reserve(size * parts_);
  value_.resize(at + size);
  const std::span<uint8_t> to = std::span(value_).subspan(at);
  if (!DecodeInto(*opened, to.subspan(kEnvelopeHeaderBytes)).ok()) return false;
  opened->geometry.format = DecodedFormat(format_);
  SealTile(id_, opened->geometry, to, nullptr);
  ++opened_;
  return true;
}

}  // namespace palimpsest
