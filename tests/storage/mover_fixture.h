// A mover over faulty memory for a disk, and values that are functions of their key, so that any reader can
// check any of them.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proto/base/rng.h"
#include "storage/mover.h"
#include "storage/tier/faulty_tier.h"
#include "storage/tier/host_tier.h"

namespace palimpsest {

inline constexpr int32_t kLayers = 2, kHeads = 2, kHeadSize = 16, kTokens = 8;
inline constexpr uint32_t kParts = kLayers * kHeads;
inline constexpr size_t kPayload = 2 * kTokens * kHeadSize * 2, kTile = kEnvelopeHeaderBytes + kPayload;
inline constexpr auto kLong = std::chrono::seconds(20);

inline TierKey Key(int number, ValueKind kind = ValueKind::kBlock) {
  return {BlockId{Sha256("value " + std::to_string(number))}, kind};
}

inline TileGeometry Geometry(uint32_t part) {
  return {.layers = kLayers,
          .kv_heads = kHeads,
          .layer = static_cast<int32_t>(part) / kHeads,
          .kv_head = static_cast<int32_t>(part) % kHeads,
          .head_size = kHeadSize,
          .tokens = kTokens,
          .format = kTileBf16};
}

inline std::vector<uint8_t> Payload(int number, uint32_t part) {
  RngSequence rng{Rng(static_cast<uint64_t>(number) * 100 + part)};
  std::vector<uint8_t> payload(kPayload);
  for (uint8_t& byte : payload) byte = static_cast<uint8_t>(rng.Below(256));
  return payload;
}

// As host memory holds it.
inline std::vector<uint8_t> Value(int number) {
  std::vector<uint8_t> value;
  for (uint32_t part = 0; part < kParts; ++part) {
    std::vector<uint8_t> tile(kEnvelopeHeaderBytes);
    const std::vector<uint8_t> payload = Payload(number, part);
    tile.insert(tile.end(), payload.begin(), payload.end());
    SealTile(Key(number).id, Geometry(part), tile, nullptr);
    value.insert(value.end(), tile.begin(), tile.end());
  }
  return value;
}

class MoverTest : public ::testing::Test {
 protected:
  void Make(int64_t host_bytes, bool encrypt = true, MoverOptions options = {}) {
    mover_.reset();
    auto ssd = MakeFaultyTier(MakeHostTier({.capacity_bytes = 1 << 24}), {});
    ssd_ = ssd.get();
    key_ = encrypt ? DataKey::FromBytes(std::array<uint8_t, 32>{1, 2, 3}, 7) : nullptr;
    mover_ = std::make_unique<Mover>(
        options,
        host_bytes > 0 ? MakeHostTier({.capacity_bytes = host_bytes, .verify_reads = false}) : nullptr,
        std::move(ssd), key_);
  }
  bool Put(int number) { return mover_->Put(Key(number), Value(number), kParts); }
  void ExpectFound(int number, Level level) {
    const auto found = mover_->Get(Key(number));
    ASSERT_TRUE(found.has_value()) << number;
    const std::vector<uint8_t> expected = Value(number);
    EXPECT_TRUE(
        std::equal(found->value.bytes.begin(), found->value.bytes.end(), expected.begin(), expected.end()))
        << number;
    EXPECT_EQ(found->level, level) << number;
  }
  // All tiles of a value, one by one; how many came.
  int ExpectTiles(int number, std::optional<Level> level = std::nullopt) {
    std::vector<Mover::TileRequest> requests;
    for (uint32_t part = 0; part < kParts; ++part) requests.push_back({Key(number), part});
    const auto tiles = mover_->GetTiles(requests);
    int came = 0;
    for (uint32_t part = 0; part < kParts; ++part) {
      if (!tiles[part].has_value()) continue;
      ++came;
      const std::vector<uint8_t> expected = Payload(number, part);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), tiles[part]->payload.begin(),
                             tiles[part]->payload.end()));
      EXPECT_EQ(tiles[part]->geometry, Geometry(part));
      EXPECT_EQ(tiles[part]->level, level.value_or(tiles[part]->level));
    }
    return came;
  }

  FaultyTier* ssd_ = nullptr;  // the mover's
  std::shared_ptr<DataKey> key_;
  std::unique_ptr<Mover> mover_;
};

}  // namespace palimpsest
