#include "storage/tier/late_tier.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/base/status.h"
#include "storage/tier/host_tier.h"

namespace palimpsest {
namespace {

BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }

class LateTierTest : public testing::Test {
 protected:
  ManualClock clock_;
  bool ready_ = false;
  int tries_ = 0;
  // Opens once `ready_` is set; until then a disk is full, and says how often that was found out.
  LateTier tier_{{.name = "ssd",
                  .why = ResourceExhausted("full at the start"),
                  .open = [this]() -> absl::StatusOr<std::unique_ptr<Tier>> {
                    ++tries_;
                    if (!ready_) return ResourceExhausted("full, try {}", tries_);
                    auto inner = MakeHostTier({.capacity_bytes = 1 << 20});
                    PALIMPSEST_RETURN_IF_ERROR(inner->Put(Id(7), std::vector<uint8_t>(30, 7)));
                    return inner;
                  },
                  .clock = &clock_,
                  .retry = std::chrono::seconds(5)}};

  absl::Status Put(int number) { return tier_.Tier::Put(Id(number), std::vector<uint8_t>(20, 1)); }
};

TEST_F(LateTierTest, UntilItOpensAllOfItIsMissed) {
  const std::array<TierKey, 2> keys = {Id(7), Id(8)};
  EXPECT_EQ(tier_.Get(Id(7)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tier_.GetPart(Id(7), 0).status().code(), absl::StatusCode::kNotFound);
  for (const absl::Status& status : tier_.GetTogether(keys, [](size_t, uint64_t, uint64_t, auto) { FAIL(); }))
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(tier_.Contains(Id(7)));
  EXPECT_TRUE(tier_.Erase(Id(7)).ok());
  tier_.Touch(keys);
  EXPECT_TRUE(tier_.List().empty());
  EXPECT_EQ(tier_.Stats().capacity_bytes, 0) << "nothing has room there";
  EXPECT_EQ(tier_.Stats().misses, 4);
  EXPECT_EQ(tier_.Name(), "ssd");
  EXPECT_EQ(Message(tier_.WhyNot().value()), "full at the start");
  EXPECT_EQ(tries_, 0) << "reading tries nothing";
}

TEST_F(LateTierTest, WhoPutsTriesAgainButNotEachTime) {
  EXPECT_EQ(Message(Put(1)), "full at the start");
  clock_.Advance(std::chrono::seconds(5));
  EXPECT_EQ(Message(Put(1)), "full, try 1");
  EXPECT_EQ(Message(Put(1)), "full, try 1");
  EXPECT_EQ(Put(1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(tries_, 1);
  EXPECT_EQ(Message(tier_.WhyNot().value()), "full, try 1");
  EXPECT_EQ(tier_.Stats().refused_puts, 4);
  clock_.Advance(std::chrono::seconds(4));
  ready_ = true;
  EXPECT_FALSE(Put(1).ok());
  clock_.Advance(std::chrono::seconds(1));
  ASSERT_TRUE(Put(1).ok());
  EXPECT_EQ(tries_, 2);
}

TEST_F(LateTierTest, OnceOpenItIsWhatItOpened) {
  ready_ = true;
  EXPECT_EQ(tier_.Get(Id(7)).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(tier_.Open().ok());
  ASSERT_TRUE(tier_.Open().ok());
  EXPECT_EQ(tries_, 1);
  EXPECT_FALSE(tier_.WhyNot().has_value());
  EXPECT_TRUE(tier_.Contains(Id(7))) << "what was there before";
  EXPECT_EQ(tier_.Get(Id(7))->bytes.size(), 30u);
  EXPECT_EQ(tier_.List().size(), 1u);
  EXPECT_EQ(tier_.Stats().capacity_bytes, 1 << 20);
  EXPECT_EQ(tier_.Stats().misses, 1) << "from before, too";
  ASSERT_TRUE(tier_.Erase(Id(7)).ok());
  EXPECT_FALSE(tier_.Contains(Id(7)));
}

TEST_F(LateTierTest, WhatNoTierTakesIsSaidBeforeAnythingIsTried) {
  clock_.Advance(std::chrono::seconds(5));
  EXPECT_EQ(tier_.Tier::Put(Id(1), std::vector<uint8_t>()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tries_, 0);
}

}  // namespace
}  // namespace palimpsest
