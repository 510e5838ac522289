#include "proto/base/ids.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "proto/base/status.h"

namespace palimpsest {

std::string Hash256::ToHex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

absl::StatusOr<Hash256> Hash256::FromHex(std::string_view hex) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (hex.size() != 64) return InvalidArgument("hash of {} characters: expected 64 hex digits", hex.size());
  Hash256 hash;
  for (size_t i = 0; i < 32; ++i) {
    const int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return InvalidArgument("hash has a character that is no hex digit at {}", 2 * i);
    hash.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return hash;
}

Hash256 Sha256(std::string_view bytes) {
  Hash256 hash;
  unsigned int length = 0;
  PALIMPSEST_CHECK(
      EVP_Digest(bytes.data(), bytes.size(), hash.bytes.data(), &length, EVP_sha256(), nullptr) == 1);
  return hash;
}

Hash256 HmacSha256(std::string_view key, std::string_view bytes) {
  Hash256 hash;
  unsigned int length = 0;
  PALIMPSEST_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                        reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hash.bytes.data(),
                        &length) != nullptr);
  return hash;
}

}  // namespace palimpsest
