#include "storage/envelope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "tests/storage/golden_tiles.h"

namespace palimpsest {
namespace {

using absl::StatusCode;

const BlockId kId{Sha256("a block")};
const TileGeometry kGeometry = {
    .layers = 5, .kv_heads = 3, .layer = 2, .kv_head = 1, .head_size = 4, .tokens = 5, .format = kTileBf16};
constexpr size_t kPayloadBytes = 80;

std::shared_ptr<DataKey> Key(uint8_t first, uint32_t number) {
  return DataKey::FromBytes(GoldenKey(first).bytes, number);
}

std::vector<uint8_t> Payload(size_t bytes, uint8_t seed = 0) {
  std::vector<uint8_t> payload(bytes);
  for (size_t i = 0; i < bytes; ++i) payload[i] = static_cast<uint8_t>(7 * i + seed);
  return payload;
}

// Both algorithms: what holds of the one holds of the other.
class EnvelopeTest : public testing::TestWithParam<bool> {
 protected:
  std::vector<uint8_t> Sealed(size_t payload_bytes = kPayloadBytes, const BlockId& id = kId,
                              const TileGeometry& geometry = kGeometry, uint8_t seed = 0) {
    std::vector<uint8_t> envelope(kEnvelopeHeaderBytes);
    const std::vector<uint8_t> payload = Payload(payload_bytes, seed);
    envelope.insert(envelope.end(), payload.begin(), payload.end());
    SealTile(id, geometry, envelope, encrypted() ? key_.get() : nullptr);
    return envelope;
  }
  absl::StatusOr<OpenedTile> Verify(std::span<const uint8_t> bytes) {
    return VerifyTile(bytes, key_.get(), &plain_);
  }
  absl::StatusOr<OpenedTile> Open(std::span<const uint8_t> bytes, const BlockId& id = kId,
                                  const TileGeometry& geometry = kGeometry) {
    return OpenTile(id, geometry, bytes, key_.get(), &plain_);
  }
  bool encrypted() const { return GetParam(); }

