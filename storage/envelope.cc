#include "storage/envelope.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::array<uint8_t, 8> kMagic = {'P', 'L', 'M', 'P', 'S', 'B', 'L', 'K'};
constexpr uint8_t kXxh3 = 1;
constexpr size_t kVersionAt = 8, kAlgorithmAt = 10, kFormatAt = 12, kIdAt = 16, kLayersAt = 48,
                 kKvHeadsAt = 52, kHeadSizeAt = 56, kTokensAt = 60, kPayloadBytesAt = 64, kUnusedAt = 72,
                 kTagAt = 112;
static_assert(kTagAt + 16 == kEnvelopeHeaderBytes);

template <typename T>
T Load(const uint8_t* from) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<T>(from[i]) << (8 * i));
  return value;
}

template <typename T>
void Store(uint8_t* to, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<uint8_t>(value >> (8 * i));
}

using Tag = std::array<uint8_t, 16>;

Tag Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  Tag tag;
  static_assert(sizeof canonical.digest == sizeof tag);
  std::memcpy(tag.data(), canonical.digest, sizeof tag);
  return tag;
}

Tag ComputeTag(const uint8_t* header, std::span<const std::span<const uint8_t>> payload) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  PALIMPSEST_CHECK(state != nullptr, "out of memory");
  XXH3_128bits_reset(state.get());
  XXH3_128bits_update(state.get(), header, kTagAt);
  for (const auto& part : payload) XXH3_128bits_update(state.get(), part.data(), part.size());
  return Canonical(XXH3_128bits_digest(state.get()));
}

bool ValidDimension(int32_t value) { return value >= 1 && value <= kEnvelopeMaxDimension; }

bool ValidGeometry(const BlockGeometry& g) {
  return ValidDimension(g.layers) && ValidDimension(g.kv_heads) && ValidDimension(g.head_size) &&
         ValidDimension(g.tokens) && g.format != 0;
}

void WriteHeader(const BlockId& id, const BlockGeometry& g, std::span<const std::span<const uint8_t>> payload,
                 uint8_t* header) {
  uint64_t payload_bytes = 0;
  for (const auto& part : payload) payload_bytes += part.size();
  PALIMPSEST_CHECK(ValidGeometry(g), "layers {} kv_heads {} head_size {} tokens {} format {}", g.layers,
                   g.kv_heads, g.head_size, g.tokens, g.format);
  PALIMPSEST_CHECK(payload_bytes >= 1 && payload_bytes <= kEnvelopeMaxPayloadBytes, "payload of {} bytes",
                   payload_bytes);
  std::memset(header, 0, kEnvelopeHeaderBytes);
  std::copy(kMagic.begin(), kMagic.end(), header);
  Store<uint16_t>(header + kVersionAt, kEnvelopeVersion);
  header[kAlgorithmAt] = kXxh3;
  Store<uint32_t>(header + kFormatAt, g.format);
  std::copy(id.bytes.begin(), id.bytes.end(), header + kIdAt);
  Store<uint32_t>(header + kLayersAt, static_cast<uint32_t>(g.layers));
  Store<uint32_t>(header + kKvHeadsAt, static_cast<uint32_t>(g.kv_heads));
  Store<uint32_t>(header + kHeadSizeAt, static_cast<uint32_t>(g.head_size));
  Store<uint32_t>(header + kTokensAt, static_cast<uint32_t>(g.tokens));
  Store<uint64_t>(header + kPayloadBytesAt, payload_bytes);
  const Tag tag = ComputeTag(header, payload);
  std::copy(tag.begin(), tag.end(), header + kTagAt);
}

OpenedEnvelope ReadFields(std::span<const uint8_t> bytes) {
  OpenedEnvelope opened;
  const uint8_t* header = bytes.data();
  std::copy(header + kIdAt, header + kIdAt + 32, opened.id.bytes.begin());
  opened.geometry = {.layers = static_cast<int32_t>(Load<uint32_t>(header + kLayersAt)),
                     .kv_heads = static_cast<int32_t>(Load<uint32_t>(header + kKvHeadsAt)),
                     .head_size = static_cast<int32_t>(Load<uint32_t>(header + kHeadSizeAt)),
                     .tokens = static_cast<int32_t>(Load<uint32_t>(header + kTokensAt)),
                     .format = Load<uint32_t>(header + kFormatAt)};
  opened.payload = bytes.subspan(kEnvelopeHeaderBytes);
  return opened;
}

}  // namespace

