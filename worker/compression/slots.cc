#include "worker/compression/slots.h"

#include <algorithm>
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

// Values lie in panels of 64 dimensions, (ceil(D/64), 32 slot pairs, 64, 2): where a slot's begin, and from
// there dimension d.
int64_t ValueAt(int64_t slot) { return slot / 2 * 2 * 64 + slot % 2; }
int64_t ValueOf(int64_t d) { return d / 64 * 64 * kTileSlots + d % 64 * 2; }

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
  const int64_t size = slots.head_size;
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    const Bf16* const v = slots.pool.v(slots.tiles[place], size) + ValueAt(slot);
    for (int64_t d = 0; d < size; ++d) out[row * size + d] = Bf16ToFloat(v[ValueOf(d)]);
  });
}

void ReadColumns(const HeadSlots& slots, const float* columns, float* out) {
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    out[row] = columns[place * kTileSlots + static_cast<size_t>(slot)];
  });
}

void ReadPlaces(const HeadSlots& slots, int32_t* columns) {
  EachSlot(slots, [&](int64_t row, size_t place, int32_t slot) {
    columns[row] = static_cast<int32_t>(place) * static_cast<int32_t>(kTileSlots) + slot;
  });
}

void CopySlot(const TilePool& pool, std::span<const int32_t> tiles, int64_t head_size, int64_t from,
              int64_t to) {
  const int32_t source = tiles[static_cast<size_t>(from / kTileSlots)],
                target = tiles[static_cast<size_t>(to / kTileSlots)];
  const int64_t out = from % kTileSlots, in = to % kTileSlots;
  PALIMPSEST_CHECK(pool.bases[source] == pool.bases[target], "a key of base {} moves to a tile of base {}",
                   pool.bases[source], pool.bases[target]);
  for (int64_t d = 0; d < head_size; d += 2) {
    const Bf16* const pair = pool.k(source) + d * kTileSlots + out * 2;
    std::copy_n(pair, 2, pool.k(target) + d * kTileSlots + in * 2);
  }
  const Bf16* const v = pool.v(source, head_size) + ValueAt(out);
  Bf16* const to_v = pool.v(target, head_size) + ValueAt(in);
  for (int64_t d = 0; d < head_size; ++d) to_v[ValueOf(d)] = v[ValueOf(d)];
  pool.positions[int64_t{target} * kTileSlots + in] = pool.positions[int64_t{source} * kTileSlots + out];
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
