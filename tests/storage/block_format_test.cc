#include "storage/block_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "kernels/tensor.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr int64_t kD = 16;

Bytes BytesOf(const std::vector<float>& x) {
  Bytes bytes(2 * x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const Bf16 one = FloatToBf16(x[i]);
    std::memcpy(bytes.data() + 2 * i, &one, 2);
  }
  return bytes;
}
std::vector<float> FloatsOf(const Bytes& bytes) {
  std::vector<float> x(bytes.size() / 2);
  for (size_t i = 0; i < x.size(); ++i) {
    Bf16 one;
    std::memcpy(&one, bytes.data() + 2 * i, 2);
    x[i] = Bf16ToFloat(one);
  }
  return x;
}

class BlockFormatTest : public ::testing::TestWithParam<BlockFormat> {
 protected:
  // (2, tokens, kD): keys with channels of very different size and offset, values likewise by token.
  static std::vector<float> Tile(int64_t tokens, uint64_t seed) {
    RngSequence random{Rng(seed)};
    std::vector<float> x(static_cast<size_t>(2 * tokens * kD));
    for (size_t i = 0; i < x.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / kD, channel = static_cast<int64_t>(i) % kD;
      const int64_t group = row < tokens ? channel : row % 7;
      const float size = std::ldexp(1.0f, static_cast<int>(group) - 4);
      const float u = static_cast<float>(random.Below(20001)) / 10000.0f - 1;
      x[i] = size * (u + static_cast<float>(group % 3) - 1);
    }
    return FloatsOf(BytesOf(x));
  }
  static Bytes Encode(const std::vector<float>& x) {
    const int64_t tokens = static_cast<int64_t>(x.size()) / 2 / kD;
    Bytes out(TilePayloadBytes(GetParam(), tokens, kD));
    EXPECT_TRUE(EncodeTile(GetParam(), tokens, kD, BytesOf(x), out));
    return out;
  }
  static std::vector<float> Decode(const Bytes& bytes, int64_t tokens) {
    Bytes out(TilePayloadBytes(BlockFormat::kBf16, tokens, kD));
    EXPECT_TRUE(DecodeTile(GetParam(), tokens, kD, bytes, out).ok());
    return FloatsOf(out);
  }
  static int Levels() { return GetParam() == BlockFormat::kInt8 ? 255 : 15; }
};

// Half a step of the group, and what bf16 rounds away of step, low and result.
TEST_P(BlockFormatTest, NothingIsFartherThanHalfAStep) {
  for (const int64_t tokens : {1, 2, 63, 64}) {
    const std::vector<float> x = Tile(tokens, 3 + static_cast<uint64_t>(tokens));
    const std::vector<float> y = Decode(Encode(x), tokens);
    for (size_t i = 0; i < x.size(); ++i) {
      if (GetParam() == BlockFormat::kBf16) {
        EXPECT_EQ(x[i], y[i]);
        continue;
      }
      const int64_t row = static_cast<int64_t>(i) / kD, channel = static_cast<int64_t>(i) % kD;
      float low = x[i], high = x[i], size = 0;
      for (int64_t j = 0; j < (row < tokens ? tokens : kD); ++j) {
        const float other = x[static_cast<size_t>(row < tokens ? j * kD + channel : row * kD + j)];
        low = std::min(low, other);
        high = std::max(high, other);
        size = std::max(size, std::abs(other));
      }
      const double step = 1.01 * (high - low + size / 128) / Levels();
      EXPECT_LE(std::abs(x[i] - y[i]), 0.5 * step + std::abs(x[i]) / 256) << tokens << " " << i;
    }
  }
}

TEST_P(BlockFormatTest, AGroupOfEqualNumbersStaysAndAGridIsExact) {
  std::vector<float> x(static_cast<size_t>(2 * 4 * kD), 0.5f);
  EXPECT_EQ(Decode(Encode(x), 4), x);
  for (size_t i = 0; i < x.size() / 2; ++i) {
    const size_t row = i / kD;
    x[i] = static_cast<float>(row * 5);  // 0 5 10 15 in each channel
  }
  for (size_t i = x.size() / 2; i < x.size(); ++i) x[i] = static_cast<float>(i % kD);  // 0 ... 15 in each row
  if (GetParam() == BlockFormat::kInt4) {
    EXPECT_EQ(Decode(Encode(x), 4), x);
  }
  std::fill(x.begin(), x.end(), 0.0f);
  EXPECT_EQ(Decode(Encode(x), 4), x);
}

