#include "coordinator/catalog_record.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kMagic = "PCAT";
constexpr size_t kVersionAt = 4, kKindAt = 5, kUnusedAt = 6, kBodyBytesAt = 8, kChecksumAt = 16;
constexpr size_t kInfoFixedBytes = 28, kTokensBytes = 24;
static_assert(kChecksumAt + 16 == kRecordHeaderBytes);

void AppendInteger(std::string* out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t LoadInteger(std::string_view from, size_t at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(from[at + static_cast<size_t>(i)])) << (8 * i);
  }
  return value;
}

void AppendHash(std::string* out, const Hash256& hash) {
  out->append(reinterpret_cast<const char*>(hash.bytes.data()), hash.bytes.size());
}

// Big-endian, so that keys sort by number.
void AppendChunkNumber(std::string* out, uint32_t chunk) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<char>(chunk >> shift));
}

using Checksum = std::array<uint8_t, 16>;

Checksum Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  Checksum checksum;
  std::memcpy(checksum.data(), canonical.digest, checksum.size());
  return checksum;
}

// Over the key's length and bytes, the header up to the checksum, and the body.
Checksum RecordChecksum(std::string_view key, std::string_view header, std::string_view body) {
  std::string front;
  AppendInteger(&front, key.size(), 8);
  front.append(key);
  front.append(header);
  // The long part is hashed where it lies, seeded by the short one.
  const uint64_t seed = XXH3_64bits(front.data(), front.size());
  return Canonical(XXH3_128bits_withSeed(body.data(), body.size(), seed));
}

}  // namespace

std::string FormatKey() { return "m/format"; }

std::string InfoKey(const Hash256& content) {
  std::string key(kInfoPrefix);
  AppendHash(&key, content);
  return key;
}

std::string ContentPrefix(const Hash256& content) {
  std::string key(kContentPrefix);
  AppendHash(&key, content);
  return key;
}

std::string TextChunkKey(const Hash256& content, uint32_t chunk) {
  std::string key = ContentPrefix(content) + 't';
  AppendChunkNumber(&key, chunk);
  return key;
}

std::string TokensKey(const Hash256& content, const Hash256& tokenizer) {
  std::string key = ContentPrefix(content) + 'k';
  AppendHash(&key, tokenizer);
  return key;
}

std::string TokenChunkKey(const Hash256& content, const Hash256& tokenizer, uint32_t chunk) {
  std::string key = TokensKey(content, tokenizer);
  AppendChunkNumber(&key, chunk);
  return key;
}

std::string UnfinishedKey(const Hash256& content) {
  std::string key(kUnfinishedPrefix);
  AppendHash(&key, content);
  return key;
}

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  PALIMPSEST_CHECK(!prefix.empty(), "a prefix without an end");
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

std::optional<Hash256> ContentOfKey(std::string_view key) {
  Hash256 content;
  const bool known =
      key.starts_with(kInfoPrefix) || key.starts_with(kContentPrefix) || key.starts_with(kUnfinishedPrefix);
  if (!known || key.size() < 1 + content.bytes.size()) return std::nullopt;
  std::memcpy(content.bytes.data(), key.data() + 1, content.bytes.size());
  return content;
}

std::string SealRecord(RecordKind kind, std::string_view key, std::string_view body) {
  std::string record;
  record.reserve(kRecordHeaderBytes + body.size());
  record.append(kMagic);
  AppendInteger(&record, kCatalogFormatVersion, 1);
  AppendInteger(&record, static_cast<uint8_t>(kind), 1);
  AppendInteger(&record, 0, 2);
  AppendInteger(&record, body.size(), 8);
  const Checksum checksum = RecordChecksum(key, record, body);
  record.append(reinterpret_cast<const char*>(checksum.data()), checksum.size());
  record.append(body);
  return record;
}

absl::StatusOr<std::string_view> OpenRecord(RecordKind kind, std::string_view key, std::string_view record) {
  if (record.size() < kRecordHeaderBytes)
    return DataLoss("a record of {} bytes is shorter than its header", record.size());
  if (!record.starts_with(kMagic)) return DataLoss("a record has no magic number");
  const auto version = static_cast<uint8_t>(record[kVersionAt]);
  if (version != kCatalogFormatVersion) {
    // A newer program raises the version of the format record first; in any other record this is damage.
    return Error(
        kind == RecordKind::kFormat ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kDataLoss,
        "a record has version {}: this build reads version {}", version, kCatalogFormatVersion);
  }
  const std::string_view body = record.substr(kRecordHeaderBytes);
  const uint64_t body_bytes = LoadInteger(record, kBodyBytesAt, 8);
  if (body_bytes != body.size())
    return DataLoss("a record says {} bytes and {} follow", body_bytes, body.size());
  const Checksum checksum = RecordChecksum(key, record.substr(0, kChecksumAt), body);
  if (std::memcmp(checksum.data(), record.data() + kChecksumAt, checksum.size()) != 0) {
    return DataLoss("a record of {} bytes fails its checksum", record.size());
  }
  const auto stored_kind = static_cast<uint8_t>(record[kKindAt]);
  if (stored_kind != static_cast<uint8_t>(kind) || LoadInteger(record, kUnusedAt, 2) != 0) {
    return DataLoss("a record has kind {} in the place of kind {}", stored_kind, static_cast<uint8_t>(kind));
  }
  return body;
}

