// From a tier's form to the open one, whatever pieces it comes in; and whatever is wrong with it is a miss.
#include "storage/value_opener.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "storage/block_format.h"
#include "tests/storage/mover_fixture.h"

namespace palimpsest {
namespace {

constexpr int kNumber = 5;
const BlockId kId = Key(kNumber).id;

struct Form {
  const char* name;
  BlockFormat format;
  bool encrypted;
};

void PrintTo(const Form& form, std::ostream* out) { *out << form.name; }

std::vector<uint8_t> Finite(uint32_t part) {
  std::vector<uint8_t> payload = Payload(kNumber, part);
  for (size_t i = 1; i < payload.size(); i += 2) payload[i] = 0x3f;  // bf16 from 0.5 to 1.99
  return payload;
}

class ValueOpenerTest : public ::testing::TestWithParam<Form> {
 protected:
  const DataKey* key() const { return GetParam().encrypted ? key_.get() : nullptr; }

  // As a tier holds it, and as it should come out.
  std::vector<uint8_t> InTier() const {
    std::vector<uint8_t> payloads;
    std::vector<OpenedTile> tiles;
    for (uint32_t part = 0; part < kParts; ++part) {
      const std::vector<uint8_t> payload = Finite(part);
      payloads.insert(payloads.end(), payload.begin(), payload.end());
    }
    for (uint32_t part = 0; part < kParts; ++part)
      tiles.push_back({kId, Geometry(part), std::span(payloads).subspan(part * kPayload, kPayload)});
    std::vector<uint8_t> value;
    if (GetParam().format != BlockFormat::kBf16) {
      value = InTierFormat(&tiles, GetParam().format);
    } else {
      for (const OpenedTile& tile : tiles) {
        value.resize(value.size() + kEnvelopeHeaderBytes);
        value.insert(value.end(), tile.payload.begin(), tile.payload.end());
      }
    }
    const size_t stride = value.size() / kParts;
    for (uint32_t part = 0; part < kParts; ++part) {
      SealTile(kId, tiles[part].geometry, std::span(value).subspan(part * stride, stride),
               GetParam().encrypted ? key_.get() : nullptr);
    }
    return value;
  }

  std::vector<uint8_t> Open(const std::vector<uint8_t>& in_tier) const {
    const size_t stride = in_tier.size() / kParts;
    std::vector<uint8_t> value;
    for (uint32_t part = 0; part < kParts; ++part) {
      std::vector<uint8_t> plain;
      auto tile = VerifyTile(std::span(in_tier).subspan(part * stride, stride), key(), &plain);
      EXPECT_TRUE(tile.ok()) << tile.status();
      const size_t at = value.size();
      value.resize(at + kTile);
      const std::span<uint8_t> to = std::span(value).subspan(at);
      EXPECT_TRUE(DecodeInto(*tile, to.subspan(kEnvelopeHeaderBytes)).ok());
      SealTile(kId, Geometry(part), to, nullptr);
    }
    return value;
  }

  static void Give(std::span<const uint8_t> value, std::span<const size_t> sizes, ValueOpener* opener) {
    size_t at = 0;
    for (const size_t size : sizes) {
      opener->Take(at, value.size(), value.subspan(at, size));
      at += size;
    }
  }

  TierValue Opened(std::span<const uint8_t> value) const {
    ValueOpener opener(kId, key(), ValueMemory::Make());
    opener.Take(0, value.size(), value);
    return std::move(opener).Finish();
  }