TEST_P(BlockFormatTest, EncodingWhatWasDecodedChangesNothingMore) {
  const std::vector<float> x = Tile(64, 11), once = Decode(Encode(x), 64), twice = Decode(Encode(once), 64);
  double first = 0, second = 0, all = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    first += std::pow(x[i] - once[i], 2);
    second += std::pow(once[i] - twice[i], 2);
    all += std::pow(x[i], 2);
  }
  EXPECT_LE(second, first + 1e-12);
  EXPECT_LE(std::sqrt(first / all), GetParam() == BlockFormat::kInt4 ? 0.06 : 0.006);
}

TEST_P(BlockFormatTest, WhatIsNotFiniteStaysAsItIs) {
  if (GetParam() == BlockFormat::kBf16) GTEST_SKIP() << "bf16 holds them";
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t at : {size_t{5}, static_cast<size_t>(3 * kD + 1)}) {
      std::vector<float> x(static_cast<size_t>(2 * 2 * kD), 1.0f);
      x[at] = bad;
      Bytes out(TilePayloadBytes(GetParam(), 2, kD));
      EXPECT_FALSE(EncodeTile(GetParam(), 2, kD, BytesOf(x), out)) << bad << " " << at;
    }
  }
  std::vector<float> wide(static_cast<size_t>(2 * 2 * kD), 3.3e38f);
  for (size_t i = 0; i < wide.size(); i += 3) wide[i] = -3.3e38f;
  Bytes out(TilePayloadBytes(GetParam(), 2, kD));
  EXPECT_FALSE(EncodeTile(GetParam(), 2, kD, BytesOf(wide), out)) << "the range is no float";
}

TEST_P(BlockFormatTest, DamagedBytesAreRefusedOrDecodeToNumbers) {
  const Bytes right = Encode(Tile(8, 5));
  Bytes out(TilePayloadBytes(BlockFormat::kBf16, 8, kD));
  for (const size_t size : {size_t{0}, size_t{1}, right.size() - 1, right.size() + 1}) {
    Bytes cut = right;
    cut.resize(size);
    EXPECT_EQ(DecodeTile(GetParam(), 8, kD, cut, out).code(), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_EQ(DecodeTile(GetParam(), 0, kD, {}, {}).code(), absl::StatusCode::kDataLoss);
  if (GetParam() == BlockFormat::kBf16) return;
  Bytes bad = right;
  bad[0] = bad[1] = 0xff;  // low is not a number
  EXPECT_EQ(DecodeTile(GetParam(), 8, kD, bad, out).code(), absl::StatusCode::kDataLoss);
  bad = right;
  bad[3] |= 0x80;  // a negative step
  bad[2] |= 1;
  EXPECT_EQ(DecodeTile(GetParam(), 8, kD, bad, out).code(), absl::StatusCode::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(All, BlockFormatTest,
                         ::testing::Values(BlockFormat::kBf16, BlockFormat::kInt8, BlockFormat::kInt4),
                         [](const auto& one) { return std::string(BlockFormatName(one.param)); });

// What lies on disks. A change here makes every stored tile of the format another's: give it another number.
TEST_P(BlockFormatTest, TheBytesOfVersionOne) {
  const Bytes bytes = Encode(Tile(64, 7));
  const std::string hash = Sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()}).ToHex();
  const std::map<BlockFormat, std::string> written = {
      {BlockFormat::kBf16, "a6c414193db3cde3ed06dc28c2c8ff898b1469b0a78f07f21ea5f00eea278cdd"},
      {BlockFormat::kInt8, "5c1c0f137ab55db9517c077a60c93fdc4f4addc577f3841a10b08c65ba83ea82"},
      {BlockFormat::kInt4, "e7fb73e62f5e5bd823a39399903da65934752bcfc8e261a0e76142add32907f6"}};
  EXPECT_EQ(hash, written.at(GetParam()));
}

TEST(BlockFormatNamesTest, AreReadBack) {
  for (const char* name : {"bf16", "int8", "int4"}) EXPECT_EQ(BlockFormatName(*ParseBlockFormat(name)), name);
  EXPECT_FALSE(ParseBlockFormat("int2").has_value());
}

// What docs/storage.md says of the room they take.
TEST(BlockFormatSizesTest, OfATileOfTheQuickStartModel) {
  EXPECT_EQ(TilePayloadBytes(BlockFormat::kBf16, 64, 64), 16384u);
  EXPECT_EQ(TilePayloadBytes(BlockFormat::kInt8, 64, 64), 8704u);
  EXPECT_EQ(TilePayloadBytes(BlockFormat::kInt4, 64, 64), 4608u);
}

}  // namespace
}  // namespace palimpsest
