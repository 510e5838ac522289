// Tokens packed into tiles, or written in 2 bits.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {
namespace {

constexpr int64_t kTileRow =
    kTileSlots * 2;  // elements of one pair of K's dimensions, of one pair of V's slots
constexpr int64_t kValuePanel = 64 * kTileSlots;

// `count` keys and values (slot, D) in the layout of a tile.
void WriteTile(int64_t d, int64_t count, const Bf16* keys, const Bf16* values, Bf16* tile) {
  for (int64_t j = 0; j < d / 2; ++j) {
    for (int64_t s = 0; s < count; ++s) std::memcpy(tile + j * kTileRow + s * 2, keys + s * d + 2 * j, 4);
  }
  Bf16* const v = tile + d * kTileSlots;
  for (int64_t s = 0; s < count; ++s) {
    Bf16* row = v + s / 2 * kTileRow + s % 2;
    for (int64_t j = 0; j < d; ++j) row[j / 64 * kValuePanel + j % 64 * 2] = values[s * d + j];
  }
}

// The group of the first `count` of every second number.
void EncodeGroup(const Bf16* x, int64_t count, Bf16* low, Bf16* step, uint8_t* codes) {
  constexpr Bf16 kNotANumber = 0x7fc0;
  float least = std::numeric_limits<float>::infinity(), most = -least;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    const float one = Bf16ToFloat(x[2 * i]);
    finite &= std::isfinite(one);
    least = std::min(least, one);
    most = std::max(most, one);
  }
  *low = count == 0 ? Bf16{0} : kNotANumber;
  *step = 0;
  if (count == 0 || !finite || !std::isfinite(most - least)) return;
  *low = FloatToBf16(least);
  *step = FloatToBf16((most - least) / 3);
  const float inverse = *step == 0 ? 0 : 1 / Bf16ToFloat(*step);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t code = std::lrintf((Bf16ToFloat(x[2 * i]) - least) * inverse);
    codes[2 * i] = static_cast<uint8_t>(std::clamp<int64_t>(code, 0, 3));
  }
}

// `pairs`: elements of each group that are no padding.
void EncodeRun(const Bf16* x, int64_t pairs, CodedRun* run) {
  uint8_t codes[kCodedRunElements] = {};
  for (const int64_t group : {0, 1}) {
    EncodeGroup(x + group, pairs, &run->low[group], &run->step[group], codes + group);
  }
  for (int64_t i = 0; i < 16; ++i) {
    const uint8_t* const one = codes + 2 * i;
    run->codes[i] = static_cast<uint8_t>(one[0] | one[1] << 2 | one[32] << 4 | one[33] << 6);
  }
}

void EncodeTile(int64_t d, const Bf16* tile, CodedRun* runs) {
  constexpr int64_t kPairs = kCodedRunElements / 2;
  const int64_t keys = d * kTileSlots / kCodedRunElements;
  for (int64_t r = 0; r < keys; ++r) EncodeRun(tile + r * kCodedRunElements, kPairs, runs + r);
  for (int64_t r = keys; r < TileElements(d) / kCodedRunElements; ++r) {
    // A row of a panel of V is two runs, of its channels 0 to 31 and 32 to 63.
    const int64_t of_values = r - keys, panel = of_values * kCodedRunElements / kValuePanel;
    const int64_t channel = panel * 64 + of_values % 2 * kPairs;
    EncodeRun(tile + r * kCodedRunElements, std::clamp<int64_t>(d - channel, 0, kPairs), runs + r);
  }
}

}  // namespace

// One token's key, turned for a tile of `base` if it is at rest, and its value.
void CpuBackend::ReadSource(const TilePool& pool, const RopeTable& rope, int64_t d, const KvSource& source,
                            int64_t offset, Bf16* key, Bf16* value) const {
  if (source.key != nullptr) {
    RotateKey(rope, d, offset, source.key, key);
  } else {
    const Bf16* k = pool.k(source.tile) + source.slot * 2;
    for (int64_t j = 0; j < d / 2; ++j) std::memcpy(key + 2 * j, k + j * kTileRow, 4);
  }
  if (source.value != nullptr) {
    std::memcpy(value, source.value, static_cast<size_t>(d) * 2);
  } else {
    const Bf16* v = pool.v(source.tile, d) + source.slot / 2 * kTileRow + source.slot % 2;
    for (int64_t j = 0; j < d; ++j) value[j] = v[j / 64 * kValuePanel + j % 64 * 2];
  }
}

