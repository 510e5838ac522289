#include "storage/tier/host_tier.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }
std::vector<uint8_t> Value(int number) { return std::vector<uint8_t>(100, static_cast<uint8_t>(number)); }

TEST(HostTierTest, ADamagedValueIsReportedOnceAndThenAMiss) {
  auto tier = MakeHostTier({.capacity_bytes = 1000});
  ASSERT_TRUE(tier->Put(Id(1), Value(1)).ok());
  {
    const TierView view = *tier->Get(Id(1));
    const_cast<uint8_t&>(view.bytes[42]) ^= 1;  // what a bad memory cell does
  }
  EXPECT_EQ(tier->Get(Id(1)).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(tier->Get(Id(1)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tier->Stats().damaged, 1);
  EXPECT_EQ(tier->Stats().used_bytes, 0);
  EXPECT_TRUE(tier->Put(Id(1), Value(1)).ok());
  EXPECT_TRUE(tier->Get(Id(1)).ok());
}

TEST(HostTierTest, APartIsCheckedAlone) {
  auto tier = MakeHostTier({.capacity_bytes = 1000});
  ASSERT_TRUE(tier->Put(Id(1), Value(1), 10).ok());
  const_cast<uint8_t&>(tier->GetPart(Id(1), 4)->bytes[2]) ^= 1;
  EXPECT_TRUE(tier->GetPart(Id(1), 3).ok()) << "its bytes are right, and others were not read";
  EXPECT_TRUE(tier->GetPart(Id(1), 5).ok());
  EXPECT_EQ(tier->GetPart(Id(1), 4).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(tier->GetPart(Id(1), 3).status().code(), absl::StatusCode::kNotFound) << "dropped as a whole";
  EXPECT_EQ(tier->Stats().used_bytes, 0);
}

TEST(HostTierTest, UnverifiedReadsAreLeftToTheEnvelope) {
  auto tier = MakeHostTier({.capacity_bytes = 1000, .verify_reads = false});
  ASSERT_TRUE(tier->Put(Id(1), Value(1), 10).ok());
  const_cast<uint8_t&>(tier->GetPart(Id(1), 4)->bytes[2]) ^= 1;
  EXPECT_TRUE(tier->GetPart(Id(1), 4).ok());
  EXPECT_TRUE(tier->Get(Id(1)).ok());
}

TEST(HostTierTest, AViewedValueIsNotEvicted) {
  auto tier = MakeHostTier({.capacity_bytes = 200});
  ASSERT_TRUE(tier->Put(Id(1), Value(1)).ok());
  const auto view = tier->Get(Id(1));
  ASSERT_TRUE(tier->Put(Id(2), Value(2)).ok());
  ASSERT_TRUE(tier->Put(Id(3), Value(3)).ok());  // 2 goes, although 1 is older
  EXPECT_TRUE(tier->Contains(Id(1)));
  EXPECT_FALSE(tier->Contains(Id(2)));
}

TEST(HostTierTest, ErasedBytesCountUntilTheLastViewIsGone) {
  auto tier = MakeHostTier({.capacity_bytes = 150});
  ASSERT_TRUE(tier->Put(Id(1), Value(1)).ok());
  TierView view = *tier->Get(Id(1));
  TierView copy = *tier->GetPart(Id(1), 0);
  ASSERT_TRUE(tier->Erase(Id(1)).ok());
  EXPECT_EQ(tier->Stats().values, 0);
  EXPECT_EQ(tier->Stats().used_bytes, 100);
  const absl::Status refused = tier->Put(Id(2), Value(2));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(
      Message(refused),
      "host tier: no room for 100 bytes: capacity 150, of 100 used 0 could be evicted; raise its capacity or "
      "release views");
  view = {};
  EXPECT_EQ(tier->Stats().used_bytes, 100);
  copy = {};
  EXPECT_EQ(tier->Stats().used_bytes, 0);
  EXPECT_TRUE(tier->Put(Id(2), Value(2)).ok());
}

TEST(HostTierTest, OnlyAsMuchAsNeededIsEvicted) {
  auto tier = MakeHostTier({.capacity_bytes = 1000});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(tier->Put(Id(i), Value(i)).ok());
  ASSERT_TRUE(tier->Put(Id(10), std::vector<uint8_t>(201)).ok());
  EXPECT_EQ(tier->Stats().evictions, 3);
  EXPECT_EQ(tier->Stats().used_bytes, 901);
}

TEST(HostTierTest, OfWhatWasPutTogetherTheEndGoesFirst) {
  auto tier = MakeHostTier({.capacity_bytes = 300});
  std::vector<TierItem> items;
  items.reserve(3);
  for (int i = 0; i < 3; ++i)
    items.push_back({Id(i), std::make_shared<const std::vector<uint8_t>>(Value(i))});
  ASSERT_TRUE(tier->Put(items).ok());
  ASSERT_TRUE(tier->Put(Id(3), Value(3)).ok());
  EXPECT_TRUE(tier->Contains(Id(0)));
  EXPECT_TRUE(tier->Contains(Id(1)));
  EXPECT_FALSE(tier->Contains(Id(2)));
}

TEST(HostTierTest, AValueIsTakenAndNotCopied) {
  auto tier = MakeHostTier({.capacity_bytes = 1000});
  std::vector<uint8_t> value = Value(1);
  const uint8_t* bytes = value.data();
  ASSERT_TRUE(tier->Put(Id(1), std::move(value), 10).ok());
  EXPECT_EQ(tier->Get(Id(1))->bytes.data(), bytes);
  EXPECT_EQ(tier->GetPart(Id(1), 3)->bytes.data(), bytes + 30);
  const TierItem shared = {Id(2), std::make_shared<const std::vector<uint8_t>>(Value(2))};
  ASSERT_TRUE(tier->Put({&shared, 1}).ok());
  EXPECT_EQ(tier->Get(Id(2))->bytes.data(), shared.value->data());
}

TEST(HostTierTest, SpareCapacityIsGivenBack) {
  auto tier = MakeHostTier({.capacity_bytes = 1000});
  std::vector<uint8_t> value = Value(1);
  value.reserve(100000);
  const uint8_t* bytes = value.data();
  ASSERT_TRUE(tier->Put(Id(1), std::move(value)).ok());
  EXPECT_NE(tier->Get(Id(1))->bytes.data(), bytes);
}

}  // namespace
}  // namespace palimpsest
