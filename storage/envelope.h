// The envelope around a sealed block group: what the bytes are, and proof that they still are (I-2).
//
// The producer seals once, right after computing; everyone who takes a value from a tier or a wire opens it
// before use. A value is untrusted input: nothing is read beyond its length, nothing is allocated from its
// counts (I-11), and its id and geometry must be the expected ones. Every failure is a miss for the caller,
// never a wrong token (I-5).
//
// Layout, little-endian, 128 bytes and then the payload:
//    0  8  magic "PLMPSBLK"             60  4  tokens
//    8  2  version (1)                  64  8  payload length in bytes
//   10  1  algorithm (1: XXH3-128)      72 12  nonce, 0 for XXH3-128
//   11  1  0                            84  4  number of the key, 0 for XXH3-128
//   12  4  block format (code)          88 24  0
//   16 32  block id                    112 16  tag over bytes [0, 112) and the payload
//   48  4  layers
//   52  4  kv heads                    Algorithm 2 is kept for AES-256-GCM, which fits the same fields:
//   56  4  head size                   tag over the same bytes, nonce and key number in clear.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/base/ids.h"

namespace palimpsest {

inline constexpr size_t kEnvelopeHeaderBytes = 128;
inline constexpr uint16_t kEnvelopeVersion = 1;
inline constexpr int32_t kEnvelopeMaxDimension = 1 << 16;         // each of layers, heads, head size, tokens
inline constexpr uint64_t kEnvelopeMaxPayloadBytes = 1ull << 30;  // a group of an 8B model is 8 MiB

// What is inside; the reader's own must be equal before a byte is copied.
struct BlockGeometry {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;  // elements
  int32_t tokens = 0;     // sealed in this block; fewer than block_tokens in a document's last one
  uint32_t format = 0;    // block format's code; 1 = bf16
  bool operator==(const BlockGeometry&) const = default;
};

// A checked envelope; `payload` points into the bytes that were opened.
struct OpenedEnvelope {
  BlockId id;
  BlockGeometry geometry;
  std::span<const uint8_t> payload;
};

// Writes header and tag into the first kEnvelopeHeaderBytes of `envelope`, whose remaining bytes are the
// payload: who computes blocks leaves room in front and nothing is copied. Requires 1 <= each dimension <=
// kEnvelopeMaxDimension, a format and 1 <= payload <= kEnvelopeMaxPayloadBytes.
void SealEnvelope(const BlockId& id, const BlockGeometry& geometry, std::span<uint8_t> envelope);

// The header alone, for a payload in several pieces that are written one after another (Tier::PutParts).
std::vector<uint8_t> SealHeader(const BlockId& id, const BlockGeometry& geometry,
                                std::span<const std::span<const uint8_t>> payload);

// Checks everything that can be checked without knowing what was asked for; for `storage verify` and for
// movers. DataLoss: truncated, altered or not an envelope. FailedPrecondition: another version or algorithm
// than ours.
absl::StatusOr<OpenedEnvelope> VerifyEnvelope(std::span<const uint8_t> bytes);

// VerifyEnvelope, and the value is the one asked for. FailedPrecondition also for a whole value in the wrong
// place: another id or another geometry.
absl::StatusOr<OpenedEnvelope> OpenEnvelope(const BlockId& id, const BlockGeometry& geometry,
                                            std::span<const uint8_t> bytes);

}  // namespace palimpsest
