#include "storage/envelope.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "proto/base/status.h"
#include "storage/little_endian.h"

namespace palimpsest {
namespace {

constexpr std::array<uint8_t, 8> kMagic = {'P', 'L', 'M', 'P', 'S', 'B', 'L', 'K'};
constexpr uint8_t kXxh3 = 1, kAesGcm = 2;
constexpr size_t kVersionAt = 8, kAlgorithmAt = 10, kFormatAt = 12, kIdAt = 16, kLayerAt = 48, kKvHeadAt = 52,
                 kHeadSizeAt = 56, kTokensAt = 60, kPayloadBytesAt = 64, kNonceAt = 72, kKeyNumberAt = 84,
                 kLayersAt = 88, kKvHeadsAt = 92, kUnusedAt = 96, kTagAt = 112;
static_assert(kNonceAt + sizeof(DataKey::Nonce) == kKeyNumberAt);
static_assert(kTagAt + sizeof(DataKey::Tag) == kEnvelopeHeaderBytes);

using Tag = DataKey::Tag;

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

Tag Checksum(std::span<const uint8_t> envelope) {
  // One for each thread: making one costs as much as the checksum of a KiB.
  thread_local const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  PALIMPSEST_CHECK(state != nullptr, "out of memory");
  XXH3_128bits_reset(state.get());
  XXH3_128bits_update(state.get(), envelope.data(), kTagAt);
  XXH3_128bits_update(state.get(), envelope.data() + kEnvelopeHeaderBytes,
                      envelope.size() - kEnvelopeHeaderBytes);
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  Tag tag;
  static_assert(sizeof canonical.digest == sizeof tag);
  std::memcpy(tag.data(), canonical.digest, sizeof tag);
  return tag;
}

bool ValidCount(int32_t value) { return value >= 1 && value <= kEnvelopeMaxDimension; }

bool ValidGeometry(const TileGeometry& g) {
  return ValidCount(g.layers) && ValidCount(g.kv_heads) && ValidCount(g.head_size) && ValidCount(g.tokens) &&
         g.layer >= 0 && g.layer < g.layers && g.kv_head >= 0 && g.kv_head < g.kv_heads && g.format != 0;
}

std::string ToText(const TileGeometry& g) {
  return fmt::format("layer {} of {} kv_head {} of {} head_size {} tokens {} format {}", g.layer, g.layers,
                     g.kv_head, g.kv_heads, g.head_size, g.tokens, g.format);
}

// All but algorithm, nonce, key number and tag.
void WriteHeader(const BlockId& id, const TileGeometry& g, uint64_t payload_bytes, uint8_t* header) {
  const auto store = [header](size_t at, int32_t value) {
    StoreLittleEndian(header + at, static_cast<uint32_t>(value));
  };
  std::memset(header, 0, kEnvelopeHeaderBytes);
  std::copy(kMagic.begin(), kMagic.end(), header);
  StoreLittleEndian(header + kVersionAt, kEnvelopeVersion);
  StoreLittleEndian(header + kFormatAt, g.format);
  std::copy(id.bytes.begin(), id.bytes.end(), header + kIdAt);
  store(kLayerAt, g.layer);
  store(kKvHeadAt, g.kv_head);
  store(kHeadSizeAt, g.head_size);
  store(kTokensAt, g.tokens);
  StoreLittleEndian(header + kPayloadBytesAt, payload_bytes);
  store(kLayersAt, g.layers);
  store(kKvHeadsAt, g.kv_heads);
}

// A header as it stands, before the tag has said whether it may be believed.
struct Header {
  BlockId id;
  TileGeometry geometry;
  uint8_t algorithm = 0;
  DataKey::Nonce nonce;
  uint32_t key_number = 0;
  Tag tag;
};

Header ReadHeader(const uint8_t* bytes) {
  const auto load = [bytes](size_t at) {
    return static_cast<int32_t>(LoadLittleEndian<uint32_t>(bytes + at));
  };
  Header header;
  std::copy_n(bytes + kIdAt, header.id.bytes.size(), header.id.bytes.begin());
  header.geometry = {.layers = load(kLayersAt),
                     .kv_heads = load(kKvHeadsAt),
                     .layer = load(kLayerAt),
                     .kv_head = load(kKvHeadAt),
                     .head_size = load(kHeadSizeAt),
                     .tokens = load(kTokensAt),
                     .format = LoadLittleEndian<uint32_t>(bytes + kFormatAt)};
  header.algorithm = bytes[kAlgorithmAt];
  std::copy_n(bytes + kNonceAt, header.nonce.size(), header.nonce.begin());
  header.key_number = LoadLittleEndian<uint32_t>(bytes + kKeyNumberAt);
  std::copy_n(bytes + kTagAt, header.tag.size(), header.tag.begin());
  return header;
}

// That this is an envelope of ours, and whole.
absl::Status CheckForm(std::span<const uint8_t> bytes) {
  if (bytes.size() <= kEnvelopeHeaderBytes) {
    return DataLoss("tile of {} bytes is shorter than an envelope ({} and a payload)", bytes.size(),
                    kEnvelopeHeaderBytes);
  }
  if (!std::equal(kMagic.begin(), kMagic.end(), bytes.begin()))
    return DataLoss("tile is no envelope: wrong magic");
  // The version says where the other fields are, so it is believed before the tag is checked.
  const auto version = LoadLittleEndian<uint16_t>(bytes.data() + kVersionAt);
  if (version != kEnvelopeVersion) {
    return FailedPrecondition("envelope version {}: this build reads version {}", version, kEnvelopeVersion);
  }
  const uint8_t algorithm = bytes[kAlgorithmAt];
  if (algorithm != kXxh3 && algorithm != kAesGcm) {
    return FailedPrecondition("envelope algorithm {}: this build reads {} (XXH3-128) and {} (AES-256-GCM)",
                              algorithm, kXxh3, kAesGcm);
  }
  const auto payload_bytes = LoadLittleEndian<uint64_t>(bytes.data() + kPayloadBytesAt);
  if (payload_bytes > kEnvelopeMaxPayloadBytes || payload_bytes != bytes.size() - kEnvelopeHeaderBytes) {
    return DataLoss("envelope says {} payload bytes and {} follow", payload_bytes,
                    bytes.size() - kEnvelopeHeaderBytes);
  }
  return absl::OkStatus();
}

// That the reader has what the algorithm needs, and that the algorithm is enough for the reader.
absl::Status CheckKey(const Header& header, const DataKey* key, Require require) {
  if (header.algorithm == kXxh3) {
    if (require == Require::kAny) return absl::OkStatus();
    return FailedPrecondition("tile of block {} is not encrypted, and must be where it was read",
                              header.id.ToHex());
  }
  if (key == nullptr) {
    return FailedPrecondition("tile of block {} is encrypted with key {} and there is no key",
                              header.id.ToHex(), header.key_number);
  }
  if (key->number() != header.key_number) {
    return FailedPrecondition("tile of block {} is encrypted with key {}; this is key {}", header.id.ToHex(),
                              header.key_number, key->number());
  }
  return absl::OkStatus();
}

// Once the tag fits, the bytes are what some producer sealed; it may still be one with other rules than ours.
absl::Status CheckFields(std::span<const uint8_t> bytes, const Header& header) {
  const auto is_zero = [bytes](size_t from, size_t to) {
    return std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                       bytes.begin() + static_cast<std::ptrdiff_t>(to),
                       [](uint8_t byte) { return byte == 0; });
  };
  const bool unused_is_zero = bytes[kAlgorithmAt + 1] == 0 && is_zero(kUnusedAt, kTagAt) &&
                              (header.algorithm != kXxh3 || is_zero(kNonceAt, kLayersAt));
  if (ValidGeometry(header.geometry) && unused_is_zero) return absl::OkStatus();
  return DataLoss("envelope of block {} has fields outside their limits", header.id.ToHex());
}

absl::Status CheckAsked(const Header& header, const BlockId& id, const TileGeometry& geometry) {
  if (header.id != id) {
    return FailedPrecondition("block {} was asked for and block {} found in its place", id.ToHex(),
                              header.id.ToHex());
  }
  if (header.geometry != geometry) {
    return FailedPrecondition("block {} has {}; expected {}", id.ToHex(), ToText(header.geometry),
                              ToText(geometry));
  }
  return absl::OkStatus();
}

absl::Status CheckSum(std::span<const uint8_t> bytes, const Header& header) {
  if (Checksum(bytes) == header.tag) return absl::OkStatus();
  return DataLoss("envelope of block {} fails its checksum", header.id.ToHex());
}

// `to` is as long as the payload; zeros unless OK.
absl::Status Decrypt(std::span<const uint8_t> bytes, const Header& header, const DataKey& key,
                     std::span<uint8_t> to) {
  if (key.Decrypt(header.nonce, bytes.first(kTagAt), header.tag, bytes.subspan(kEnvelopeHeaderBytes), to))
    return absl::OkStatus();
  return DataLoss("envelope of block {} fails its tag: altered, or sealed with another key of number {}",
                  header.id.ToHex(), header.key_number);
}

// What can be said before the tag is computed.
absl::StatusOr<Header> Begin(std::span<const uint8_t> bytes, const DataKey* key, Require require) {
  PALIMPSEST_RETURN_IF_ERROR(CheckForm(bytes));
  const Header header = ReadHeader(bytes.data());
  PALIMPSEST_RETURN_IF_ERROR(CheckKey(header, key, require));
  return header;
}

}  // namespace

