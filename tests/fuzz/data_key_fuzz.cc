// The readers of key files and wrapped keys take any bytes; what they accept is exactly what is written.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "proto/base/status.h"
#include "storage/data_key_file.h"

namespace {

using namespace palimpsest;
using Bytes = std::vector<uint8_t>;

KeyBytes WrappingKey() {
  KeyBytes key;
  key.bytes.fill(0x42);  // as in the seeds
  return key;
}

void CheckKeyFile(const Bytes& bytes) {
  const auto key = ParseKeyFile(bytes);
  if (!key.ok()) return;
  const auto again = FormatKeyFile(*key);
  PALIMPSEST_CHECK(std::equal(bytes.begin(), bytes.end(), again.bytes.begin(), again.bytes.end()));
}

void CheckWrappedKey(const Bytes& bytes) {
  const auto key = ParseWrappedKey(bytes, WrappingKey());
  if (!key.ok()) return;
  PALIMPSEST_CHECK(bytes.size() == kWrappedKeyBytes && (*key)->number() != 0);
  KeyBytes other = WrappingKey();
  other.bytes[0] ^= 1;
  PALIMPSEST_CHECK(!ParseWrappedKey(bytes, other).ok(), "opened by another key");
}

// A random input never has the right checksum, so what lies behind it is reached by giving it one.
Bytes WithChecksum(Bytes bytes, size_t size) {
  bytes.resize(size);
  const size_t covered = size - 16;
  const Hash256 hash = Sha256({reinterpret_cast<const char*>(bytes.data()), covered});
  std::copy_n(hash.bytes.begin(), 16, bytes.begin() + static_cast<std::ptrdiff_t>(covered));
  return bytes;
}

Bytes WithTag(Bytes bytes) {
  bytes.resize(kWrappedKeyBytes);
  DataKey::Nonce nonce;
  std::copy_n(bytes.begin() + 16, nonce.size(), nonce.begin());
  const std::span<uint8_t> all = bytes;
  const DataKey::Tag tag =
      DataKey::FromBytes(WrappingKey().bytes, 1)->Encrypt(nonce, all.first(32), all.subspan(32, 32));
  std::copy(tag.begin(), tag.end(), bytes.begin() + 64);
  return WithChecksum(std::move(bytes), kWrappedKeyBytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes bytes(data, data + size);
  CheckKeyFile(bytes);
  CheckWrappedKey(bytes);
  CheckKeyFile(WithChecksum(bytes, kKeyFileBytes));
  CheckWrappedKey(WithChecksum(bytes, kWrappedKeyBytes));
  CheckWrappedKey(WithTag(bytes));
  return 0;
}
