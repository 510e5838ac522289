// The contract of storage/tier.h over every implementation. A value is a function of its id, so any thread
// can check any value (also after a crash) without a second table.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proto/base/status.h"
#include "storage/tier.h"
#include "storage/tier/faulty_tier.h"
#include "storage/tier/host_tier.h"
#include "storage/tier/late_tier.h"
#include "storage/tier/rocksdb_tier.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

struct Implementation {
  std::string name;
  // May keep files in the folder, which is the test's own; a test may make several tiers.
  std::function<std::unique_ptr<Tier>(int64_t capacity_bytes, const TemporaryFolder& folder)> make;
  int calls = 2000;  // of the tests that make many: fewer where each costs a disk's time
};

void PrintTo(const Implementation& implementation, std::ostream* out) { *out << implementation.name; }

BlockId Id(int number) { return BlockId{Sha256("value " + std::to_string(number))}; }

std::vector<uint8_t> Value(int number, size_t bytes) {
  std::mt19937_64 random(static_cast<uint64_t>(number));
  std::vector<uint8_t> value(bytes);
  for (uint8_t& byte : value) byte = static_cast<uint8_t>(random());
  return value;
}

std::vector<uint8_t> Bytes(const TierView& view) { return {view.bytes.begin(), view.bytes.end()}; }

TierItem Item(int number, size_t bytes, uint32_t parts = 1, ValueKind kind = ValueKind::kBlock) {
  return {{Id(number), kind}, std::make_shared<const std::vector<uint8_t>>(Value(number, bytes)), parts};
}

class TierContractTest : public testing::TestWithParam<Implementation> {
 protected:
  std::unique_ptr<Tier> Make(int64_t capacity_bytes) { return GetParam().make(capacity_bytes, folder_); }
  static absl::Status Put(Tier& tier, int number, size_t bytes = 100) {
    return tier.Put(Id(number), Value(number, bytes));
  }
  // The value's number is found, whole and unchanged.
  static void ExpectHit(Tier& tier, int number, size_t bytes = 100) {
    const auto value = tier.Get(Id(number));
    ASSERT_TRUE(value.ok()) << "value " << number << ": " << value.status();
    EXPECT_EQ(Bytes(*value), Value(number, bytes)) << "value " << number;
  }
  static void ExpectMiss(Tier& tier, int number) {
    EXPECT_EQ(tier.Get(Id(number)).status().code(), absl::StatusCode::kNotFound) << "value " << number;
    EXPECT_FALSE(tier.Contains(Id(number)));
  }

