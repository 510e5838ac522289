// Values for tests of tiers: the bytes of one are a function of its key and size, so that anyone can check
// any value, also after a crash, without a second table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "storage/tier.h"

namespace palimpsest {

inline BlockId TestBlockId(uint64_t number) { return BlockId{Sha256("value " + std::to_string(number))}; }

inline std::vector<uint8_t> ValueOf(const TierKey& key, size_t bytes) {
  std::mt19937_64 random(BlockIdHash{}(key.id) + static_cast<uint64_t>(key.kind));
  std::vector<uint8_t> value(bytes + 8);
  for (size_t at = 0; at < bytes; at += 8) {
    const uint64_t word = random();
    std::memcpy(value.data() + at, &word, 8);
  }
  value.resize(bytes);
  return value;
}

inline TierItem ItemOf(const TierKey& key, uint32_t parts, size_t part_bytes) {
  return {key, std::make_shared<const std::vector<uint8_t>>(ValueOf(key, parts * part_bytes)), parts};
}

// Is what was put, all of it.
inline bool IsWhole(const TierItem& item, const TierView& view) {
  return std::equal(view.bytes.begin(), view.bytes.end(), item.value->begin(), item.value->end());
}
inline bool IsPart(const TierItem& item, uint32_t part, const TierView& view) {
  const size_t bytes = item.value->size() / item.parts;
  return view.bytes.size() == bytes &&
         std::memcmp(view.bytes.data(), item.value->data() + part * bytes, bytes) == 0;
}

// Some groups with their digests, and now and then picks: what a spill of one span looks like, in small.
// Sizes, too, are functions of the number.
inline std::vector<TierItem> BatchOf(uint64_t number, size_t part_bytes = 2000) {
  std::vector<TierItem> items;
  const uint64_t groups = 1 + number % 5;
  for (uint64_t i = 0; i < groups; ++i) {
    const BlockId id = TestBlockId(number * 100 + i);
    items.push_back(ItemOf(id, 6, part_bytes - 100 * (i % 2)));
    items.push_back(ItemOf({id, ValueKind::kIndex}, 6, part_bytes / 16));
  }
  if (number % 3 == 0)
    items.push_back(ItemOf({TestBlockId(number * 100), ValueKind::kPicks}, 1, part_bytes / 4 + number % 50));
  return items;
}

inline int64_t BytesOf(const std::vector<TierItem>& items) {
  int64_t bytes = 0;
  for (const TierItem& item : items) bytes += static_cast<int64_t>(item.value->size());
  return bytes;
}

}  // namespace palimpsest