std::string EncodeInfo(const InfoRecord& info) {
  std::string body;
  AppendInteger(&body, info.text_bytes, 8);
  AppendInteger(&body, info.tokens, 8);
  AppendInteger(&body, static_cast<uint64_t>(info.created_unix_ms), 8);
  AppendInteger(&body, info.path.size(), 4);
  body += info.path;
  if (!info.tenant.empty()) {
    AppendInteger(&body, info.tenant.size(), 4);
    body += info.tenant;
  }
  return body;
}

absl::StatusOr<InfoRecord> DecodeInfo(std::string_view body) {
  if (body.size() < kInfoFixedBytes) return DataLoss("an info of {} bytes is too short", body.size());
  InfoRecord info{.text_bytes = LoadInteger(body, 0, 8),
                  .tokens = LoadInteger(body, 8, 8),
                  .created_unix_ms = static_cast<int64_t>(LoadInteger(body, 16, 8)),
                  .path = "",
                  .tenant = ""};
  const uint64_t path_bytes = LoadInteger(body, 24, 4);
  if (info.text_bytes < 1 || info.text_bytes > kTextBytesMax || info.tokens > kTokensMax ||
      path_bytes > kPathBytesMax || path_bytes > body.size() - kInfoFixedBytes) {
    return DataLoss("an info has fields outside their limits: text_bytes {} tokens {} path_bytes {}",
                    info.text_bytes, info.tokens, path_bytes);
  }
  info.path = body.substr(kInfoFixedBytes, path_bytes);
  const std::string_view rest = body.substr(kInfoFixedBytes + path_bytes);
  if (rest.empty()) return info;
  const uint64_t tenant_bytes = rest.size() < 4 ? 0 : LoadInteger(rest, 0, 4);
  if (tenant_bytes < 1 || tenant_bytes > kTenantBytesMax || tenant_bytes != rest.size() - 4) {
    return DataLoss("an info has {} bytes for its tenant, which say {}", rest.size(), tenant_bytes);
  }
  info.tenant = rest.substr(4);
  return info;
}

std::string EncodeTokens(const TokensRecord& tokens) {
  std::string body;
  AppendInteger(&body, tokens.tokens, 8);
  body.append(reinterpret_cast<const char*>(tokens.checksum.data()), tokens.checksum.size());
  return body;
}

absl::StatusOr<TokensRecord> DecodeTokens(std::string_view body) {
  if (body.size() != kTokensBytes)
    return DataLoss("a token header of {} bytes: expected {}", body.size(), kTokensBytes);
  TokensRecord tokens{.tokens = LoadInteger(body, 0, 8)};
  if (tokens.tokens > kTokensMax)
    return DataLoss("a token header says {} tokens: at most {}", tokens.tokens, kTokensMax);
  std::memcpy(tokens.checksum.data(), body.data() + 8, tokens.checksum.size());
  return tokens;
}

TokensRecord DescribeTokens(const std::vector<int32_t>& ids) {
  // int32 in memory is little-endian wherever this builds: x86-64 and AArch64 Linux.
  return {.tokens = ids.size(), .checksum = Canonical(XXH3_128bits(ids.data(), 4 * ids.size()))};
}

std::string EncodeTokenChunk(const int32_t* ids, size_t count) {
  return std::string(reinterpret_cast<const char*>(ids), 4 * count);
}

absl::Status AppendTokenChunk(std::string_view body, size_t count, std::vector<int32_t>* ids) {
  if (body.size() != 4 * count)
    return DataLoss("a token chunk of {} bytes: expected {}", body.size(), 4 * count);
  if (count == 0) return absl::OkStatus();  // memcpy must not see null
  const size_t before = ids->size();
  ids->resize(before + count);
  std::memcpy(ids->data() + before, body.data(), body.size());
  return absl::OkStatus();
}

}  // namespace palimpsest
