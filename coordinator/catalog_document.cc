#include "coordinator/catalog_document.h"

#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

using Change = CatalogDatabase::Change;
using View = CatalogDatabase::View;

constexpr size_t kWriteBytes = 4 << 20;  // of one write to the database, about

absl::StatusOr<std::string> ReadChunk(const View& view, RecordKind kind, const std::string& key,
                                      uint64_t index) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::optional<std::string> body, ReadRecord(view, kind, key));
  if (!body.has_value()) return DataLoss("chunk {} is missing", index);
  return std::move(*body);
}

}  // namespace

Hash256 ContentHash(std::string_view tenant, std::string_view text) {
  if (tenant.empty()) return Sha256(text);
  const Hash256 key = Sha256(tenant);  // HMAC would take names that differ in zeros at their end for one
  return HmacSha256({reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()}, text);
}

DocumentId IdOf(const Hash256& content) {
  return std::string(kDocumentIdStart) + content.ToHex().substr(0, kDocumentIdDigits);
}

absl::Status Damaged(const DocumentId& id, const absl::Status& why) {
  if (why.code() != absl::StatusCode::kDataLoss) return why;
  return DataLoss(
      "document {} is damaged in the catalog: {}; ingest its text again to repair it, or remove it with "
      "`palimpsest documents delete {}`",
      id, Message(why), id);
}

absl::StatusOr<std::optional<std::string>> ReadRecord(const View& view, RecordKind kind,
                                                      const std::string& key) {
  PALIMPSEST_ASSIGN_OR_RETURN(std::optional<std::string> record, view.Get(key));
  if (!record.has_value()) return std::nullopt;
  PALIMPSEST_ASSIGN_OR_RETURN(const std::string_view body, OpenRecord(kind, key, *record));
  return std::string(body);
}

absl::StatusOr<std::optional<InfoRecord>> ReadInfo(const View& view, const Hash256& content) {
  const auto body = ReadRecord(view, RecordKind::kInfo, InfoKey(content));
  if (!body.ok()) return Damaged(IdOf(content), body.status());
  const std::optional<std::string>& record = *body;
  if (!record.has_value()) return std::nullopt;
  auto info = DecodeInfo(*record);
  if (!info.ok()) return Damaged(IdOf(content), info.status());
  return std::move(*info);
}

absl::StatusOr<std::string> ReadText(const View& view, const Hash256& content, const InfoRecord& info) {
  const uint64_t text_bytes = info.text_bytes;
  std::string text;
  text.reserve(text_bytes);
  for (uint64_t i = 0; i < ChunkCount(text_bytes, kTextChunkBytes); ++i) {
    const std::string key = TextChunkKey(content, static_cast<uint32_t>(i));
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string chunk, ReadChunk(view, RecordKind::kText, key, i));
    if (chunk.size() != ChunkLength(text_bytes, kTextChunkBytes, i)) {
      return DataLoss("chunk {} has {} bytes", i, chunk.size());
    }
    text += chunk;
  }
  if (ContentHash(info.tenant, text) != content)
    return DataLoss("its {} bytes have another SHA-256", text_bytes);
  return text;
}

absl::StatusOr<std::optional<std::vector<int32_t>>> ReadTokens(const View& view, const Hash256& content,
                                                               const Hash256& tokenizer) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto body,
                              ReadRecord(view, RecordKind::kTokens, TokensKey(content, tokenizer)));
  if (!body.has_value()) return std::nullopt;
  PALIMPSEST_ASSIGN_OR_RETURN(const TokensRecord header, DecodeTokens(*body));
  std::vector<int32_t> ids;
  ids.reserve(header.tokens);
  for (uint64_t i = 0; i < ChunkCount(header.tokens, kTokenChunkTokens); ++i) {
    const std::string key = TokenChunkKey(content, tokenizer, static_cast<uint32_t>(i));
    PALIMPSEST_ASSIGN_OR_RETURN(const std::string chunk, ReadChunk(view, RecordKind::kTokenChunk, key, i));
    PALIMPSEST_RETURN_IF_ERROR(
        AppendTokenChunk(chunk, ChunkLength(header.tokens, kTokenChunkTokens, i), &ids));
  }
  if (DescribeTokens(ids) != header) return DataLoss("its token ids fail their checksum");
  return ids;
}

absl::Status CatalogWriter::Put(RecordKind kind, std::string key, std::string_view body) {
  std::string record = SealRecord(kind, key, body);
  return Append({Change::kPut, std::move(key), std::move(record)});
}

absl::Status CatalogWriter::Append(CatalogDatabase::Change change) {
  bytes_ += change.key.size() + change.value.size();
  changes_.push_back(std::move(change));
  return bytes_ < kWriteBytes ? absl::OkStatus() : Write(/*sync=*/false);
}

absl::Status CatalogWriter::Finish() { return Write(/*sync=*/true); }

absl::Status CatalogWriter::Write(bool sync) {
  absl::Status status = database_->Write(changes_, sync);
  changes_.clear();
  bytes_ = 0;
  return status;
}

absl::Status WriteText(CatalogWriter* writer, const Hash256& content, std::string_view text) {
  for (uint64_t i = 0; i < ChunkCount(text.size(), kTextChunkBytes); ++i) {
    PALIMPSEST_RETURN_IF_ERROR(writer->Put(RecordKind::kText, TextChunkKey(content, static_cast<uint32_t>(i)),
                                           text.substr(i * kTextChunkBytes, kTextChunkBytes)));
  }
  return absl::OkStatus();
}

// The header goes first and comes back last: without it chunks count as absent, so a crash between leaves no
// mix.
absl::Status WriteTokens(CatalogWriter* writer, const Hash256& content, const Hash256& tokenizer,
                         const std::vector<int32_t>& ids) {
  const std::string header_key = TokensKey(content, tokenizer);
  PALIMPSEST_RETURN_IF_ERROR(writer->Append({Change::kDeleteRange, header_key, PrefixEnd(header_key)}));
  for (uint64_t i = 0; i < ChunkCount(ids.size(), kTokenChunkTokens); ++i) {
    const std::string body =
        EncodeTokenChunk(ids.data() + i * kTokenChunkTokens, ChunkLength(ids.size(), kTokenChunkTokens, i));
    PALIMPSEST_RETURN_IF_ERROR(writer->Put(
        RecordKind::kTokenChunk, TokenChunkKey(content, tokenizer, static_cast<uint32_t>(i)), body));
  }
  return writer->Put(RecordKind::kTokens, header_key, EncodeTokens(DescribeTokens(ids)));
}

}  // namespace palimpsest
