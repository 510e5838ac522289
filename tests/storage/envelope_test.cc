#include "storage/envelope.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

const BlockId kId{Sha256("a block")};
const BlockGeometry kGeometry = {.layers = 2, .kv_heads = 3, .head_size = 4, .tokens = 5, .format = 1};

std::vector<uint8_t> Sealed(size_t payload_bytes = 40) {
  std::vector<uint8_t> envelope(kEnvelopeHeaderBytes + payload_bytes);
  for (size_t i = 0; i < payload_bytes; ++i) envelope[kEnvelopeHeaderBytes + i] = static_cast<uint8_t>(7 * i);
  SealEnvelope(kId, kGeometry, envelope);
  return envelope;
}

TEST(EnvelopeTest, WhatWasSealedIsOpened) {
  const std::vector<uint8_t> envelope = Sealed();
  const auto opened = OpenEnvelope(kId, kGeometry, envelope);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->id, kId);
  EXPECT_EQ(opened->geometry, kGeometry);
  EXPECT_EQ(opened->payload.data(), envelope.data() + kEnvelopeHeaderBytes);
  EXPECT_EQ(opened->payload.size(), 40u);
}

TEST(EnvelopeTest, AHeaderForPartsSealsTheJoinedPayload) {
  const std::vector<uint8_t> whole = Sealed(100);
  const auto payload = std::span<const uint8_t>(whole).subspan(kEnvelopeHeaderBytes);
  const std::vector<std::span<const uint8_t>> parts = {payload.first(1), payload.subspan(1, 0),
                                                       payload.subspan(1, 63), payload.subspan(64)};
  EXPECT_EQ(SealHeader(kId, kGeometry, parts),
            std::vector<uint8_t>(whole.begin(), whole.begin() + kEnvelopeHeaderBytes));
}

// The layout is on users' disks: these bytes were written by version 1 and must stay readable.
TEST(EnvelopeTest, VersionOneBytesAreFrozen) {
  std::string hex;
  for (uint8_t byte : Sealed(8)) hex += fmt::format("{:02x}", byte);
  EXPECT_EQ(hex,
            "504c4d5053424c4b"
            "0100"
            "01"
            "00"
            "01000000" +
                kId.ToHex() +
                "02000000"
                "03000000"
                "04000000"
                "05000000"
                "0800000000000000"
                "000000000000000000000000"
                "00000000"
                "000000000000000000000000000000000000000000000000"
                "f19cc045c5fbb11b5aaff5c6cfb4fdb0"
                "00070e151c232a31");
}

// F2: every bit of header, tag and payload.
TEST(EnvelopeTest, EveryFlippedBitIsDetected) {
  const std::vector<uint8_t> envelope = Sealed();
  for (size_t bit = 0; bit < 8 * envelope.size(); ++bit) {
    std::vector<uint8_t> damaged = envelope;
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    EXPECT_FALSE(VerifyEnvelope(damaged).ok()) << "bit " << bit;
    EXPECT_FALSE(OpenEnvelope(kId, kGeometry, damaged).ok()) << "bit " << bit;
  }
}

TEST(EnvelopeTest, EveryTruncationAndAnyExtraByteIsDetected) {
  std::vector<uint8_t> envelope = Sealed();
  for (size_t length = 0; length < envelope.size(); ++length) {
    // A copy of exactly this length, so that a sanitizer sees a read beyond it.
    const std::vector<uint8_t> cut(envelope.begin(), envelope.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(VerifyEnvelope(cut).status().code(), absl::StatusCode::kDataLoss) << length << " bytes";
  }
  envelope.push_back(0);
  EXPECT_EQ(VerifyEnvelope(envelope).status().code(), absl::StatusCode::kDataLoss);
}

// F4: what a torn write of 512-byte sectors leaves, with zeros or with the old content behind.
TEST(EnvelopeTest, AWriteTornAtASectorIsDetected) {
  const std::vector<uint8_t> envelope = Sealed(64 * 1024);
  for (size_t boundary = 0; boundary < envelope.size(); boundary += 512) {
    std::vector<uint8_t> torn = envelope;
    std::fill(torn.begin() + static_cast<std::ptrdiff_t>(boundary), torn.end(), uint8_t{0});
    EXPECT_FALSE(VerifyEnvelope(torn).ok()) << boundary;
  }
}

// F3: a whole value under another id.
TEST(EnvelopeTest, AMisplacedBlockIsRejected) {
  const std::vector<uint8_t> envelope = Sealed();
  for (int i = 0; i < 1000; ++i) {
    const BlockId other{Sha256("another block " + std::to_string(i))};
    const auto opened = OpenEnvelope(other, kGeometry, envelope);
    ASSERT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
    ASSERT_NE(Message(opened.status()).find(other.ToHex()), std::string::npos);
  }
}

TEST(EnvelopeTest, AnyOtherGeometryIsRejected) {
  const std::vector<uint8_t> envelope = Sealed();
  const auto expect_rejected = [&](BlockGeometry geometry) {
    const auto opened = OpenEnvelope(kId, geometry, envelope);
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition) << opened.status();
  };
  BlockGeometry g = kGeometry;
  g.layers = 3;
  expect_rejected(g);
  g = kGeometry;
  g.kv_heads = 2;  // and head size 6 would be as many bytes
  g.head_size = 6;
  expect_rejected(g);
  g = kGeometry;
  g.tokens = 6;
  expect_rejected(g);
  g = kGeometry;
  g.format = 2;
  expect_rejected(g);
}

// F11: a newer program's value is a miss with a reason, not damage.
TEST(EnvelopeTest, AnotherVersionOrAlgorithmSaysWhatThisBuildReads) {
  std::vector<uint8_t> envelope = Sealed();
  envelope[8] = 2;
  auto status = VerifyEnvelope(envelope).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status), "envelope version 2: this build reads version 1");
  envelope[8] = 1;
  envelope[10] = 2;
  status = VerifyEnvelope(envelope).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status), "envelope algorithm 2: this build reads 1 (XXH3-128)");
}

TEST(EnvelopeTest, RandomBytesAreNoEnvelope) {
  std::mt19937_64 random(3);
  const std::vector<uint8_t> sealed = Sealed();
  const std::vector<uint8_t> magic(sealed.begin(), sealed.begin() + 11);
  for (int i = 0; i < 10000; ++i) {
    std::vector<uint8_t> bytes(random() % 400);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    if (i % 2 == 0 && bytes.size() > magic.size()) std::copy(magic.begin(), magic.end(), bytes.begin());
    ASSERT_FALSE(VerifyEnvelope(bytes).ok());
  }
}

TEST(EnvelopeDeathTest, SealingWithoutPayloadOrDimensionIsABug) {
  std::vector<uint8_t> header_only(kEnvelopeHeaderBytes);
  EXPECT_DEATH(SealEnvelope(kId, kGeometry, header_only), "envelope of 128 bytes");
  std::vector<uint8_t> room(kEnvelopeHeaderBytes + 1);
  BlockGeometry g = kGeometry;
  g.tokens = 0;
  EXPECT_DEATH(SealEnvelope(kId, g, room), "tokens 0");
}

}  // namespace
}  // namespace palimpsest
