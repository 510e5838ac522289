// Writes the seed files of envelope_fuzz and data_key_fuzz, with the keys that those know, into two folders.
#include <fstream>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "storage/data_key_file.h"
#include "storage/envelope.h"

namespace palimpsest {
namespace {

using Bytes = std::vector<uint8_t>;

void Write(const std::string& folder, const std::string& name, const Bytes& bytes) {
  std::ofstream out(folder + "/" + name, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  PALIMPSEST_CHECK(out.flush().good(), "{}/{}", folder, name);
}

KeyBytes Key() {
  KeyBytes key;
  key.bytes.fill(0x42);
  return key;
}

Bytes Tile(const TileGeometry& geometry, size_t payload_bytes, DataKey* key) {
  Bytes envelope(kEnvelopeHeaderBytes + payload_bytes, 0x5a);
  SealTile(BlockId{Sha256("a seed")}, geometry, envelope, key);
  return envelope;
}

void WriteTiles(const std::string& folder) {
  const TileGeometry bf16 = {
      .layers = 2, .kv_heads = 3, .layer = 1, .kv_head = 2, .head_size = 2, .tokens = 2, .format = kTileBf16};
  const auto key = DataKey::FromBytes(Key().bytes, 7, DataKey::Nonce{});
  Bytes sealed = Tile(bf16, 16, nullptr);
  Write(folder, "sealed", sealed);
  Write(folder, "encrypted", Tile(bf16, 16, key.get()));
  Write(folder, "picks", Tile(kPicksGeometry, 5, key.get()));
  Write(folder, "another_key", Tile(bf16, 16, DataKey::FromBytes(Key().bytes, 8, DataKey::Nonce{}).get()));
  sealed[8] = 2;
  Write(folder, "another_version", sealed);
  sealed[8] = 1;
  sealed.resize(120);
  Write(folder, "truncated", sealed);
}

void WriteKeys(const std::string& folder) {
  const auto key_file = FormatKeyFile(Key());
  const auto wrapped = WrapKey(Key(), 7, Key(), DataKey::Nonce{1, 2, 3});
  Write(folder, "key_file", {key_file.bytes.begin(), key_file.bytes.end()});
  Write(folder, "wrapped_key", {wrapped.begin(), wrapped.end()});
  Write(folder, "truncated", {wrapped.begin(), wrapped.begin() + 60});
}

}  // namespace
}  // namespace palimpsest

int main(int argc, char** argv) {
  PALIMPSEST_CHECK(argc == 3, "usage: write_envelope_seeds ENVELOPE_FOLDER DATA_KEY_FOLDER");
  palimpsest::WriteTiles(argv[1]);
  palimpsest::WriteKeys(argv[2]);
  return 0;
}