  const TemporaryFolder folder_;
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

TEST_P(TierContractTest, APartIsReadAloneOrWithAllOthers) {
  auto tier = Make(1 << 20);
  const std::vector<uint8_t> value = Value(1, 7 * 300);
  ASSERT_TRUE(tier->Put(Id(1), value, 7).ok());
  ExpectHit(*tier, 1, 7 * 300);
  for (uint32_t part : {6u, 0u, 3u}) {
    const auto view = tier->GetPart(Id(1), part);
    ASSERT_TRUE(view.ok()) << view.status();
    const auto from = value.begin() + part * 300;
    EXPECT_EQ(Bytes(*view), std::vector<uint8_t>(from, from + 300)) << "part " << part;
  }
  EXPECT_EQ(tier->GetPart(Id(1), 7).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(tier->GetPart(Id(2), 7).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tier->Stats().hits, 4);
  EXPECT_EQ(tier->Stats().misses, 1);
}

// Of several Puts, kinds and counts of parts; all of them and a few, in any order, some twice, some missing.
TEST_P(TierContractTest, ValuesAreReadTogetherAsOneByOne) {
  auto tier = Make(1 << 24);
  std::vector<TierKey> keys;
  for (int put = 0; put < 3; ++put) {
    std::vector<TierItem> items;
    for (int i = put * 20; i < put * 20 + 20; ++i) {
      const uint32_t parts = i % 7 == 6 ? 3 : 6;
      items.push_back(Item(i, parts * size_t{i % 11 == 10 ? 6000u : 4000u}, parts,
                           i % 5 == 4 ? ValueKind::kIndex : ValueKind::kBlock));
      keys.push_back(items.back().key);
    }
    ASSERT_TRUE(tier->Put(items).ok());
  }
  ASSERT_TRUE(tier->Erase(keys[7]).ok());
  ASSERT_TRUE(tier->Erase(keys[33]).ok());
  keys.push_back(Id(99));
  std::mt19937_64 random(1);
  for (const size_t count : {keys.size(), size_t{30}, size_t{9}, size_t{2}, size_t{1}, size_t{0}}) {
    std::vector<TierKey> some = keys;
    std::shuffle(some.begin(), some.end(), random);
    some.erase(some.begin() + static_cast<std::ptrdiff_t>(count), some.end());
    if (count > 2) some.push_back(some[1]);
    const TierStats before = tier->Stats();
    GatheredValues values(some.size());
    std::vector<uint64_t> taken(some.size()), totals(some.size());
    const TakeParts gather = values.take();
    const auto answers = tier->GetTogether(
        some, [&](size_t i, uint64_t offset, uint64_t total, std::span<const uint8_t> bytes) {
          EXPECT_TRUE(offset == 0 || offset == taken[i]) << offset << " behind " << taken[i];
          taken[i] = offset + bytes.size();
          totals[i] = total;
          gather(i, offset, total, bytes);
        });
    const TierStats after = tier->Stats();
    ASSERT_EQ(answers.size(), some.size());
    for (size_t i = 0; i < some.size(); ++i) {
      const auto expected = tier->Get(some[i]);
      ASSERT_EQ(answers[i].code(), expected.status().code()) << some[i].ToString();
      if (!expected.ok()) continue;
      EXPECT_EQ(values[i], Bytes(*expected)) << some[i].ToString();
      EXPECT_EQ(totals[i], values[i].size()) << some[i].ToString();
    }
    if (count == 30) {
      EXPECT_GT(after.hits, before.hits + 20);
    }
  }
}

TEST_P(TierContractTest, PartsThatDoNotDivideTheValueAreRefused) {
  auto tier = Make(1000);
  EXPECT_EQ(tier->Put(Id(1), Value(1, 100), 3).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->Put(Id(1), Value(1, 100), 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->Put(Id(1), Value(1, 100), 101).code(), absl::StatusCode::kInvalidArgument);
  ExpectMiss(*tier, 1);
  EXPECT_EQ(tier->Stats().refused_puts, 3);
  EXPECT_TRUE(tier->Put(Id(1), Value(1, 100), 100).ok());
  ExpectHit(*tier, 1);
}

TEST_P(TierContractTest, KindsOfOneIdAreDifferentValues) {
  auto tier = Make(1000);
  const TierKey block = Id(1), index = {Id(1), ValueKind::kIndex}, picks = {Id(1), ValueKind::kPicks};
  ASSERT_TRUE(tier->Put(block, Value(1, 10)).ok());
  ASSERT_TRUE(tier->Put(picks, Value(2, 20)).ok());
  EXPECT_FALSE(tier->Contains(index));
  ASSERT_TRUE(tier->Put(index, Value(3, 30), 3).ok());
  EXPECT_EQ(Bytes(*tier->Get(block)), Value(1, 10));
  EXPECT_EQ(Bytes(*tier->Get(index)), Value(3, 30));
  EXPECT_EQ(Bytes(*tier->Get(picks)), Value(2, 20));
  ASSERT_TRUE(tier->Erase(index).ok());
  EXPECT_EQ(tier->Get(index).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(tier->Get(block).ok());
  EXPECT_EQ(tier->Stats().values, 2);
}

TEST_P(TierContractTest, WhatIsPutTogetherIsFoundOneByOne) {
  auto tier = Make(1 << 20);
  const std::vector<TierItem> items = {Item(3, 900, 9), Item(1, 800, 4), Item(3, 30, 2, ValueKind::kIndex),
                                       Item(2, 700, 7), Item(4, 5, 1, ValueKind::kPicks)};
  ASSERT_TRUE(tier->Put(items).ok());
  for (const TierItem& item : items) {
    const auto whole = tier->Get(item.key);
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_EQ(Bytes(*whole), *item.value);
    const size_t part_bytes = item.value->size() / item.parts;
    for (uint32_t part = 0; part < item.parts; ++part) {
      const auto view = tier->GetPart(item.key, part);
      ASSERT_TRUE(view.ok()) << view.status();
      const auto from = item.value->begin() + static_cast<std::ptrdiff_t>(part * part_bytes);
      EXPECT_EQ(Bytes(*view), std::vector<uint8_t>(from, from + static_cast<std::ptrdiff_t>(part_bytes)));
    }
  }
  EXPECT_EQ(tier->Stats().puts, 5);
  EXPECT_EQ(tier->Stats().used_bytes, 900 + 800 + 30 + 700 + 5);
}

TEST_P(TierContractTest, AListingHasEachValueOnceAndUsesNone) {
  auto tier = Make(1000);
  EXPECT_TRUE(tier->List().empty());
  const std::vector<TierItem> items = {Item(1, 300, 3), Item(1, 20, 2, ValueKind::kIndex), Item(2, 80)};
  ASSERT_TRUE(tier->Put(items).ok());
  ASSERT_TRUE(Put(*tier, 3).ok());
  ASSERT_TRUE(tier->Erase(Id(2)).ok());
  std::map<std::string, std::pair<uint32_t, int64_t>> listed;
  for (const TierEntry& entry : tier->List())
    EXPECT_TRUE(listed.emplace(entry.key.ToString(), std::pair(entry.parts, entry.bytes)).second);
  const std::map<std::string, std::pair<uint32_t, int64_t>> expected = {
      {TierKey(Id(1)).ToString(), {3, 300}},
      {TierKey(Id(1), ValueKind::kIndex).ToString(), {2, 20}},
      {TierKey(Id(3)).ToString(), {1, 100}}};
  EXPECT_EQ(listed, expected);
  EXPECT_EQ(tier->Stats().hits, 0);
}

TEST_P(TierContractTest, ItemsOfOnePutAreStoredAllOrNone) {
  auto tier = Make(1000);
  ASSERT_TRUE(Put(*tier, 9).ok());
  const std::vector<TierItem> too_many = {Item(1, 600), Item(2, 600)};
  EXPECT_EQ(tier->Put(too_many).code(), absl::StatusCode::kResourceExhausted);
  const std::vector<TierItem> one_is_bad = {Item(1, 100), Item(2, 100, 3)};
  EXPECT_EQ(tier->Put(one_is_bad).code(), absl::StatusCode::kInvalidArgument);
  const std::vector<TierItem> one_is_null = {Item(1, 100), {Id(2), nullptr, 1}};
  EXPECT_EQ(tier->Put(one_is_null).code(), absl::StatusCode::kInvalidArgument);
  ExpectMiss(*tier, 1);
  ExpectMiss(*tier, 2);
  ExpectHit(*tier, 9);
  EXPECT_EQ(tier->Stats().refused_puts, 6);
  EXPECT_TRUE(tier->Put({}).ok());
}

TEST_P(TierContractTest, WhatIsKnownAmongSeveralStaysAsItIs) {
  auto tier = Make(1000);
  ASSERT_TRUE(Put(*tier, 2).ok());
  // One is there, and one is named twice.
  const std::vector<TierItem> items = {Item(1, 100), Item(2, 50), Item(3, 100), Item(1, 70)};
  ASSERT_TRUE(tier->Put(items).ok());
  for (int number : {1, 2, 3}) ExpectHit(*tier, number);
  EXPECT_EQ(tier->Stats().puts, 3);
  EXPECT_EQ(tier->Stats().known_puts, 2);
  EXPECT_EQ(tier->Stats().used_bytes, 300);
}

TEST_P(TierContractTest, RoomIsNotMadeByDroppingWhatThePutNames) {
  auto tier = Make(300);
  ASSERT_TRUE(Put(*tier, 1).ok());
  ASSERT_TRUE(Put(*tier, 2).ok());
  const std::vector<TierItem> fits = {Item(3, 200), Item(1, 100)};
  ASSERT_TRUE(tier->Put(fits).ok());
  ExpectHit(*tier, 1);
  ExpectMiss(*tier, 2);
  ExpectHit(*tier, 3, 200);
  const std::vector<TierItem> does_not = {Item(1, 100), Item(4, 201)};
  EXPECT_EQ(tier->Put(does_not).code(), absl::StatusCode::kResourceExhausted);
  ExpectHit(*tier, 1);
  ExpectHit(*tier, 3, 200);
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

TEST_P(TierContractTest, WhatIsTouchedGoesLaterAndTheLastOfItLast) {
  auto tier = Make(400);
  for (int i = 1; i <= 4; ++i) ASSERT_TRUE(Put(*tier, i).ok());
  const TierStats before = tier->Stats();
  tier->Touch(std::vector<TierKey>{Id(3), Id(9), Id(2), Id(1)});  // order by age is now 4, 3, 2, 1
  EXPECT_EQ(tier->Stats().hits + tier->Stats().misses, before.hits + before.misses);
  for (const int goes : {4, 3, 2}) {
    ASSERT_TRUE(Put(*tier, 10 + goes).ok());
    EXPECT_FALSE(tier->Contains(Id(goes)));
    EXPECT_TRUE(tier->Contains(Id(1)));
  }
  EXPECT_EQ(tier->Stats().evictions, 3);
}

TEST_P(TierContractTest, AViewOutlivesItsValueAndItsTier) {
  auto tier = Make(100);
  ASSERT_TRUE(Put(*tier, 1).ok());
  const auto view = tier->Get(Id(1));
  ASSERT_TRUE(view.ok());
  ASSERT_TRUE(tier->Erase(Id(1)).ok());
  Put(*tier, 2).IgnoreError();
  EXPECT_EQ(Bytes(*view), Value(1, 100));
  tier.reset();
  EXPECT_EQ(Bytes(*view), Value(1, 100));
}

// Any order of calls: hits are whole, the cap holds after each, and counters add up.
TEST_P(TierContractTest, CountersAddUpInAnyOrderOfCalls) {
  for (uint64_t seed = 0; seed < static_cast<uint64_t>(GetParam().calls / 100); ++seed) {
    auto tier = Make(5000);
    std::mt19937_64 random(seed);
    std::vector<TierView> views;
    for (int call = 0; call < GetParam().calls; ++call) {
      const int number = static_cast<int>(random() % 40);
      const size_t bytes = 1 + static_cast<size_t>(number) * 17;
      switch (random() % 5) {
        case 0:
        case 1:
          Put(*tier, number, bytes).IgnoreError();
          break;
        case 2:
          if (auto value = tier->Get(Id(number)); value.ok()) {
            ASSERT_EQ(Bytes(*value), Value(number, bytes));
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
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(static_cast<uint64_t>(t));
      for (int call = 0; call < GetParam().calls; ++call) {
        const int number = static_cast<int>(random() % 60);
        const size_t bytes = 500 + static_cast<size_t>(number);
        const uint64_t verb = random() % 10;
        if (verb == 0) {
          tier->Erase(Id(number)).IgnoreError();
        } else if (auto value = tier->Get(Id(number)); value.ok()) {
          hits += 1;
          wrong += Bytes(*value) != Value(number, bytes);
        } else {
          Put(*tier, number, bytes).IgnoreError();
        }
        wrong += tier->Stats().used_bytes > 20000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(hits, GetParam().calls / 3);
  for (int number = 0; number < 60; ++number) ASSERT_TRUE(tier->Erase(Id(number)).ok());
  EXPECT_EQ(tier->Stats().used_bytes, 0);
  EXPECT_EQ(tier->Stats().values, 0);
}

std::unique_ptr<Tier> MakeRocksDb(int64_t capacity_bytes, const TemporaryFolder& folder) {
  static std::atomic<int> made{0};
  auto tier = OpenRocksDbTier(
      {.folder = folder.File("tier" + std::to_string(++made)), .capacity_bytes = capacity_bytes});
  PALIMPSEST_CHECK(tier.ok(), "{}", Message(tier.status()));
  return std::move(*tier);
}

std::unique_ptr<Tier> MakeLate(int64_t capacity_bytes, const TemporaryFolder&) {
  auto tier = std::make_unique<LateTier>(
      LateTier::Options{.name = "late",
                        .why = absl::UnavailableError("not yet"),
                        .open = [=] { return MakeHostTier({.capacity_bytes = capacity_bytes}); },
                        .clock = &RealClock()});
  PALIMPSEST_CHECK(tier->Open().ok(), "a host tier does not open");
  return tier;
}

INSTANTIATE_TEST_SUITE_P(
    AllTiers, TierContractTest,
    testing::Values(Implementation{"Host", [](int64_t cap,
                                              const auto&) { return MakeHostTier({.capacity_bytes = cap}); }},
                    Implementation{"HostUnverified",
                                   [](int64_t cap, const auto&) {
                                     return MakeHostTier({.capacity_bytes = cap, .verify_reads = false});
                                   }},
                    Implementation{"FaultyWithoutFaults",
                                   [](int64_t cap, const auto&) -> std::unique_ptr<Tier> {
                                     return MakeFaultyTier(MakeHostTier({.capacity_bytes = cap}), {});
                                   }},
                    Implementation{"LateOpened", MakeLate},
                    Implementation{"RocksDb", MakeRocksDb, /*calls=*/100}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace palimpsest
