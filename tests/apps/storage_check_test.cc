// `storage status` counts what is there; `storage verify` finds what is not what was sealed for its place.
#include "apps/storage_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "storage/envelope.h"
#include "storage/tier/rocksdb_tier.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

constexpr int32_t kLayers = 3, kHeads = 2;
constexpr uint32_t kParts = kLayers * kHeads;
constexpr size_t kTile = kEnvelopeHeaderBytes + 64;

BlockId Id(int number) { return BlockId{Sha256("value " + std::to_string(number))}; }

class StorageCheckTest : public ::testing::TestWithParam<bool> {  // encrypted?
 protected:
  StorageCheckTest() {
    config_.data_dir = folder_.path() + "/data";
    config_.ssd.store_bytes = 1 << 20;
    config_.ssd.encryption = GetParam() ? "on" : "off";
    if (!GetParam()) return;
    auto key = DataKey::Load(config_.data_dir + "/keys/tier.key", config_.data_dir + "/tier/data.key");
    PALIMPSEST_CHECK(key.ok(), "{}", Message(key.status()));
    key_ = *key;
  }

  std::vector<uint8_t> Value(int number) const {
    std::vector<uint8_t> value(kParts * kTile, static_cast<uint8_t>(number));
    for (uint32_t part = 0; part < kParts; ++part) {
      const TileGeometry geometry{.layers = kLayers,
                                  .kv_heads = kHeads,
                                  .layer = static_cast<int32_t>(part) / kHeads,
                                  .kv_head = static_cast<int32_t>(part) % kHeads,
                                  .head_size = 4,
                                  .tokens = 4,
                                  .format = kTileBf16};
      SealTile(Id(number), geometry, std::span(value).subspan(part * kTile, kTile), key_.get());
    }
    return value;
  }
  // As some tiers would have it: a value's tiles stand in the order given.
  static std::vector<uint8_t> Reordered(const std::vector<uint8_t>& value, const std::vector<size_t>& tiles) {
    std::vector<uint8_t> other;
    for (const size_t tile : tiles) {
      const auto from = value.begin() + static_cast<std::ptrdiff_t>(tile * kTile);
      other.insert(other.end(), from, from + static_cast<std::ptrdiff_t>(kTile));
    }
    return other;
  }
  void Store(int number, std::vector<uint8_t> value, uint32_t parts = kParts) const {
    const auto tier =
        OpenRocksDbTier({.folder = config_.data_dir + "/tier/0", .capacity_bytes = config_.ssd.store_bytes});
    PALIMPSEST_CHECK(tier.ok(), "{}", Message(tier.status()));
    ASSERT_TRUE((*tier)->Put(Id(number), std::move(value), parts).ok());
  }
  StoredTier Check(bool verify) const {
    const auto tiers = CheckStorage(config_, {.verify = verify});
    PALIMPSEST_CHECK(tiers.ok() && tiers->size() == 1, "{}", Message(tiers.status()));
    return (*tiers)[0];
  }

  const TemporaryFolder folder_;
  Config config_;
  std::shared_ptr<DataKey> key_;
};

TEST_P(StorageCheckTest, WholeValuesAreCountedAndFoundWhole) {
  for (int number : {1, 2}) Store(number, Value(number));
  for (const bool verify : {false, true}) {
    const StoredTier tier = Check(verify);
    EXPECT_EQ(tier.kinds[0].values, 2);
    EXPECT_EQ(tier.kinds[0].bytes, static_cast<int64_t>(2 * kParts * kTile));
    EXPECT_EQ(tier.used_bytes, tier.kinds[0].bytes);
    EXPECT_TRUE(tier.damaged.empty());
  }
}

