#include "storage/value_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

namespace palimpsest {
namespace {

constexpr size_t kValue = ValueMemory::kKeptBytes / 4;

TEST(ValueMemoryTest, WhatWasLetGoIsUsedAgain) {
  const auto memory = ValueMemory::Make();
  TierValue value = memory->Share(memory->Take(kValue)), other = value;
  const uint8_t* const at = value->data();
  value.reset();
  EXPECT_NE(memory->Take(kValue).data(), at);  // somebody holds it
  other.reset();
  EXPECT_NE(memory->Take(kValue - 1).data(), at);  // not of another size
  EXPECT_EQ(memory->Take(kValue).data(), at);
  EXPECT_NE(memory->Take(kValue).data(), at);  // once
}

TEST(ValueMemoryTest, WhatIsSharedIsWhatWasGiven) {
  const auto memory = ValueMemory::Make();
  const TierValue value = memory->Share({1, 2, 3});
  EXPECT_EQ(*value, (std::vector<uint8_t>{1, 2, 3}));
  EXPECT_EQ(memory->Take(3).size(), 3u);
}

// The longest unused goes first, and no more is kept than was promised.
TEST(ValueMemoryTest, KeepsNoMoreThanItsBytes) {
  const auto memory = ValueMemory::Make();
  std::vector<TierValue> values;
  std::vector<const uint8_t*> at;
  for (int i = 0; i < 6; ++i) {
    values.push_back(memory->Share(memory->Take(kValue)));
    at.push_back(values.back()->data());
  }
  for (TierValue& value : values) value.reset();
  EXPECT_EQ(memory->kept_bytes(), ValueMemory::kKeptBytes);
  std::vector<std::vector<uint8_t>> taken;
  for (int i = 0; i < 4; ++i) {
    taken.push_back(memory->Take(kValue));
    EXPECT_EQ(taken.back().data(), at[static_cast<size_t>(5 - i)]) << i;
  }
  EXPECT_EQ(memory->kept_bytes(), 0u);
  memory->Share(std::vector<uint8_t>(ValueMemory::kKeptBytes + 1))
      .reset();  // one that is too large by itself
  EXPECT_EQ(memory->kept_bytes(), 0u);
}

TEST(ValueMemoryTest, WhatIsSharedMayOutliveIt) {
  auto memory = ValueMemory::Make();
  TierValue value = memory->Share({7});
  memory.reset();
  EXPECT_EQ((*value)[0], 7);
  value.reset();
}

TEST(ValueMemoryTest, AnyThreadTakesAndLetsGo) {
  const auto memory = ValueMemory::Make();
  std::vector<std::thread> threads;
  for (uint8_t t = 0; t < 4; ++t) {
    threads.emplace_back([&memory, t] {
      for (int i = 0; i < 500; ++i) {
        std::vector<uint8_t> bytes = memory->Take(4096);
        std::fill(bytes.begin(), bytes.end(), t);
        const TierValue value = memory->Share(std::move(bytes));
        for (const uint8_t byte : *value) ASSERT_EQ(byte, t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(memory->kept_bytes(), 4 * 4096u);
}

}  // namespace
}  // namespace palimpsest
