// A value on its way from a tier to whoever asked for it: out of the tier's form into the open one (tiles
// sealed with a checksum, of blocks in bf16), tile by tile as they are read. So a tile is decrypted while it
// is in the cache, and one reader waits for the disk while another computes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "storage/data_key.h"
#include "storage/envelope.h"
#include "storage/tier.h"
#include "storage/value_memory.h"

namespace palimpsest {

class ValueOpener {
 public:
  // `key` (which outlives it) null: tiles are not encrypted; else they must be.
  ValueOpener(const BlockId& id, const DataKey* key, std::shared_ptr<ValueMemory> memory)
      : id_(id), key_(key), memory_(std::move(memory)) {}

  // As TakeParts of one value.
  void Take(uint64_t offset, uint64_t total, std::span<const uint8_t> bytes);

  // The value, once all of it was taken; null: a tile is missing, damaged or not where it belongs.
  TierValue Finish() &&;
  uint32_t parts() const { return parts_; }  // of the value, once it is finished

 private:
  bool OpenTiles(uint64_t total, std::span<const uint8_t> bytes);
  bool OpenNext(std::span<const uint8_t> tile);
  bool OpenStraight(std::span<const uint8_t> tile);
  TileGeometry NextGeometry() const;
  bool OpenDecoded(std::span<const uint8_t> tile);
  Require require() const { return key_ != nullptr ? Require::kEncrypted : Require::kAny; }

  BlockId id_;
  const DataKey* key_;
  std::shared_ptr<ValueMemory> memory_;
  size_t tile_bytes_ = 0, open_bytes_ = 0;  // of a tile, in the tier's form and the open one
  uint32_t parts_ = 0, opened_ = 0;
  TileGeometry geometry_;  // of the first tile, in that form
  bool damaged_ = false;
  std::vector<uint8_t> plain_;  // the payload of one tile
  std::vector<uint8_t> value_;
};

}  // namespace palimpsest
