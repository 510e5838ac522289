#include "storage/tier/faulty_tier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "storage/envelope.h"
#include "storage/tier/host_tier.h"

namespace palimpsest {
namespace {

const TileGeometry kGeometry = {.layers = 1, .kv_heads = 1, .head_size = 4, .tokens = 5, .format = kTileBf16};

BlockId Id(int number) { return BlockId{Sha256(std::to_string(number))}; }

std::vector<uint8_t> Envelope(int number) {
  std::vector<uint8_t> bytes(kEnvelopeHeaderBytes + 40, static_cast<uint8_t>(number));
  SealTile(Id(number), kGeometry, bytes, nullptr);
  return bytes;
}

std::vector<uint8_t> Bytes(const TierView& view) { return {view.bytes.begin(), view.bytes.end()}; }

std::unique_ptr<FaultyTier> Make(const TierFaults& faults) {
  return MakeFaultyTier(MakeHostTier({.capacity_bytes = 1 << 20}), faults);
}

// What 200 puts and gets answer, as text.
std::string Trace(Tier& tier) {
  std::string trace;
  for (int i = 0; i < 200; ++i) {
    trace += fmt::format("{} ", static_cast<int>(tier.Put(Id(i), Envelope(i)).code()));
    const auto value = tier.Get(Id(i));
    trace += value.ok()
                 ? Sha256({reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size()}).ToHex()
                 : std::to_string(static_cast<int>(value.status().code()));
    trace += '\n';
  }
  return trace;
}

TEST(FaultyTierTest, OneSeedIsOneTrace) {
  TierFaults faults = {.seed = 5,
                       .put_error = 0.1,
                       .put_full = 0.1,
                       .put_lost = 0.1,
                       .get_error = 0.1,
                       .get_corrupt = 0.2,
                       .get_truncated = 0.2,
                       .get_misplaced = 0.2};
  const std::string trace = Trace(*Make(faults));
  EXPECT_EQ(Trace(*Make(faults)), trace);
  faults.seed = 6;
  EXPECT_NE(Trace(*Make(faults)), trace);
}

TEST(FaultyTierTest, EachFaultHasItsCode) {
  auto tier = Make({.put_error = 1});
  EXPECT_EQ(tier->Put(Id(1), Envelope(1)).code(), absl::StatusCode::kUnavailable);
  tier->SetFaults({.put_full = 1});
  EXPECT_EQ(tier->Put(Id(1), Envelope(1)).code(), absl::StatusCode::kResourceExhausted);
  tier->SetFaults({.put_lost = 1});
  EXPECT_TRUE(tier->Put(Id(1), Envelope(1)).ok());
  EXPECT_EQ(tier->Get(Id(1)).status().code(), absl::StatusCode::kNotFound);
  tier->SetFaults({.get_error = 1});
  EXPECT_TRUE(tier->Put(Id(1), Envelope(1)).ok());
  EXPECT_EQ(tier->Get(Id(1)).status().code(), absl::StatusCode::kUnavailable);
  tier->SetFaults({});
  EXPECT_TRUE(tier->Get(Id(1)).ok());
  EXPECT_EQ(tier->Counts().put_errors + tier->Counts().put_full + tier->Counts().put_lost, 3);
}

// The reason for the envelope: whatever a tier hands out, the last reader accepts only the block it asked
// for.
TEST(FaultyTierTest, AnEnvelopeIsOpenedOnlyIfNothingHappenedToIt) {
  auto tier = Make({.seed = 7, .get_corrupt = 0.3, .get_truncated = 0.3, .get_misplaced = 0.3});
  int intact = 0;
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(tier->Put(Id(i % 50), Envelope(i % 50)).ok());
    const auto value = tier->Get(Id(i % 50));
    ASSERT_TRUE(value.ok());
    const bool same = Bytes(*value) == Envelope(i % 50);
    EXPECT_EQ(OpenTile(Id(i % 50), kGeometry, value->bytes, nullptr, nullptr).ok(), same);
    intact += same;
  }
  const TierFaultCounts counts = tier->Counts();
  EXPECT_EQ(counts.get_corrupt + counts.get_truncated + counts.get_misplaced, 3000 - intact);
  EXPECT_GT(counts.get_corrupt, 300);
  EXPECT_GT(counts.get_truncated, 300);
  EXPECT_GT(counts.get_misplaced, 300);
}

TEST(FaultyTierTest, AFaultDoesNotReachTheStoredValue) {
  auto tier = Make({.get_corrupt = 1});
  ASSERT_TRUE(tier->Put(Id(1), Envelope(1)).ok());
  EXPECT_NE(Bytes(*tier->Get(Id(1))), Envelope(1));
  tier->SetFaults({});
  EXPECT_EQ(Bytes(*tier->Get(Id(1))), Envelope(1));
}

TEST(FaultyTierTest, PartsMeetTheFaultsOfValues) {
  auto tier = Make({.get_corrupt = 1});
  const std::vector<uint8_t> value(40, 7), part(10, 7);
  ASSERT_TRUE(tier->Put(Id(1), value, 4).ok());
  ASSERT_EQ(tier->GetPart(Id(1), 2)->bytes.size(), 10u);
  EXPECT_NE(Bytes(*tier->GetPart(Id(1), 2)), part);
  tier->SetFaults({.get_error = 1});
  EXPECT_EQ(tier->GetPart(Id(1), 2).status().code(), absl::StatusCode::kUnavailable);
  tier->SetFaults({});
  EXPECT_EQ(Bytes(*tier->GetPart(Id(1), 2)), part);
}

TEST(FaultyTierTest, AMisplacedReadIsWhatTheOneBeforeRead) {
  auto tier = Make({.get_misplaced = 1});
  std::vector<uint8_t> value(20, 1);
  std::fill(value.begin() + 10, value.end(), 2);
  ASSERT_TRUE(tier->Put(Id(1), value, 2).ok());
  EXPECT_EQ(tier->GetPart(Id(1), 0)->bytes[0], 1);
  EXPECT_EQ(tier->GetPart(Id(1), 0)->bytes[0], 1) << "the same part again is not misplaced";
  EXPECT_EQ(tier->GetPart(Id(1), 1)->bytes[0], 1);
  EXPECT_EQ(tier->Counts().get_misplaced, 1);
}

TEST(FaultyTierTest, SlowCallsWaitOnTheGivenClock) {
  std::chrono::nanoseconds waited{0};
  auto tier = Make(
      {.slow = 0.5, .delay = std::chrono::milliseconds(50), .sleep = [&](auto delay) { waited += delay; }});
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(tier->Put(Id(i), Envelope(i)).ok());
  EXPECT_EQ(waited, tier->Counts().slow * std::chrono::milliseconds(50));
  EXPECT_NEAR(static_cast<double>(tier->Counts().slow), 50, 20);
}

}  // namespace
}  // namespace palimpsest
