// The bytes of the catalog's records: keys, checksums and bodies. coordinator/catalog.md describes the
// format.
//
// What comes from the disk is untrusted: every count is compared with its limit and with the bytes that are
// there before anything is allocated (I-11), and the checksum covers the key too, so a record in the wrong
// place is damage.
//
// Errors : DataLoss: not what was written. FailedPrecondition: the whole catalog has a version that this
//          build does not read. Neither names the document; the catalog, who knows it, does.
// Threads: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/base/ids.h"

namespace palimpsest {

inline constexpr uint8_t kCatalogFormatVersion = 1;
inline constexpr size_t kRecordHeaderBytes = 32;
inline constexpr uint64_t kTextBytesMax = 1ull << 30;  // of one document
inline constexpr uint64_t kTextChunkBytes = 1 << 20;
inline constexpr uint64_t kTokensMax = 1ull << 30;      // of one document
inline constexpr uint64_t kTokenChunkTokens = 1 << 18;  // 1 MiB
inline constexpr size_t kPathBytesMax = 16 << 10;
inline constexpr size_t kTenantBytesMax = 256;

enum class RecordKind : uint8_t { kFormat = 1, kInfo = 2, kText = 3, kTokens = 4, kTokenChunk = 5 };

// A document's info; its content hash is in the key.
struct InfoRecord {
  uint64_t text_bytes = 0;
  uint64_t tokens = 0;
  int64_t created_unix_ms = 0;
  std::string path;
  std::string tenant;  // whose it is
  bool operator==(const InfoRecord&) const = default;
};

// One tokenizer's ids of a document; the ids themselves are in chunks.
struct TokensRecord {
  uint64_t tokens = 0;
  std::array<uint8_t, 16> checksum{};  // XXH3-128 of all ids, 4 bytes each, little-endian
  bool operator==(const TokensRecord&) const = default;
};

// Keys. Those of one document's content are neighbours, those of all infos too.
std::string FormatKey();
std::string InfoKey(const Hash256& content);
std::string ContentPrefix(const Hash256& content);  // of all that follow
std::string TextChunkKey(const Hash256& content, uint32_t chunk);
std::string TokensKey(const Hash256& content, const Hash256& tokenizer);
std::string TokenChunkKey(const Hash256& content, const Hash256& tokenizer, uint32_t chunk);
// Stands while a document is being written; has no record.
std::string UnfinishedKey(const Hash256& content);
// The first key behind all that begin with `prefix`.
std::string PrefixEnd(std::string prefix);
// The document whose key this is, if it is one.
std::optional<Hash256> ContentOfKey(std::string_view key);
inline constexpr std::string_view kInfoPrefix = "i";
inline constexpr std::string_view kContentPrefix = "c";
inline constexpr std::string_view kUnfinishedPrefix = "u";

// `body` with its header and checksum, ready to be stored under `key`.
std::string SealRecord(RecordKind kind, std::string_view key, std::string_view body);
// The body within `record`, if it is whole and was sealed for this key and kind.
absl::StatusOr<std::string_view> OpenRecord(RecordKind kind, std::string_view key, std::string_view record);

std::string EncodeInfo(const InfoRecord& info);
absl::StatusOr<InfoRecord> DecodeInfo(std::string_view body);
std::string EncodeTokens(const TokensRecord& tokens);
absl::StatusOr<TokensRecord> DecodeTokens(std::string_view body);
TokensRecord DescribeTokens(const std::vector<int32_t>& ids);

// Bodies of chunks. A chunk is full unless it is the last one, so its length follows from the total.
inline constexpr uint64_t ChunkCount(uint64_t total, uint64_t chunk) { return (total + chunk - 1) / chunk; }
inline constexpr uint64_t ChunkLength(uint64_t total, uint64_t chunk, uint64_t index) {
  return total - index * chunk < chunk ? total - index * chunk : chunk;
}
std::string EncodeTokenChunk(const int32_t* ids, size_t count);
// Appends `count` ids; DataLoss unless the body holds exactly these.
absl::Status AppendTokenChunk(std::string_view body, size_t count, std::vector<int32_t>* ids);

}  // namespace palimpsest