  const std::shared_ptr<DataKey> key_ = DataKey::FromBytes(std::array<uint8_t, 32>{1, 2, 3}, 7);
};

INSTANTIATE_TEST_SUITE_P(, ValueOpenerTest,
                         testing::Values(Form{"Plain", BlockFormat::kBf16, false},
                                         Form{"Encrypted", BlockFormat::kBf16, true},
                                         Form{"PlainInt8", BlockFormat::kInt8, false},
                                         Form{"EncryptedInt4", BlockFormat::kInt4, true}),
                         [](const auto& p) { return std::string(p.param.name); });

TEST_P(ValueOpenerTest, InAnyPiecesItIsTheSame) {
  const std::vector<uint8_t> value = InTier(), open = Open(value);
  const size_t tile = value.size() / kParts;
  const std::vector<std::vector<size_t>> ways = {
      {4 * tile}, {tile, tile, tile, tile}, {3 * tile, tile}, {tile, 2 * tile, tile}};
  for (const std::vector<size_t>& sizes : ways) {
    ValueOpener opener(kId, key(), ValueMemory::Make());
    Give(value, sizes, &opener);
    EXPECT_EQ(opener.parts(), kParts);
    const TierValue opened = std::move(opener).Finish();
    ASSERT_NE(opened, nullptr);
    EXPECT_EQ(*opened, open);
    EXPECT_EQ(opened->capacity(), opened->size());  // else memory that nobody counts
  }
}

// What a pass over a file gave before it failed is void: the value is read once more, by itself.
TEST_P(ValueOpenerTest, BegunAgainWhatCameBeforeDoesNotCount) {
  const std::vector<uint8_t> value = InTier();
  std::vector<uint8_t> damaged = value;
  const size_t tile = value.size() / kParts;
  damaged[tile + tile / 2] ^= 1;
  for (const std::vector<uint8_t>& before : {value, damaged}) {
    for (size_t tiles = 1; tiles <= kParts; ++tiles) {
      ValueOpener opener(kId, key(), ValueMemory::Make());
      Give(before, std::vector<size_t>(tiles, tile), &opener);
      opener.Take(0, value.size(), value);
      const TierValue opened = std::move(opener).Finish();
      ASSERT_NE(opened, nullptr) << tiles;
      EXPECT_EQ(*opened, Open(value));
    }
  }
}

TEST_P(ValueOpenerTest, WhatIsNotWholeIsAMiss) {
  const std::vector<uint8_t> value = InTier();
  const size_t tile = value.size() / kParts;
  EXPECT_EQ(ValueOpener(kId, key(), ValueMemory::Make()).Finish(), nullptr);
  EXPECT_EQ(Opened({}), nullptr);
  for (size_t size = 0; size < value.size(); size += size % tile == 0 ? 1 : tile - 1)
    EXPECT_EQ(Opened(std::span(value).first(size)), nullptr) << size;
  for (const std::vector<size_t>& sizes :
       std::vector<std::vector<size_t>>{{tile}, {tile, tile, tile}, {tile - 1, tile + 1, 2 * tile}}) {
    ValueOpener opener(kId, key(), ValueMemory::Make());
    Give(value, sizes, &opener);
    EXPECT_EQ(std::move(opener).Finish(), nullptr);
  }
  std::vector<uint8_t> longer = value;
  longer.insert(longer.end(), value.end() - static_cast<std::ptrdiff_t>(tile), value.end());
  EXPECT_EQ(Opened(longer), nullptr);
}

TEST_P(ValueOpenerTest, PiecesThatDoNotFollowEachOtherAreAMiss) {
  const std::vector<uint8_t> value = InTier();
  const size_t tile = value.size() / kParts;
  const auto part = [&](size_t i) { return std::span(value).subspan(i * tile, tile); };
  const std::vector<std::vector<size_t>> orders = {{0, 2, 1, 3}, {0, 1, 1, 2, 3}, {0, 1, 3}, {1, 2, 3}};
  for (const std::vector<size_t>& order : orders) {
    ValueOpener said(kId, key(), ValueMemory::Make()),
        hidden(kId, key(), ValueMemory::Make());  // where they stand; that they are elsewhere
    size_t at = 0;
    for (const size_t i : order) {
      said.Take(i * tile, value.size(), part(i));
      hidden.Take(at, value.size(), part(i));
      at += tile;
    }
    EXPECT_EQ(std::move(said).Finish(), nullptr);
    EXPECT_EQ(std::move(hidden).Finish(), nullptr);
  }
}

TEST_P(ValueOpenerTest, DamageAnywhereIsAMiss) {
  const std::vector<uint8_t> value = InTier();
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    std::vector<uint8_t> damaged = value;
    const size_t bit = random() % (8 * value.size());
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    EXPECT_EQ(Opened(damaged), nullptr) << "bit " << bit;
  }
}

// The last tile is right by itself, as long as the others and stands where it says, in a model of another
// shape.
TEST_P(ValueOpenerTest, TilesOfTwoShapesAreAMiss) {
  std::vector<uint8_t> value = InTier();
  const size_t stride = value.size() / kParts;
  const std::span<uint8_t> last = std::span(value).subspan((kParts - 1) * stride);
  std::vector<uint8_t> plain;
  const auto tile = VerifyTile(last, key(), &plain);
  ASSERT_TRUE(tile.ok()) << tile.status();
  TileGeometry geometry = tile->geometry;
  geometry.layers = kParts;
  geometry.kv_heads = 1;
  geometry.layer = kParts - 1;
  geometry.kv_head = 0;
  ASSERT_NE(geometry, tile->geometry);
  const std::vector<uint8_t> payload(tile->payload.begin(), tile->payload.end());
  std::ranges::copy(payload, last.begin() + kEnvelopeHeaderBytes);
  SealTile(kId, geometry, last, GetParam().encrypted ? key_.get() : nullptr);
  ValueOpener opener(kId, key(), ValueMemory::Make());
  opener.Take(0, value.size(), value);
  EXPECT_EQ(std::move(opener).Finish(), nullptr);
}

TEST_P(ValueOpenerTest, AnotherIdOrAnotherKeyIsAMiss) {
  const std::vector<uint8_t> value = InTier();
  ValueOpener other_id(Key(kNumber + 1).id, key(), ValueMemory::Make());
  other_id.Take(0, value.size(), value);
  EXPECT_EQ(std::move(other_id).Finish(), nullptr);
  // Without a key what is encrypted is not read; with one, what is not encrypted is not trusted.
  ValueOpener other_key(kId, GetParam().encrypted ? nullptr : key_.get(), ValueMemory::Make());
  other_key.Take(0, value.size(), value);
  EXPECT_EQ(std::move(other_key).Finish(), nullptr);
}

// Each tile is right by itself, and as long as the others.
TEST(ValueOpenerFormatTest, TilesOfTwoFormatsAreNoValue) {
  std::vector<uint8_t> value = Value(kNumber);
  TileGeometry geometry = Geometry(2);
  geometry.format = kTileInt8;
  geometry.tokens = 1;
  const auto bytes = [&] {
    return TilePayloadBytes(BlockFormat::kInt8, geometry.tokens, geometry.head_size);
  };
  while (bytes() != kPayload && geometry.head_size <= 512) {
    if (++geometry.tokens > 64) geometry.tokens = 1, geometry.head_size += 2;
  }
  ASSERT_EQ(bytes(), kPayload);
  const std::span<uint8_t> third = std::span(value).subspan(2 * kTile, kTile);
  std::ranges::fill(third, uint8_t{0});
  SealTile(kId, geometry, third, nullptr);
  const auto opened = VerifyTile(third, nullptr, nullptr);
  ASSERT_TRUE(opened.ok() && InPlace(kId, 2, *opened));
  std::vector<uint8_t> decoded(DecodedPayloadBytes(*opened));
  ASSERT_TRUE(DecodeInto(*opened, decoded).ok());
  ValueOpener opener(kId, nullptr, ValueMemory::Make());
  opener.Take(0, value.size(), value);
  EXPECT_EQ(std::move(opener).Finish(), nullptr);
}

// Of digests each tile is a whole value, so a second one is none of its parts, wherever it says it belongs.
TEST(ValueOpenerFormatTest, MoreThanWasSaidIsNoValue) {
  std::vector<uint8_t> value = Value(kNumber);
  for (const uint32_t part : {0u, 1u}) {
    TileGeometry geometry = Geometry(part);
    geometry.format = kTileDigests;
    SealTile(kId, geometry, std::span(value).subspan(part * kTile, kTile), nullptr);
  }
  ValueOpener opener(kId, nullptr, ValueMemory::Make()), more(kId, nullptr, ValueMemory::Make());
  opener.Take(0, kTile, std::span(value).first(kTile));
  EXPECT_NE(std::move(opener).Finish(), nullptr);
  more.Take(0, kTile, std::span(value).first(2 * kTile));
  EXPECT_EQ(std::move(more).Finish(), nullptr);
}

}  // namespace
}  // namespace palimpsest
