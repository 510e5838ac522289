// The contract of storage/tier.h over every implementation. A value is a function of its id, so any thread
// can check any value (also after a crash) without a second table.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "proto/base/status.h"
#include "storage/tier.h"
#include "storage/tier/faulty_tier.h"
#include "storage/tier/host_tier.h"

namespace palimpsest {
namespace {

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Tier>(int64_t capacity_bytes)> make;
};

void PrintTo(const Implementation& implementation, std::ostream* out) { *out << implementation.name; }

BlockId Id(int number) { return BlockId{Sha256("value " + std::to_string(number))}; }

std::vector<uint8_t> Value(int number, size_t bytes) {
  std::mt19937_64 random(static_cast<uint64_t>(number));
  std::vector<uint8_t> value(bytes);
  for (uint8_t& byte : value) byte = static_cast<uint8_t>(random());
  return value;
}

class TierContractTest : public testing::TestWithParam<Implementation> {
 protected:
  std::unique_ptr<Tier> Make(int64_t capacity_bytes) { return GetParam().make(capacity_bytes); }
  static absl::Status Put(Tier& tier, int number, size_t bytes = 100) {
    return tier.Put(Id(number), Value(number, bytes));
  }
  // The value's number is found, whole and unchanged.
  static void ExpectHit(Tier& tier, int number, size_t bytes = 100) {
    const auto value = tier.Get(Id(number));
    ASSERT_TRUE(value.ok()) << "value " << number << ": " << value.status();
    EXPECT_EQ(**value, Value(number, bytes)) << "value " << number;
  }
  static void ExpectMiss(Tier& tier, int number) {
    EXPECT_EQ(tier.Get(Id(number)).status().code(), absl::StatusCode::kNotFound) << "value " << number;
    EXPECT_FALSE(tier.Contains(Id(number)));
  }
};

TEST_P(TierContractTest, AnEmptyTierMisses) {
  auto tier = Make(1000);
  ExpectMiss(*tier, 1);
  EXPECT_EQ(tier->Stats().capacity_bytes, 1000);
  EXPECT_EQ(tier->Stats().used_bytes, 0);
  EXPECT_EQ(tier->Stats().misses, 1);
  EXPECT_FALSE(tier->Name().empty());
}

TEST_P(TierContractTest, WhatWasPutIsFound) {
  auto tier = Make(1 << 20);
  ASSERT_TRUE(Put(*tier, 1, 1).ok());
  ASSERT_TRUE(Put(*tier, 2, 300000).ok());
  ExpectHit(*tier, 1, 1);
  ExpectHit(*tier, 2, 300000);
  EXPECT_TRUE(tier->Contains(Id(1)));
  EXPECT_EQ(tier->Stats().values, 2);
  EXPECT_EQ(tier->Stats().used_bytes, 300001);
  EXPECT_EQ(tier->Stats().hits, 2);
}

TEST_P(TierContractTest, PartsAreOneValue) {
  auto tier = Make(1000);
  const std::vector<uint8_t> value = Value(1, 100);
  const std::span<const uint8_t> all = value;
  const std::vector<std::span<const uint8_t>> parts = {all.first(10), all.subspan(10, 0), all.subspan(10)};
  ASSERT_TRUE(tier->PutParts(Id(1), parts).ok());
  ExpectHit(*tier, 1);
}

TEST_P(TierContractTest, ASecondPutChangesNothing) {
  auto tier = Make(1000);
  ASSERT_TRUE(Put(*tier, 1).ok());
  EXPECT_TRUE(tier->Put(Id(1), Value(2, 50)).ok());
  ExpectHit(*tier, 1);
  EXPECT_EQ(tier->Stats().puts, 1);
  EXPECT_EQ(tier->Stats().known_puts, 1);
  EXPECT_EQ(tier->Stats().used_bytes, 100);
}

TEST_P(TierContractTest, AnErasedValueIsAMiss) {
  auto tier = Make(1000);
  ASSERT_TRUE(Put(*tier, 1).ok());
  EXPECT_TRUE(tier->Erase(Id(1)).ok());
  EXPECT_TRUE(tier->Erase(Id(1)).ok()) << "erasing what is not there";
  ExpectMiss(*tier, 1);
  EXPECT_EQ(tier->Stats().used_bytes, 0);
  ASSERT_TRUE(Put(*tier, 1).ok());
  ExpectHit(*tier, 1);
}

TEST_P(TierContractTest, AnEmptyValueIsRefused) {
  auto tier = Make(1000);
  EXPECT_EQ(tier->Put(Id(1), {}).code(), absl::StatusCode::kInvalidArgument);
  ExpectMiss(*tier, 1);
  EXPECT_EQ(tier->Stats().refused_puts, 1);
}

TEST_P(TierContractTest, AValueAboveTheCapIsRefusedAndEvictsNothing) {
  auto tier = Make(250);
  ASSERT_TRUE(Put(*tier, 1).ok());
  ASSERT_TRUE(Put(*tier, 2).ok());
  EXPECT_EQ(Put(*tier, 3, 251).code(), absl::StatusCode::kResourceExhausted);
  ExpectHit(*tier, 1);
  ExpectHit(*tier, 2);
  EXPECT_EQ(tier->Stats().evictions, 0);
  EXPECT_TRUE(Put(*tier, 4, 250).ok()) << "exactly the cap fits";
}

TEST_P(TierContractTest, TheLeastRecentlyUsedGoesFirst) {
  auto tier = Make(300);
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(Put(*tier, i).ok());
  ExpectHit(*tier, 1);                 // order by age is now 2, 3, 1
  ASSERT_TRUE(Put(*tier, 2).ok());     // 3, 1, 2
  EXPECT_TRUE(tier->Contains(Id(3)));  // does not count as use
  ASSERT_TRUE(Put(*tier, 4).ok());
  ExpectMiss(*tier, 3);
  ExpectHit(*tier, 1);
  ExpectHit(*tier, 2);
  ExpectHit(*tier, 4);
  EXPECT_EQ(tier->Stats().evictions, 1);
  EXPECT_EQ(tier->Stats().evicted_bytes, 100);
}

TEST_P(TierContractTest, AViewOutlivesItsValueAndItsTier) {
  auto tier = Make(100);
  ASSERT_TRUE(Put(*tier, 1).ok());
  const auto view = tier->Get(Id(1));
  ASSERT_TRUE(view.ok());
  ASSERT_TRUE(tier->Erase(Id(1)).ok());
  Put(*tier, 2).IgnoreError();
  EXPECT_EQ(**view, Value(1, 100));
  tier.reset();
  EXPECT_EQ(**view, Value(1, 100));
}

// Any order of calls: hits are whole, the cap holds after each, and counters add up.
TEST_P(TierContractTest, CountersAddUpInAnyOrderOfCalls) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    auto tier = Make(5000);
    std::mt19937_64 random(seed);
    std::vector<TierValue> views;
    for (int call = 0; call < 2000; ++call) {
      const int number = static_cast<int>(random() % 40);
      const size_t bytes = 1 + static_cast<size_t>(number) * 17;
      switch (random() % 5) {
        case 0:
        case 1:
          Put(*tier, number, bytes).IgnoreError();
          break;
        case 2:
          if (auto value = tier->Get(Id(number)); value.ok()) {
            ASSERT_EQ(**value, Value(number, bytes));
            if (random() % 2 == 0) views.push_back(*value);
          }
          break;
        case 3:
          ASSERT_TRUE(tier->Erase(Id(number)).ok());
          break;
        default:
          if (!views.empty())
            views.erase(views.begin() + static_cast<std::ptrdiff_t>(random() % views.size()));
      }
      ASSERT_LE(tier->Stats().used_bytes, 5000);
    }
    views.clear();
    int64_t held = 0, values = 0;
    for (int number = 0; number < 40; ++number) {
      if (tier->Contains(Id(number))) held += 1 + number * 17, ++values;
    }
    EXPECT_EQ(tier->Stats().used_bytes, held);
    EXPECT_EQ(tier->Stats().values, values);
    for (int number = 0; number < 40; ++number) ASSERT_TRUE(tier->Erase(Id(number)).ok());
    EXPECT_EQ(tier->Stats().used_bytes, 0);
  }
}

