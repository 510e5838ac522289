#include "worker/compression/slots.h"

#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// visit(row, place of the tile in the list, slot) of each slot, in order.
template <typename Visit>
void EachSlot(const HeadSlots& slots, Visit visit) {
  int64_t row = 0, skip = slots.skip;
  for (size_t i = 0; i < slots.tiles.size() && row < slots.count; ++i) {
    for (int32_t slot = 0; slot < slots.pool.counts[slots.tiles[i]] && row < slots.count; ++slot) {
      if (skip-- > 0) continue;
      visit(row++, i, slot);
    }
  }
  PALIMPSEST_CHECK(row == slots.count, "{} slots for {} candidates", row, slots.count);
}

}  // namespace

void ReadKeys(const HeadSlots& slots, float* out) {
  const int64_t size = slots.head_size;
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    const int32_t tile = slots.tiles[place];
    const Bf16* const k = slots.pool.k(tile) + slot * 2;  // (D/2, 64, 2)
    for (int64_t d = 0; d < size; d += 2) {
      const Bf16* const pair = k + d * kTileSlots;
      out[row * size + d] = Bf16ToFloat(pair[0]);
      out[row * size + d + 1] = Bf16ToFloat(pair[1]);
    }
  });
}

void ReadKeysAtRest(const HeadSlots& slots, const RopeTable& rope, float* out) {
  ReadKeys(slots, out);
  const int64_t size = slots.head_size;
  std::vector<float> scratch(static_cast<size_t>(rope.row_floats()));
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    const int32_t tile = slots.tiles[place];
    const int64_t position = slots.pool.positions[int64_t{tile} * kTileSlots + slot];
    const float* const turn = rope.Row(position - slots.pool.bases[tile], scratch.data());
    float* const key = out + row * size;
    for (int64_t d = 0; d < size; d += 2) {
      const float x = key[d], y = key[d + 1], cosine = turn[d], sine = turn[size + d + 1];
      key[d] = cosine * x + sine * y;
      key[d + 1] = cosine * y - sine * x;
    }
  });
}

void ReadValues(const HeadSlots& slots, float* out) {
  constexpr int64_t kPanel = 64 * kTileSlots;  // (ceil(D/64), 32 slot pairs, 64, 2)
  const int64_t size = slots.head_size;
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    const int32_t tile = slots.tiles[place];
    const Bf16* const v = slots.pool.v(tile, size) + slot / 2 * 2 * 64 + slot % 2;
    for (int64_t d = 0; d < size; ++d) out[row * size + d] = Bf16ToFloat(v[d / 64 * kPanel + d % 64 * 2]);
  });
}

void ReadColumns(const HeadSlots& slots, const float* columns, float* out) {
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    out[row] = columns[place * kTileSlots + static_cast<size_t>(slot)];
  });
}

void MeanTurn(const RopeTable& rope, int64_t first, int64_t count, std::span<float> turn) {
  const size_t size = turn.size();
  std::vector<double> sums(size, 0.0);
  std::vector<float> scratch(static_cast<size_t>(rope.row_floats()));
  for (int64_t position = first; position < first + count; ++position) {
    const float* const row = rope.Row(position, scratch.data());
    for (size_t d = 0; d < size; d += 2) {
      sums[d] += static_cast<double>(row[d]);
      sums[d + 1] += static_cast<double>(row[size + d + 1]);
    }
  }
  for (size_t d = 0; d < size; ++d) turn[d] = static_cast<float>(sums[d] / static_cast<double>(count));
}

}  // namespace palimpsest
