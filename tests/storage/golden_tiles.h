// What the files in tests/storage/golden/ hold. write_golden_tiles wrote them; today's build must read them
// and write the same bytes again (F11).
#pragma once

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "storage/data_key_file.h"
#include "storage/envelope.h"

namespace palimpsest {

inline const BlockId kGoldenId{Sha256("a golden block")};
inline constexpr TileGeometry kGoldenGeometry = {
    .layers = 30, .kv_heads = 3, .layer = 7, .kv_head = 2, .head_size = 16, .tokens = 4, .format = kTileBf16};
inline constexpr DataKey::Nonce kGoldenNonce = {1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0};
inline constexpr uint32_t kGoldenKeyNumber = 0x01020304;

// Bytes first, first + 1, ...
inline KeyBytes GoldenKey(uint8_t first) {
  KeyBytes key;
  std::iota(key.bytes.begin(), key.bytes.end(), first);
  return key;
}
inline KeyBytes GoldenDataKeyBytes() { return GoldenKey(0x20); }
inline KeyBytes GoldenWrappingKeyBytes() { return GoldenKey(0x60); }

// Its first seal has kGoldenNonce.
inline std::shared_ptr<DataKey> GoldenDataKey() {
  return DataKey::FromBytes(GoldenDataKeyBytes().bytes, kGoldenKeyNumber, kGoldenNonce);
}

inline std::vector<uint8_t> GoldenPayload() {
  std::vector<uint8_t> payload(2 * 4 * 16 * 2);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<uint8_t>(7 * i + 3);
  return payload;
}

inline std::vector<uint8_t> GoldenTile(DataKey* key) {
  std::vector<uint8_t> envelope(kEnvelopeHeaderBytes);
  const std::vector<uint8_t> payload = GoldenPayload();
  envelope.insert(envelope.end(), payload.begin(), payload.end());
  SealTile(kGoldenId, kGoldenGeometry, envelope, key);
  return envelope;
}

struct GoldenFile {
  std::string name;
  std::vector<uint8_t> bytes;
};

// All of them, as this build writes them.
inline std::vector<GoldenFile> GoldenFiles() {
  const auto key_file = FormatKeyFile(GoldenWrappingKeyBytes());
  const auto wrapped =
      WrapKey(GoldenDataKeyBytes(), kGoldenKeyNumber, GoldenWrappingKeyBytes(), kGoldenNonce);
  return {{"tile_v1_xxh3.bin", GoldenTile(nullptr)},
          {"tile_v1_aes256gcm.bin", GoldenTile(GoldenDataKey().get())},
          {"key_file_v1.bin", {key_file.bytes.begin(), key_file.bytes.end()}},
          {"wrapped_key_v1.bin", {wrapped.begin(), wrapped.end()}}};
}

}  // namespace palimpsest