void SealTile(const BlockId& id, const TileGeometry& geometry, std::span<uint8_t> envelope, DataKey* key) {
  PALIMPSEST_CHECK(envelope.size() > kEnvelopeHeaderBytes, "envelope of {} bytes", envelope.size());
  const std::span<uint8_t> payload = envelope.subspan(kEnvelopeHeaderBytes);
  PALIMPSEST_CHECK(ValidGeometry(geometry), "{}", ToText(geometry));
  PALIMPSEST_CHECK(payload.size() <= kEnvelopeMaxPayloadBytes, "payload of {} bytes", payload.size());
  uint8_t* header = envelope.data();
  WriteHeader(id, geometry, payload.size(), header);
  Tag tag;
  if (key == nullptr) {
    header[kAlgorithmAt] = kXxh3;
    tag = Checksum(envelope);
  } else {
    const DataKey::Nonce nonce = key->NextNonce();
    header[kAlgorithmAt] = kAesGcm;
    std::copy(nonce.begin(), nonce.end(), header + kNonceAt);
    StoreLittleEndian(header + kKeyNumberAt, key->number());
    tag = key->Encrypt(nonce, envelope.first(kTagAt), payload);
  }
  std::copy(tag.begin(), tag.end(), header + kTagAt);
}

std::optional<size_t> TileEnvelopeBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() <= kEnvelopeHeaderBytes) return std::nullopt;
  const auto payload = LoadLittleEndian<uint64_t>(bytes.data() + kPayloadBytesAt);
  if (payload == 0 || payload > bytes.size() - kEnvelopeHeaderBytes) return std::nullopt;
  return kEnvelopeHeaderBytes + static_cast<size_t>(payload);
}