TEST_P(StorageCheckTest, ATileInAnothersPlaceIsFoundAndItsValueDropped) {
  Store(1, Value(1));
  Store(2, Reordered(Value(2), {1, 0, 2, 3, 4, 5}));  // heads of one layer
  Store(3, Reordered(Value(3), {0, 1, 4, 3, 2, 5}));  // one head of two layers
  EXPECT_TRUE(Check(/*verify=*/false).damaged.empty()) << "it reads nothing";
  std::vector<std::string> damaged = Check(/*verify=*/true).damaged;
  std::vector<std::string> expected = {TierKey(Id(2)).ToString(), TierKey(Id(3)).ToString()};
  std::sort(damaged.begin(), damaged.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(damaged, expected);
  EXPECT_EQ(Check(/*verify=*/false).kinds[0].values, 1);
}

TEST_P(StorageCheckTest, AValueWithoutItsLastTilesIsFound) {
  std::vector<uint8_t> value = Value(1);
  value.resize(2 * kTile);
  Store(1, value, 2);
  EXPECT_EQ(Check(/*verify=*/true).damaged, std::vector<std::string>{TierKey(Id(1)).ToString()});
}

TEST_P(StorageCheckTest, AnotherValuesTileIsFound) {
  std::vector<uint8_t> value = Value(1);
  const std::vector<uint8_t> other = Value(2);
  std::copy_n(other.begin(), kTile, value.begin());
  Store(1, value);
  EXPECT_EQ(Check(/*verify=*/true).damaged, std::vector<std::string>{TierKey(Id(1)).ToString()});
}

TEST_P(StorageCheckTest, WhatOtherSettingsSealedIsToldAndStays) {
  for (int number : {1, 2}) Store(number, Value(number));
  config_.ssd.encryption = GetParam() ? "off" : "on";
  const StoredTier other = Check(/*verify=*/true);
  EXPECT_EQ(other.sealed_otherwise, 2);
  EXPECT_TRUE(other.damaged.empty());
  EXPECT_EQ(StorageStatus({other}).code(), absl::StatusCode::kFailedPrecondition);
  config_.ssd.encryption = GetParam() ? "on" : "off";
  const StoredTier own = Check(/*verify=*/true);
  EXPECT_TRUE(own.whole());
  EXPECT_EQ(own.kinds[0].values, 2);
  EXPECT_TRUE(StorageStatus({own}).ok());
}

TEST_P(StorageCheckTest, LookingEvictsNothingWhereTheCapacityIsLessNow) {
  for (int number : {1, 2}) Store(number, Value(number));
  config_.ssd.store_bytes = 1000;
  for (const bool verify : {false, true}) {
    const StoredTier tier = Check(verify);
    EXPECT_EQ(tier.capacity_bytes, 1000);
    EXPECT_EQ(tier.kinds[0].values, 2);
    EXPECT_TRUE(tier.whole());
  }
}

TEST_P(StorageCheckTest, ATierThatIsDamagedAsAWholeIsTold) {
  for (const bool verify : {false, true}) {
    Store(1, Value(1));
    std::filesystem::remove(config_.data_dir + "/tier/0/db/CURRENT");
    const StoredTier tier = Check(verify);
    EXPECT_EQ(tier.used_bytes, 0);
    EXPECT_TRUE(tier.moved_to.starts_with(config_.data_dir + "/tier/0.damaged-")) << tier.moved_to;
    EXPECT_EQ(StorageStatus({tier}).code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(StorageText({}, {tier}, verify).find("whole"), std::string::npos);
    EXPECT_TRUE(Check(verify).whole()) << "what is there now is";
  }
}

TEST_P(StorageCheckTest, ATierBehindAGapIsFound) {
  Store(1, Value(1));
  const std::string folder = config_.data_dir + "/tier/";
  std::filesystem::rename(folder + "0", folder + "11");
  for (const char* other : {"x", "3x", "07", "-1", "0.damaged-5"})
    std::filesystem::create_directory(folder + other);
  EXPECT_EQ(Check(/*verify=*/true).folder, folder + "11");
}

INSTANTIATE_TEST_SUITE_P(Forms, StorageCheckTest, ::testing::Bool(),
                         [](const auto& instance) { return instance.param ? "Encrypted" : "Plain"; });

}  // namespace
}  // namespace palimpsest
