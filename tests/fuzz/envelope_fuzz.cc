// The envelope reader takes any bytes; what it accepts is exactly what sealing the same content writes.
#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "proto/base/status.h"
#include "storage/envelope.h"

namespace {

using namespace palimpsest;
using Bytes = std::vector<uint8_t>;

constexpr size_t kNonceAt = 72, kTagAt = 112, kPayloadAt = kEnvelopeHeaderBytes;
constexpr uint32_t kNumber = 7;  // as in the seeds

// The nonces of a key begin at `nonce`, so that a seal can be repeated.
std::shared_ptr<DataKey> Key(const DataKey::Nonce& nonce) {
  std::array<uint8_t, 32> key;
  key.fill(0x42);
  return DataKey::FromBytes(key, kNumber, nonce);
}

DataKey::Nonce NonceOf(const Bytes& envelope) {
  DataKey::Nonce nonce;
  std::copy_n(envelope.begin() + kNonceAt, nonce.size(), nonce.begin());
  return nonce;
}

void CheckAccepted(const Bytes& bytes) {
  Bytes plain;
  const auto key = Key({});
  const auto opened = VerifyTile(bytes, key.get(), &plain);
  if (!opened.ok()) return;
  const bool encrypted = bytes[10] == 2;
  PALIMPSEST_CHECK(VerifyTile(bytes, key.get(), &plain, Require::kEncrypted).ok() == encrypted);
  PALIMPSEST_CHECK(VerifyTile(bytes, nullptr, nullptr).ok() == !encrypted);
  PALIMPSEST_CHECK(OpenTile(opened->id, opened->geometry, bytes, key.get(), &plain).ok());
  Bytes to(opened->payload.size());
  PALIMPSEST_CHECK(OpenTileInto(opened->id, opened->geometry, bytes, key.get(), to).ok());
  PALIMPSEST_CHECK(std::equal(to.begin(), to.end(), opened->payload.begin(), opened->payload.end()));
  Bytes again(kPayloadAt);
  again.insert(again.end(), to.begin(), to.end());
  SealTile(opened->id, opened->geometry, again, encrypted ? Key(NonceOf(bytes)).get() : nullptr);
  PALIMPSEST_CHECK(again == bytes, "sealing an accepted envelope again changed it");
}

// A random input never has the right tag, so the fields behind it are reached by giving it one.
Bytes WithChecksum(Bytes bytes) {
  Bytes covered(bytes.begin(), bytes.begin() + kTagAt);
  covered.insert(covered.end(), bytes.begin() + kPayloadAt, bytes.end());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(covered.data(), covered.size()));
  std::memcpy(bytes.data() + kTagAt, canonical.digest, sizeof canonical.digest);
  return bytes;
}

Bytes WithGcmTag(Bytes bytes) {
  const std::span<uint8_t> all = bytes;
  const DataKey::Tag tag = Key({})->Encrypt(NonceOf(bytes), all.first(kTagAt), all.subspan(kPayloadAt));
  std::copy(tag.begin(), tag.end(), bytes.begin() + kTagAt);
  return bytes;
}

// The input as a payload, a geometry and a change that must be noticed.
void CheckSealed(const uint8_t* data, size_t size, DataKey* key) {
  const auto count = [&](size_t at) { return 1 + (data[at] | data[at + 1] << 8); };
  TileGeometry geometry = {.layers = count(0),
                           .kv_heads = count(2),
                           .head_size = count(4),
                           .tokens = count(6),
                           .format = 1u + data[8]};
  geometry.layer = data[12] % geometry.layers;
  geometry.kv_head = data[13] % geometry.kv_heads;
  Bytes sealed(kPayloadAt);
  sealed.insert(sealed.end(), data + 20, data + size);
  SealTile(BlockId{}, geometry, sealed, key);
  Bytes to(sealed.size() - kPayloadAt);
  PALIMPSEST_CHECK(OpenTileInto(BlockId{}, geometry, sealed, key, to).ok());
  PALIMPSEST_CHECK(std::equal(to.begin(), to.end(), data + 20, data + size));
  sealed[static_cast<size_t>(data[9] | data[10] << 8) % sealed.size()] ^=
      static_cast<uint8_t>(1 + data[11] % 255);
  PALIMPSEST_CHECK(!VerifyTile(sealed, key, &to).ok(), "a changed byte was accepted");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes bytes(data, data + size);
  CheckAccepted(bytes);
  if (size > kPayloadAt) {
    CheckAccepted(WithChecksum(bytes));
    CheckAccepted(WithGcmTag(bytes));
  }
  if (size < 21) return 0;
  CheckSealed(data, size, nullptr);
  CheckSealed(data, size, Key({}).get());
  return 0;
}