  const std::shared_ptr<DataKey> key_ = Key(1, 77);
  std::vector<uint8_t> plain_;
};

INSTANTIATE_TEST_SUITE_P(, EnvelopeTest, testing::Bool(),
                         [](const auto& p) { return p.param ? "Aes256Gcm" : "Xxh3"; });

TEST_P(EnvelopeTest, WhatWasSealedIsOpened) {
  for (const size_t bytes : {size_t{1}, size_t{15}, size_t{16}, kPayloadBytes, size_t{16384}}) {
    const std::vector<uint8_t> envelope = Sealed(bytes), payload = Payload(bytes);
    const auto opened = Open(envelope);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->id, kId);
    EXPECT_EQ(opened->geometry, kGeometry);
    EXPECT_EQ(std::vector<uint8_t>(opened->payload.begin(), opened->payload.end()), payload);
    const uint8_t* in_place = envelope.data() + kEnvelopeHeaderBytes;
    EXPECT_EQ(opened->payload.data(), encrypted() ? plain_.data() : in_place);
    std::vector<uint8_t> to(bytes, 0xee);
    ASSERT_TRUE(OpenTileInto(kId, kGeometry, envelope, key_.get(), to).ok());
    EXPECT_EQ(to, payload);
  }
}

TEST_P(EnvelopeTest, AnEncryptedPayloadIsNotThePlainOne) {
  const std::vector<uint8_t> envelope = Sealed(), payload = Payload(kPayloadBytes);
  const auto found = std::search(envelope.begin(), envelope.end(), payload.begin(), payload.begin() + 8);
  EXPECT_EQ(found == envelope.end(), encrypted());
}

TEST_P(EnvelopeTest, WithoutAKeyOnlyAChecksumIsRead) {
  const std::vector<uint8_t> envelope = Sealed();
  EXPECT_EQ(VerifyTile(envelope, nullptr, nullptr).status().code(),
            encrypted() ? StatusCode::kFailedPrecondition : StatusCode::kOk);
}

// Else who can write the disk replaces a tile by one of his own, with a checksum that fits.
TEST_P(EnvelopeTest, WhereEncryptionIsRequiredAChecksumIsNotEnough) {
  const std::vector<uint8_t> envelope = Sealed();
  std::vector<uint8_t> to(kPayloadBytes, 0xee);
  const auto expected = encrypted() ? StatusCode::kOk : StatusCode::kFailedPrecondition;
  EXPECT_EQ(VerifyTile(envelope, key_.get(), &plain_, Require::kEncrypted).status().code(), expected);
  EXPECT_EQ(OpenTile(kId, kGeometry, envelope, key_.get(), &plain_, Require::kEncrypted).status().code(),
            expected);
  EXPECT_EQ(OpenTileInto(kId, kGeometry, envelope, key_.get(), to, Require::kEncrypted).code(), expected);
  EXPECT_EQ(to, encrypted() ? Payload(kPayloadBytes) : std::vector<uint8_t>(kPayloadBytes, 0xee));
}

// F2: every bit of a small tile, then 2,000 random ones of one of 16 KiB.
TEST_P(EnvelopeTest, EveryFlippedBitIsDetected) {
  std::vector<uint8_t> envelope = Sealed(), to(kPayloadBytes);
  for (size_t bit = 0; bit < 8 * envelope.size(); ++bit) {
    const auto flip = static_cast<uint8_t>(1u << (bit % 8));
    envelope[bit / 8] ^= flip;
    EXPECT_FALSE(Verify(envelope).ok()) << "bit " << bit;
    EXPECT_FALSE(Open(envelope).ok()) << "bit " << bit;
    EXPECT_FALSE(OpenTileInto(kId, kGeometry, envelope, key_.get(), to).ok()) << "bit " << bit;
    EXPECT_EQ(to, std::vector<uint8_t>(kPayloadBytes, 0)) << "bit " << bit;
    envelope[bit / 8] ^= flip;
  }
  EXPECT_TRUE(Verify(envelope).ok());
}

TEST_P(EnvelopeTest, TwoThousandRandomFlipsAreDetected) {
  std::mt19937_64 random(2);
  std::vector<uint8_t> envelope = Sealed(16384);
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    const size_t bit = random() % (8 * envelope.size());
    envelope[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    accepted += Verify(envelope).ok();
    envelope[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
  EXPECT_EQ(accepted, 0);
}

TEST_P(EnvelopeTest, EveryTruncationAndAnyExtraByteIsDetected) {
  std::vector<uint8_t> envelope = Sealed();
  for (size_t length = 0; length < envelope.size(); ++length) {
    // A copy of exactly this length, so that a sanitizer sees a read beyond it.
    const std::vector<uint8_t> cut(envelope.begin(), envelope.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(Verify(cut).status().code(), StatusCode::kDataLoss) << length << " bytes";
  }
  envelope.push_back(0);
  EXPECT_EQ(Verify(envelope).status().code(), StatusCode::kDataLoss);
}

// F4: what is cut, or torn, at a sector of 512 bytes; torn, zeros stand behind.
TEST_P(EnvelopeTest, AWriteTornAtASectorIsDetected) {
  const std::vector<uint8_t> envelope = Sealed(64 * 1024);
  for (size_t boundary = 0; boundary < envelope.size(); boundary += 512) {
    EXPECT_FALSE(Verify(std::span(envelope).first(boundary)).ok()) << boundary;
    std::vector<uint8_t> torn = envelope;
    std::fill(torn.begin() + static_cast<std::ptrdiff_t>(boundary), torn.end(), uint8_t{0});
    EXPECT_FALSE(Verify(torn).ok()) << boundary;
  }
}

// F3: 1,000 whole tiles, each found where another belongs: of another block, layer, KV head or length.
TEST_P(EnvelopeTest, SwappedTilesAreRejected) {
  constexpr int kTiles = 1000;
  const auto id_of = [](int i) { return BlockId{Sha256("block " + std::to_string(i / 15))}; };
  const auto geometry_of = [](int i) {
    TileGeometry g = kGeometry;
    g.layer = i % 5;
    g.kv_head = i / 5 % 3;
    return g;
  };
  std::vector<std::vector<uint8_t>> tiles;
  tiles.reserve(kTiles);
  for (int i = 0; i < kTiles; ++i)
    tiles.push_back(Sealed(kPayloadBytes, id_of(i), geometry_of(i), static_cast<uint8_t>(i)));
  std::mt19937_64 random(3);
  int accepted = 0;
  std::vector<uint8_t> to(kPayloadBytes);
  for (int i = 0; i < kTiles; ++i) {
    const int other = (i + 1 + static_cast<int>(random() % (kTiles - 1))) % kTiles;
    ASSERT_TRUE(Open(tiles[i], id_of(i), geometry_of(i)).ok());
    const auto opened = Open(tiles[other], id_of(i), geometry_of(i));
    accepted += opened.ok();
    EXPECT_EQ(opened.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_FALSE(OpenTileInto(id_of(i), geometry_of(i), tiles[other], key_.get(), to).ok());
    EXPECT_EQ(to, std::vector<uint8_t>(kPayloadBytes, 0)) << "another tile's numbers";
  }
  EXPECT_EQ(accepted, 0);
}

TEST_P(EnvelopeTest, ExchangedHeadersOrPayloadsAreDetected) {
  const std::vector<uint8_t> one = Sealed(), two = Sealed(kPayloadBytes, kId, kGeometry, 9);
  std::vector<uint8_t> mixed = one;
  std::copy(two.begin() + kEnvelopeHeaderBytes, two.end(), mixed.begin() + kEnvelopeHeaderBytes);
  EXPECT_EQ(Verify(mixed).status().code(), StatusCode::kDataLoss);
}

TEST_P(EnvelopeTest, AMisplacedTileIsNamed) {
  const std::vector<uint8_t> envelope = Sealed();
  const BlockId other{Sha256("another block")};
  const auto opened = Open(envelope, other);
  EXPECT_EQ(opened.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(opened.status()),
            "block " + other.ToHex() + " was asked for and block " + kId.ToHex() + " found in its place");
}

TEST_P(EnvelopeTest, AnyOtherGeometryIsRejected) {
  const std::vector<uint8_t> envelope = Sealed();
  const auto expect_rejected = [&](int32_t TileGeometry::*field, int32_t value) {
    TileGeometry g = kGeometry;
    g.*field = value;
    EXPECT_EQ(Open(envelope, kId, g).status().code(), StatusCode::kFailedPrecondition);
  };
  expect_rejected(&TileGeometry::layers, 6);
  expect_rejected(&TileGeometry::kv_heads, 4);
  expect_rejected(&TileGeometry::layer, 3);
  expect_rejected(&TileGeometry::kv_head, 0);
  expect_rejected(&TileGeometry::head_size, 8);
  expect_rejected(&TileGeometry::tokens, 6);
  TileGeometry g = kGeometry;
  g.format = kTileInt8;
  EXPECT_EQ(Open(envelope, kId, g).status().code(), StatusCode::kFailedPrecondition);
}

TEST_P(EnvelopeTest, APayloadOfAnotherSizeThanTheReadersIsRejected) {
  const std::vector<uint8_t> envelope = Sealed();
  for (const size_t bytes : {size_t{0}, kPayloadBytes - 1, kPayloadBytes + 1}) {
    std::vector<uint8_t> to(bytes, 0xee);
    EXPECT_EQ(OpenTileInto(kId, kGeometry, envelope, key_.get(), to).code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(to, std::vector<uint8_t>(bytes, 0xee));
  }
}

// F11: a newer program's value is a miss with a reason, not damage.
TEST_P(EnvelopeTest, AnotherVersionOrAlgorithmSaysWhatThisBuildReads) {
  std::vector<uint8_t> envelope = Sealed();
  envelope[8] = 2;
  auto status = Verify(envelope).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status), "envelope version 2: this build reads version 1");
  envelope[8] = 1;
  envelope[10] = 3;
  status = Verify(envelope).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status), "envelope algorithm 3: this build reads 1 (XXH3-128) and 2 (AES-256-GCM)");
}

TEST_P(EnvelopeTest, RandomBytesAreNoEnvelope) {
  std::mt19937_64 random(3);
  const std::vector<uint8_t> sealed = Sealed();
  const std::vector<uint8_t> magic(sealed.begin(), sealed.begin() + 11);
  for (int i = 0; i < 10000; ++i) {
    std::vector<uint8_t> bytes(random() % 400);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    if (i % 2 == 0 && bytes.size() > magic.size()) std::copy(magic.begin(), magic.end(), bytes.begin());
    ASSERT_FALSE(Verify(bytes).ok());
  }
}

std::vector<uint8_t> Encrypted(DataKey* key) {
  std::vector<uint8_t> envelope(kEnvelopeHeaderBytes + kPayloadBytes);
  SealTile(kId, kGeometry, envelope, key);
  return envelope;
}

TEST(EnvelopeKeyTest, AKeyOfAnotherNumberSaysBoth) {
  const auto ours = Key(1, 77), other = Key(1, 78);
  std::vector<uint8_t> plain;
  const auto opened = VerifyTile(Encrypted(ours.get()), other.get(), &plain);
  EXPECT_EQ(opened.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(opened.status()),
            "tile of block " + kId.ToHex() + " is encrypted with key 77; this is key 78");
}

TEST(EnvelopeKeyTest, AnotherKeyOfTheSameNumberIsDataLoss) {
  const auto ours = Key(1, 77), other = Key(2, 77);
  std::vector<uint8_t> plain;
  EXPECT_EQ(VerifyTile(Encrypted(ours.get()), other.get(), &plain).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(plain, std::vector<uint8_t>(kPayloadBytes, 0)) << "what it decrypted to is not shown";
}

// Whoever has the key may still be a producer with other rules.
TEST(EnvelopeKeyTest, FieldsOutsideTheirLimitsAreDataLossThoughTheTagFits) {
  const std::shared_ptr<DataKey> key = Key(1, 77);
  struct Field {
    size_t at;
    uint32_t value;
  };
  // format, layer (twice), KV head, head size, tokens, layers, KV heads, unused bytes
  for (const Field& field : {Field{12, 0},
                             {48, 5},
                             {48, 0xffffffff},
                             {52, 3},
                             {56, 0},
                             {60, 0},
                             {88, 0},
                             {92, 0x7fffffff},
                             {96, 1}}) {
    std::vector<uint8_t> envelope(kEnvelopeHeaderBytes);
    const std::vector<uint8_t> payload = Payload(kPayloadBytes);
    envelope.insert(envelope.end(), payload.begin(), payload.end());
    SealTile(kId, kGeometry, envelope, key.get());
    std::memcpy(envelope.data() + field.at, &field.value, sizeof field.value);
    std::copy(payload.begin(), payload.end(), envelope.begin() + kEnvelopeHeaderBytes);
    const DataKey::Nonce nonce = key->NextNonce();
    std::copy(nonce.begin(), nonce.end(), envelope.begin() + 72);
    const DataKey::Tag tag = key->Encrypt(nonce, std::span(envelope).first(112),
                                          std::span(envelope).subspan(kEnvelopeHeaderBytes));
    std::copy(tag.begin(), tag.end(), envelope.begin() + 112);
    std::vector<uint8_t> plain;
    const auto status = VerifyTile(envelope, key.get(), &plain).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << field.at << " " << field.value;
    EXPECT_NE(Message(status).find("outside their limits"), std::string::npos) << status;
  }
}

TEST(EnvelopeKeyTest, NoTwoSealsShareANonce) {
  constexpr int kThreads = 4, kSeals = 20000;
  const auto key = Key(1, 77);
  std::mutex mu;
  std::set<DataKey::Nonce> nonces;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      std::set<DataKey::Nonce> mine;
      std::vector<uint8_t> plain;
      for (int i = 0; i < kSeals; ++i) {
        const std::vector<uint8_t> envelope = Encrypted(key.get());
        EXPECT_TRUE(VerifyTile(envelope, key.get(), &plain).ok());
        DataKey::Nonce nonce;
        std::copy_n(envelope.begin() + 72, nonce.size(), nonce.begin());
        mine.insert(nonce);
      }
      const std::lock_guard lock(mu);
      nonces.merge(mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(nonces.size(), size_t{kThreads} * kSeals);
}

std::vector<uint8_t> ReadGolden(const std::string& name) {
  std::ifstream in(std::string(PALIMPSEST_SOURCE_DIR) + "/tests/storage/golden/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The layout is on users' disks: these bytes were written by version 1 and must stay readable.
TEST(EnvelopeGoldenTest, VersionOneIsReadAndWrittenBitForBit) {
  for (const GoldenFile& file : GoldenFiles()) EXPECT_EQ(ReadGolden(file.name), file.bytes) << file.name;
  for (const char* name : {"tile_v1_xxh3.bin", "tile_v1_aes256gcm.bin"}) {
    std::vector<uint8_t> to(GoldenPayload().size());
    const auto status = OpenTileInto(kGoldenId, kGoldenGeometry, ReadGolden(name), GoldenDataKey().get(), to);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(to, GoldenPayload());
  }
}

TEST(EnvelopeGoldenTest, PicksHaveAGeometryOfTheirOwn) {
  std::vector<uint8_t> envelope(kEnvelopeHeaderBytes + 3), to(3);
  SealTile(kId, kPicksGeometry, envelope, nullptr);
  EXPECT_TRUE(OpenTileInto(kId, kPicksGeometry, envelope, nullptr, to).ok());
}

TEST(EnvelopeDeathTest, SealingWithoutPayloadOrOutsideTheModelIsABug) {
  std::vector<uint8_t> header_only(kEnvelopeHeaderBytes);
  EXPECT_DEATH(SealTile(kId, kGeometry, header_only, nullptr), "envelope of 128 bytes");
  std::vector<uint8_t> room(kEnvelopeHeaderBytes + 1);
  TileGeometry g = kGeometry;
  g.tokens = 0;
  EXPECT_DEATH(SealTile(kId, g, room, nullptr), "tokens 0");
  g = kGeometry;
  g.layer = g.layers;
  EXPECT_DEATH(SealTile(kId, g, room, nullptr), "layer 5 of 5");
}

}  // namespace
}  // namespace palimpsest