void SealEnvelope(const BlockId& id, const BlockGeometry& geometry, std::span<uint8_t> envelope) {
  PALIMPSEST_CHECK(envelope.size() > kEnvelopeHeaderBytes, "envelope of {} bytes", envelope.size());
  const std::span<const uint8_t> payload = envelope.subspan(kEnvelopeHeaderBytes);
  WriteHeader(id, geometry, {&payload, 1}, envelope.data());
}

std::vector<uint8_t> SealHeader(const BlockId& id, const BlockGeometry& geometry,
                                std::span<const std::span<const uint8_t>> payload) {
  std::vector<uint8_t> header(kEnvelopeHeaderBytes);
  WriteHeader(id, geometry, payload, header.data());
  return header;
}

absl::StatusOr<OpenedEnvelope> VerifyEnvelope(std::span<const uint8_t> bytes) {
  if (bytes.size() <= kEnvelopeHeaderBytes) {
    return DataLoss("block value of {} bytes is shorter than an envelope ({} and a payload)", bytes.size(),
                    kEnvelopeHeaderBytes);
  }
  const uint8_t* header = bytes.data();
  if (!std::equal(kMagic.begin(), kMagic.end(), header))
    return DataLoss("block value is no envelope: wrong magic");
  // The version says where the other fields are, so it is believed before the tag is checked.
  const uint16_t version = Load<uint16_t>(header + kVersionAt);
  if (version != kEnvelopeVersion) {
    return FailedPrecondition("envelope version {}: this build reads version {}", version, kEnvelopeVersion);
  }
  if (header[kAlgorithmAt] != kXxh3) {
    return FailedPrecondition("envelope algorithm {}: this build reads {} (XXH3-128)", header[kAlgorithmAt],
                              kXxh3);
  }
  const uint64_t payload_bytes = Load<uint64_t>(header + kPayloadBytesAt);
  if (payload_bytes > kEnvelopeMaxPayloadBytes || payload_bytes != bytes.size() - kEnvelopeHeaderBytes) {
    return DataLoss("envelope says {} payload bytes and {} follow", payload_bytes,
                    bytes.size() - kEnvelopeHeaderBytes);
  }
  const OpenedEnvelope opened = ReadFields(bytes);
  const Tag tag = ComputeTag(header, {&opened.payload, 1});
  if (!std::equal(tag.begin(), tag.end(), header + kTagAt)) {
    return DataLoss("envelope of block {} fails its checksum", opened.id.ToHex());
  }
  // From here the bytes are what some producer sealed; it may still be one with other rules than ours.
  const bool unused_is_zero = header[11] == 0 && std::all_of(header + kUnusedAt, header + kTagAt,
                                                             [](uint8_t byte) { return byte == 0; });
  if (!ValidGeometry(opened.geometry) || !unused_is_zero) {
    return DataLoss("envelope of block {} has fields outside their limits", opened.id.ToHex());
  }
  return opened;
}

absl::StatusOr<OpenedEnvelope> OpenEnvelope(const BlockId& id, const BlockGeometry& geometry,
                                            std::span<const uint8_t> bytes) {
  PALIMPSEST_ASSIGN_OR_RETURN(OpenedEnvelope opened, VerifyEnvelope(bytes));
  if (opened.id != id) {
    return FailedPrecondition("block {} was asked for and block {} found in its place", id.ToHex(),
                              opened.id.ToHex());
  }
  if (opened.geometry != geometry) {
    const auto text = [](const BlockGeometry& g) {
      return fmt::format("layers {} kv_heads {} head_size {} tokens {} format {}", g.layers, g.kv_heads,
                         g.head_size, g.tokens, g.format);
    };
    return FailedPrecondition("block {} has {}; expected {}", id.ToHex(), text(opened.geometry),
                              text(geometry));
  }
  return opened;
}

}  // namespace palimpsest