TEST_P(TierContractTest, ThreadsSeeWholeValuesOnly) {
  auto tier = Make(20000);
  std::atomic<int> wrong{0}, hits{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(static_cast<uint64_t>(t));
      for (int call = 0; call < 3000; ++call) {
        const int number = static_cast<int>(random() % 60);
        const size_t bytes = 500 + static_cast<size_t>(number);
        const uint64_t verb = random() % 10;
        if (verb == 0) {
          tier->Erase(Id(number)).IgnoreError();
        } else if (auto value = tier->Get(Id(number)); value.ok()) {
          hits += 1;
          wrong += **value != Value(number, bytes);
        } else {
          Put(*tier, number, bytes).IgnoreError();
        }
        wrong += tier->Stats().used_bytes > 20000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(hits, 1000);
  for (int number = 0; number < 60; ++number) ASSERT_TRUE(tier->Erase(Id(number)).ok());
  EXPECT_EQ(tier->Stats().used_bytes, 0);
  EXPECT_EQ(tier->Stats().values, 0);
}

INSTANTIATE_TEST_SUITE_P(
    AllTiers, TierContractTest,
    testing::Values(Implementation{"Host", [](int64_t cap) { return MakeHostTier({.capacity_bytes = cap}); }},
                    Implementation{"HostUnverified",
                                   [](int64_t cap) {
                                     return MakeHostTier({.capacity_bytes = cap, .verify_reads = false});
                                   }},
                    Implementation{"FaultyWithoutFaults",
                                   [](int64_t cap) -> std::unique_ptr<Tier> {
                                     return MakeFaultyTier(MakeHostTier({.capacity_bytes = cap}), {});
                                   }}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace palimpsest
