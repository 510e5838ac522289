// Ids that all parts agree on. Text forms are lower-case hex.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest {

// 256 bits that name something by its content: a model file, a tokenizer, a block.
struct Hash256 {
  std::array<uint8_t, 32> bytes{};
  auto operator<=>(const Hash256&) const = default;
  std::string ToHex() const;                                     // 64 characters
  static absl::StatusOr<Hash256> FromHex(std::string_view hex);  // InvalidArgument unless 64 hex digits
};

// Names a block: HMAC-SHA-256 of all it was computed from (invariant I-1); see storage/block_id.h.
struct BlockId : Hash256 {};

struct BlockIdHash {
  size_t operator()(const BlockId& id) const {
    size_t h;
    std::memcpy(&h, id.bytes.data(), sizeof h);  // already uniform
    return h;
  }
};

// A document of the catalog: "doc-" and the first 16 hex digits of its content hash.
using DocumentId = std::string;

Hash256 Sha256(std::string_view bytes);
Hash256 HmacSha256(std::string_view key, std::string_view bytes);

}  // namespace palimpsest
