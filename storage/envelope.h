// The envelope around a sealed tile: what the bytes are, and proof that they still are (I-2).
//
// A tile is K and V of at most 64 tokens of one layer and KV head, or what stands for them (see the formats).
// A block group's value is its tiles' envelopes one after another, all of the same length, so a reader takes
// one tile out of the middle without the rest.
//
// The producer seals once, right after computing; everyone who takes a value from a tier or a wire opens it
// before use. A value is untrusted input: nothing is read beyond its length, nothing is allocated from its
// counts (I-11), and its id and geometry must be the expected ones. Every failure is a miss for the caller,
// never a wrong token (I-5).
//
// Layout, little-endian, 128 bytes and then the payload; storage/envelope.md says why:
//    0  8  magic "PLMPSBLK"                            56  4  head size
//    8  2  version (1)                                 60  4  tokens
//   10  1  algorithm (1 XXH3-128, 2 AES-256-GCM)       64  8  payload length in bytes
//   11  1  0                                           72 12  nonce, 0 for XXH3-128
//   12  4  format                                      84  4  number of the key, 0 for XXH3-128
//   16 32  block id                                    88  4  layers of the model
//   48  4  layer                                       92  4  KV heads of the model
//   52  4  KV head                                     96 16  0
//                                                     112 16  tag over bytes [0, 112) and the payload
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/base/ids.h"
#include "storage/data_key.h"

namespace palimpsest {

inline constexpr size_t kEnvelopeHeaderBytes = 128;
inline constexpr uint16_t kEnvelopeVersion = 1;
inline constexpr int32_t kEnvelopeMaxDimension = 1 << 16;         // layers, heads, head size, tokens
inline constexpr uint64_t kEnvelopeMaxPayloadBytes = 1ull << 30;  // a bf16 tile of an 8B model is 32 KiB

// What the payload is. Frozen: these numbers are on disks.
inline constexpr uint32_t kTileBf16 = 1;  // key rows, then value rows: (2, tokens, head size)
inline constexpr uint32_t kTileInt8 = 2;  // block_format.h
inline constexpr uint32_t kTileInt4 = 3;
inline constexpr uint32_t kTileDigests = 16;  // + kind, of 16: what an index keeps of a tile
inline constexpr uint32_t kTilePicks = 32;    // what a policy left of a document: opaque bytes

// What is inside; the reader's own must be equal before a byte is used.
struct TileGeometry {
  int32_t layers = 0;     // of the model
  int32_t kv_heads = 0;   // of the model
  int32_t layer = 0;      // this tile's, below `layers`
  int32_t kv_head = 0;    // this tile's, below `kv_heads`
  int32_t head_size = 0;  // elements
  int32_t tokens = 0;     // fewer than block_tokens in a document's last block
  uint32_t format = 0;
  bool operator==(const TileGeometry&) const = default;
};

// Of picks, which belong to no layer: each count is 1.
inline constexpr TileGeometry kPicksGeometry = {
    .layers = 1, .kv_heads = 1, .head_size = 1, .tokens = 1, .format = kTilePicks};

// A checked envelope; `payload` points into the bytes that were opened or into the buffer decrypted to.
struct OpenedTile {
  BlockId id;
  TileGeometry geometry;
  std::span<const uint8_t> payload;
};

// What a reader accepts. Values of a tier on disk are read with kEncrypted wherever there is a key: else
// whoever can write the disk replaces a tile by one of his own with a checksum that fits.
enum class Require { kAny, kEncrypted };

// Seals in place: header and tag are written into the first kEnvelopeHeaderBytes of `envelope`, the payload
// is what follows; with a key the payload is encrypted in place, without one the tag is XXH3-128. Requires 1
// <= each count <= kEnvelopeMaxDimension, the tile's layer and head below them, a format and 1 <= payload <=
// kEnvelopeMaxPayloadBytes.
void SealTile(const BlockId& id, const TileGeometry& geometry, std::span<uint8_t> envelope, DataKey* key);

// Bytes of the envelope that `bytes` begins with, by its header, which is not checked; nothing if that is
// more than there are.
std::optional<size_t> TileEnvelopeBytes(std::span<const uint8_t> bytes);

// Checks everything that can be checked without knowing what was asked for; for `storage verify` and for
// movers. Encrypted, the payload is decrypted into `plain` (resized); else it stays where it is, `plain` may
// be null and is untouched. DataLoss: truncated, altered or not an envelope. FailedPrecondition: another
// version or algorithm than ours; encrypted with a key that is not `key` (null: none); not encrypted where
// that is required.
absl::StatusOr<OpenedTile> VerifyTile(std::span<const uint8_t> bytes, const DataKey* key,
                                      std::vector<uint8_t>* plain, Require require = Require::kAny);

// Does a checked tile stand where its header says it belongs: part layer * kv_heads + kv_head of the value of
// its id? Picks are one tile, of layer 0 and head 0.
bool InPlace(const BlockId& id, uint32_t part, const OpenedTile& tile);
// Tiles of the value that a checked tile is of: of a block one for each layer and head, else 1. In a value
// that was cut between two tiles each one left is right by itself.
int64_t TilesOfValue(const TileGeometry& tile);

// VerifyTile, and the tile is the one asked for. FailedPrecondition also for a whole one in the wrong place:
// another id or another geometry.
absl::StatusOr<OpenedTile> OpenTile(const BlockId& id, const TileGeometry& geometry,
                                    std::span<const uint8_t> bytes, const DataKey* key,
                                    std::vector<uint8_t>* plain, Require require = Require::kAny);

// OpenTile for a reader that knows where the payload goes: `to` has exactly its size, else
// FailedPrecondition. Unless OK, `to` holds what it held or zeros.
absl::Status OpenTileInto(const BlockId& id, const TileGeometry& geometry, std::span<const uint8_t> bytes,
                          const DataKey* key, std::span<uint8_t> to, Require require = Require::kAny);

}  // namespace palimpsest