absl::StatusOr<OpenedTile> VerifyTile(std::span<const uint8_t> bytes, const DataKey* key,
                                      std::vector<uint8_t>* plain, Require require) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Header header, Begin(bytes, key, require));
  OpenedTile opened = {header.id, header.geometry, bytes.subspan(kEnvelopeHeaderBytes)};
  if (header.algorithm == kXxh3) {
    PALIMPSEST_RETURN_IF_ERROR(CheckSum(bytes, header));
  } else {
    PALIMPSEST_CHECK(plain != nullptr, "nowhere to decrypt to");
    plain->resize(opened.payload.size());  // which is what lies in `bytes`, so no count is believed
    PALIMPSEST_RETURN_IF_ERROR(Decrypt(bytes, header, *key, *plain));
    opened.payload = *plain;
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckFields(bytes, header));
  return opened;
}

bool InPlace(const BlockId& id, uint32_t part, const OpenedTile& tile) {
  return tile.id == id &&
         int64_t{tile.geometry.layer} * tile.geometry.kv_heads + tile.geometry.kv_head == int64_t{part};
}

int64_t TilesOfValue(const TileGeometry& tile) {
  return tile.format < kTileDigests ? int64_t{tile.layers} * tile.kv_heads : 1;
}

absl::StatusOr<OpenedTile> OpenTile(const BlockId& id, const TileGeometry& geometry,
                                    std::span<const uint8_t> bytes, const DataKey* key,
                                    std::vector<uint8_t>* plain, Require require) {
  PALIMPSEST_ASSIGN_OR_RETURN(OpenedTile opened, VerifyTile(bytes, key, plain, require));
  PALIMPSEST_RETURN_IF_ERROR(CheckAsked(ReadHeader(bytes.data()), id, geometry));
  return opened;
}

absl::Status OpenTileInto(const BlockId& id, const TileGeometry& geometry, std::span<const uint8_t> bytes,
                          const DataKey* key, std::span<uint8_t> to, Require require) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Header header, Begin(bytes, key, require));
  const std::span<const uint8_t> payload = bytes.subspan(kEnvelopeHeaderBytes);
  if (payload.size() != to.size()) {
    return FailedPrecondition("tile of block {} has {} payload bytes; expected {}", header.id.ToHex(),
                              payload.size(), to.size());
  }
  const auto check_fields = [&] {
    const absl::Status valid = CheckFields(bytes, header);
    return valid.ok() ? CheckAsked(header, id, geometry) : valid;
  };
  if (header.algorithm == kXxh3) {
    PALIMPSEST_RETURN_IF_ERROR(CheckSum(bytes, header));
    PALIMPSEST_RETURN_IF_ERROR(check_fields());
    std::memcpy(to.data(), payload.data(), payload.size());
    return absl::OkStatus();
  }
  PALIMPSEST_RETURN_IF_ERROR(Decrypt(bytes, header, *key, to));
  absl::Status asked = check_fields();
  if (!asked.ok()) std::fill(to.begin(), to.end(), uint8_t{0});
  return asked;
}

}  // namespace palimpsest
