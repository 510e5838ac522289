// A tier on SSD in a folder of its own, for its tests.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/tier/rocksdb_tier.h"
#include "tests/testing/temporary_folder.h"
#include "tests/testing/tier_values.h"

namespace palimpsest {

class RocksDbTierTest : public testing::Test {
 protected:
  absl::Status Open(RocksDbTierOptions options = {}) {
    tier_.reset();
    if (options.folder.empty()) options.folder = folder_;
    if (options.capacity_bytes == 0) options.capacity_bytes = 1 << 30;
    options.lock_wait = std::chrono::milliseconds(100);
    auto tier = OpenRocksDbTier(options, &report_);
    if (tier.ok()) tier_ = std::move(*tier);
    return tier.status();
  }
  // Whole and part by part, bit for bit.
  void ExpectFound(const std::vector<TierItem>& items) {
    for (const TierItem& item : items) {
      const auto whole = tier_->Get(item.key);
      ASSERT_TRUE(whole.ok()) << whole.status();
      EXPECT_TRUE(IsWhole(item, *whole)) << item.key.ToString();
      for (uint32_t part = 0; part < item.parts; ++part) {
        const auto view = tier_->GetPart(item.key, part);
        ASSERT_TRUE(view.ok()) << view.status();
        EXPECT_TRUE(IsPart(item, part, *view)) << item.key.ToString() << " part " << part;
      }
    }
  }
  void ExpectMissed(const std::vector<TierItem>& items) {
    for (const TierItem& item : items) {
      EXPECT_EQ(tier_->Get(item.key).status().code(), absl::StatusCode::kNotFound) << item.key.ToString();
    }
  }

  const TemporaryFolder temporary_;
  const std::string folder_ = temporary_.File("tier");
  std::unique_ptr<Tier> tier_;
  RocksDbTierReport report_;
};

}  // namespace palimpsest
