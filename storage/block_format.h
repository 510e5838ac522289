// How a tile's numbers are written at rest: exactly (bf16), or in 8 or 4 bits, which takes 0.53 or 0.28 of
// the room and loses a little.
//
// Layout : bf16 (2, tokens, D): key rows, value rows. int8, int4: of the keys a group for each channel over
// all
//          tokens, of the values a group for each token over all channels, since outliers of keys stay in
//          their channels and those of values do not (Liu et al. 2024, KIVI). A group is low + code * step;
//          its low and step are bf16, low rounded down and step up, so that no number is cut off and none is
//          farther than half a step from what it was. Little-endian:
//            D x {low, step} of the keys, tokens x {low, step} of the values, codes (2, tokens, D), of int4
//            two in a byte, the first in the low half.
// Errors : what is decoded is not trusted: DataLoss for another length, or a low or step that is no number.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "storage/envelope.h"

namespace palimpsest {

enum class BlockFormat : uint32_t { kBf16 = kTileBf16, kInt8 = kTileInt8, kInt4 = kTileInt4 };

std::string_view BlockFormatName(BlockFormat format);
std::optional<BlockFormat> ParseBlockFormat(std::string_view name);

// Of a tile of `tokens` rows of `head_size` (even) elements.
size_t TilePayloadBytes(BlockFormat format, int64_t tokens, int64_t head_size);

// From and to bf16. Encode returns false, and `out` is of no use, where a number is not finite: such a tile
// stays bf16. Sizes are TilePayloadBytes of both formats (encoding requires it).
bool EncodeTile(BlockFormat format, int64_t tokens, int64_t head_size, std::span<const uint8_t> bf16,
                std::span<uint8_t> out);
absl::Status DecodeTile(BlockFormat format, int64_t tokens, int64_t head_size, std::span<const uint8_t> bytes,
                        std::span<uint8_t> bf16);

// --- tiles on their way between a tier and whoever asks for them, to whom blocks are bf16

// The payloads of a value's tiles in `format`, each behind room for its header, with their geometries changed
// to it. Empty: they stay as they are, since they are no blocks, or since one of them has a number that is
// not finite.
std::vector<uint8_t> InTierFormat(std::vector<OpenedTile>* tiles, BlockFormat format);
// What a checked tile is for who asks, and its payload then (DecodedPayloadBytes long). DataLoss as of
// DecodeTile.
uint32_t DecodedFormat(uint32_t format);
size_t DecodedPayloadBytes(const OpenedTile& tile);
absl::Status DecodeInto(const OpenedTile& tile, std::span<uint8_t> payload);

}  // namespace palimpsest
