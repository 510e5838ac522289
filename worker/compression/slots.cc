#include "worker/compression/slots.h"

#include <vector>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// visit(row, tile, slot) of each slot, in order.
template <typename Visit>
void EachSlot(const HeadSlots& slots, Visit visit) {
  int64_t row = 0, skip = slots.skip;
  for (size_t i = 0; i < slots.tiles.size() && row < slots.count; ++i) {
    const int32_t tile = slots.tiles[i];
    for (int32_t slot = 0; slot < slots.pool.counts[tile] && row < slots.count; ++slot) {
      if (skip-- > 0) continue;
      visit(row++, tile, slot);
    }
  }
  PALIMPSEST_CHECK(row == slots.count, "{} slots for {} candidates", row, slots.count);
}

}  // namespace

void ReadKeys(const HeadSlots& slots, float* out) {
  const int64_t size = slots.head_size;
  EachSlot(slots, [&](int64_t row, int32_t tile, int32_t slot) {
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
  EachSlot(slots, [&](int64_t row, int32_t tile, int32_t slot) {
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
  EachSlot(slots, [&](int64_t row, int32_t tile, int32_t slot) {
    const Bf16* const v = slots.pool.v(tile, size) + slot / 2 * 2 * 64 + slot % 2;
    for (int64_t d = 0; d < size; ++d) out[row * size + d] = Bf16ToFloat(v[d / 64 * kPanel + d % 64 * 2]);
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