// One tile: its sources are read before it is written.
void CpuBackend::GatherTile(const GatherKvArgs& args, const GatherHead& head, int64_t i) const {
  const int64_t d = args.head_size, first = i * kTileSlots;
  const int64_t count = std::clamp<int64_t>(std::ssize(head.sources) - first, 0, kTileSlots);
  const int32_t tile = head.tiles[static_cast<size_t>(i)];
  const TilePool& pool = args.pool;
  alignas(64) Bf16 keys[kTileSlots * 256], values[kTileSlots * 256];  // (slot, D)
  for (int64_t s = 0; s < count; ++s) {
    const int32_t position = head.positions[static_cast<size_t>(first + s)];
    ReadSource(pool, *args.rope, d, head.sources[static_cast<size_t>(first + s)],
               int64_t{position} - pool.bases[tile], keys + s * d, values + s * d);
    pool.positions[int64_t{tile} * kTileSlots + s] = position;
  }
  WriteTile(d, count, keys, values, pool.k(tile));
  pool.counts[tile] = static_cast<int32_t>(count);
  pool.starts[tile] = 0;
}

void CpuBackend::GatherKv(const GatherKvArgs& args) {
  CheckHeadSize(args.head_size);
  for (const GatherHead& head : args.heads) {
    PALIMPSEST_CHECK(head.positions.size() == head.sources.size(), "{} sources, {} positions",
                     head.sources.size(), head.positions.size());
    PALIMPSEST_CHECK(head.sources.size() <= head.tiles.size() * kTileSlots, "{} sources for {} tiles",
                     head.sources.size(), head.tiles.size());
  }
  // What stands in tiles may stand in those that are written: there a head goes tile by tile, since sources
  // of later tiles do not stand before their own place and are still whole. What is at rest needs no order.
  const bool at_rest = std::all_of(args.heads.begin(), args.heads.end(), [](const GatherHead& head) {
    return std::all_of(head.sources.begin(), head.sources.end(), [](const KvSource& source) {
      return source.key != nullptr && source.value != nullptr;
    });
  });
  int64_t tiles = 0;  // most of a head
  for (const GatherHead& head : args.heads) tiles = std::max(tiles, std::ssize(head.tiles));
  const int64_t parts = at_rest ? tiles : 1;  // of a head
  pool_.ParallelFor(std::ssize(args.heads) * parts, [&](int64_t task, int) {
    const GatherHead& head = args.heads[static_cast<size_t>(task / parts)];
    const int64_t first = task % parts, end = at_rest ? first + 1 : tiles;
    for (int64_t i = first; i < std::min(end, std::ssize(head.tiles)); ++i) GatherTile(args, head, i);
  });
}

void CpuBackend::EncodeHeadKv(const EncodeKvArgs& args, const EncodeHead& head, Bf16* whole) const {
  const int64_t d = args.head_size;
  alignas(64) Bf16 keys[kTileSlots * 256], values[kTileSlots * 256];  // (slot, D)
  size_t source = 0;
  for (const CodedTile tile : head.tiles) {
    for (int64_t s = 0; s < kTileSlots; ++s, ++source) {
      ReadSource(args.pool, *args.rope, d, head.sources[source], head.positions[source], keys + s * d,
                 values + s * d);
    }
    WriteTile(d, kTileSlots, keys, values, whole);
    EncodeTile(d, whole, args.pool.coded(tile));
  }
}

void CpuBackend::EncodeKv(const EncodeKvArgs& args) {
  CheckHeadSize(args.head_size);
  for (const EncodeHead& head : args.heads) {
    PALIMPSEST_CHECK(
        head.positions.size() == head.sources.size() && head.sources.size() == head.tiles.size() * kTileSlots,
        "{} sources, {} positions for {} tiles in 2 bits", head.sources.size(), head.positions.size(),
        head.tiles.size());
  }
  for (Scratch& scratch : scratch_) scratch.tile.Reserve(args.pool.tile_elements);
  pool_.ParallelFor(static_cast<int64_t>(args.heads.size()), [&](int64_t head, int thread) {
    EncodeHeadKv(args, args.heads[static_cast<size_t>(head)],
                 scratch_[static_cast<size_t>(thread)].tile.data());
  });
}

}  // namespace palimpsest::cpu
