#include "coordinator/catalog_record.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

const Hash256 kContent = Sha256("a text");
const Hash256 kTokenizer = Sha256("a tokenizer");

absl::StatusCode OpenCode(RecordKind kind, std::string_view key, std::string_view record) {
  return OpenRecord(kind, key, record).status().code();
}

TEST(CatalogRecordTest, WhatWasSealedIsOpened) {
  const std::string record = SealRecord(RecordKind::kText, "key", "body");
  const auto body = OpenRecord(RecordKind::kText, "key", record);
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_EQ(*body, "body");
  EXPECT_EQ(*OpenRecord(RecordKind::kFormat, "key", SealRecord(RecordKind::kFormat, "key", "")), "");
}

// On users' disks: version 1 stays readable.
TEST(CatalogRecordTest, VersionOneBytesAreFrozen) {
  std::string hex;
  for (char byte : SealRecord(RecordKind::kText, "key", "body"))
    hex += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  EXPECT_EQ(hex, "5043415401030000040000000000000097034b9abf3d173f3f585e3f4475a341626f6479");
}

TEST(CatalogRecordTest, EveryFlippedBitTruncationAndExtraByteIsDetected) {
  const std::string record = SealRecord(RecordKind::kText, "key", "a body of some bytes");
  for (size_t bit = 0; bit < 8 * record.size(); ++bit) {
    std::string damaged = record;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(OpenCode(RecordKind::kText, "key", damaged), absl::StatusCode::kDataLoss) << "bit " << bit;
  }
  for (size_t length = 0; length < record.size(); ++length) {
    EXPECT_EQ(OpenCode(RecordKind::kText, "key", record.substr(0, length)), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(OpenCode(RecordKind::kText, "key", record + 'x'), absl::StatusCode::kDataLoss);
}

TEST(CatalogRecordTest, ARecordUnderAnotherKeyOrOfAnotherKindIsDamage) {
  const std::string record = SealRecord(RecordKind::kText, "key", "body");
  EXPECT_EQ(OpenCode(RecordKind::kText, "kez", record), absl::StatusCode::kDataLoss);
  EXPECT_EQ(OpenCode(RecordKind::kText, "ke", record), absl::StatusCode::kDataLoss);
  EXPECT_EQ(OpenCode(RecordKind::kTokenChunk, "key", record), absl::StatusCode::kDataLoss);
}

TEST(CatalogRecordTest, ANewerFormatIsNotDamage) {
  std::string record = SealRecord(RecordKind::kFormat, FormatKey(), "");
  record[4] = 2;
  EXPECT_EQ(OpenCode(RecordKind::kFormat, FormatKey(), record), absl::StatusCode::kFailedPrecondition);
}

TEST(CatalogRecordTest, InfoAndTokensComeBack) {
  const InfoRecord info = {
      .text_bytes = 123, .tokens = 45, .created_unix_ms = -6, .path = "a/b \xff", .tenant = ""};
  EXPECT_EQ(*DecodeInfo(EncodeInfo(info)), info);
  InfoRecord owned = info;
  owned.tenant = "team";
  EXPECT_EQ(*DecodeInfo(EncodeInfo(owned)), owned);
  const std::vector<int32_t> ids = {1, 2, 49151};
  EXPECT_EQ(*DecodeTokens(EncodeTokens(DescribeTokens(ids))), DescribeTokens(ids));
  std::vector<int32_t> back = {7};
  ASSERT_TRUE(AppendTokenChunk(EncodeTokenChunk(ids.data(), 3), 3, &back).ok());
  EXPECT_EQ(back, (std::vector<int32_t>{7, 1, 2, 49151}));
  std::vector<int32_t> none;
  EXPECT_TRUE(AppendTokenChunk("", 0, &none).ok());
}

TEST(CatalogRecordTest, FieldsOutsideTheirLimitsAreDamage) {
  const InfoRecord good = {.text_bytes = 1, .tokens = 0, .created_unix_ms = 0, .path = "p", .tenant = ""};
  ASSERT_TRUE(DecodeInfo(EncodeInfo(good)).ok());
  InfoRecord bad = good;
  bad.text_bytes = 0;
  EXPECT_FALSE(DecodeInfo(EncodeInfo(bad)).ok());
  bad.text_bytes = kTextBytesMax + 1;
  EXPECT_FALSE(DecodeInfo(EncodeInfo(bad)).ok());
  bad = good;
  bad.tokens = kTokensMax + 1;
  EXPECT_FALSE(DecodeInfo(EncodeInfo(bad)).ok());
  bad = good;
  bad.path.assign(kPathBytesMax + 1, 'p');
  EXPECT_FALSE(DecodeInfo(EncodeInfo(bad)).ok());
  bad = good;
  bad.tenant.assign(kTenantBytesMax + 1, 't');
  EXPECT_FALSE(DecodeInfo(EncodeInfo(bad)).ok());
  EXPECT_FALSE(DecodeInfo(EncodeInfo(good) + 'x').ok());
  EXPECT_FALSE(DecodeInfo(EncodeInfo(good) + std::string(4, '\0')).ok()) << "an empty name is not written";
  EXPECT_FALSE(DecodeInfo(EncodeInfo(good).substr(0, 20)).ok());
  EXPECT_FALSE(DecodeTokens(EncodeTokens({.tokens = kTokensMax + 1})).ok());
  EXPECT_FALSE(DecodeTokens("short").ok());
  std::vector<int32_t> ids;
  EXPECT_FALSE(AppendTokenChunk("12345678", 3, &ids).ok());
}

TEST(CatalogRecordTest, ADocumentsKeysAreNeighboursInOrder) {
  const std::string begin = ContentPrefix(kContent), end = PrefixEnd(begin);
  std::string before = begin;
  for (const std::string& key : {TokensKey(kContent, kTokenizer), TokenChunkKey(kContent, kTokenizer, 0),
                                 TokenChunkKey(kContent, kTokenizer, 300), TextChunkKey(kContent, 0),
                                 TextChunkKey(kContent, 255), TextChunkKey(kContent, 256)}) {
    EXPECT_LT(before, key);
    EXPECT_LT(key, end);
    EXPECT_EQ(ContentOfKey(key), kContent);
    before = key;
  }
  EXPECT_EQ(ContentOfKey(InfoKey(kContent)), kContent);
  EXPECT_EQ(ContentOfKey(FormatKey()), std::nullopt);
  EXPECT_EQ(ContentOfKey("i too short"), std::nullopt);
}

TEST(CatalogRecordTest, APrefixEndsBehindAllThatBeginWithIt) {
  EXPECT_EQ(PrefixEnd("ab"), "ac");
  EXPECT_EQ(PrefixEnd("a\xff\xff"), "b");
}

TEST(CatalogRecordTest, ChunksCoverTheWhole) {
  EXPECT_EQ(ChunkCount(1, 10), 1u);
  EXPECT_EQ(ChunkCount(10, 10), 1u);
  EXPECT_EQ(ChunkCount(11, 10), 2u);
  EXPECT_EQ(ChunkLength(11, 10, 0), 10u);
  EXPECT_EQ(ChunkLength(11, 10, 1), 1u);
  EXPECT_EQ(ChunkLength(10, 10, 0), 10u);
}

}  // namespace
}  // namespace palimpsest
