// Sums of attention over all rows of a step, and which keys are most alike: what policies need that weigh
// tokens by every query, and merging. How both are cut into tasks changes no bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {
namespace {

constexpr int64_t kTilesTogether = 8;   // of one task: their keys stay in L2, rows are turned once for each
constexpr int64_t kRowsTogether = 192;  // tokens x heads of the group that meet a tile one after the other
constexpr int64_t kSourcesTogether = 768;  // keys of one task that meet each packed panel

// 1 / length; 0 for keys that are like none.
float InverseLength(const Bf16* key, int64_t head_size) {
  double sum = 0;
  for (int64_t i = 0; i < head_size; ++i) {
    const double x = static_cast<double>(Bf16ToFloat(key[i]));
    sum += x * x;
  }
  const float inverse = static_cast<float>(1 / std::sqrt(sum));
  return sum > 0 && std::isfinite(sum) && std::isfinite(inverse) ? inverse : 0.0f;
}

// Up to 64 keys side by side, as MultiplyKeys reads them. Those that are like none are zeros.
struct Panel {
  alignas(64) Bf16 keys[kTileSlots * 256];  // (D / 2, 64, 2)
  alignas(64) float inverse[kTileSlots], bias[kTileSlots];

  void Pack(std::span<const Bf16* const> from, int64_t head_size) {
    for (int64_t s = 0; s < kTileSlots; ++s) {
      const bool there = s < static_cast<int64_t>(from.size());
      const Bf16* const key = there ? from[static_cast<size_t>(s)] : nullptr;
      inverse[s] = there ? InverseLength(key, head_size) : 0.0f;
      bias[s] = there ? 0.0f : -std::numeric_limits<float>::infinity();
      for (int64_t j = 0; j < head_size / 2; ++j) {
        Bf16* const pair = keys + (j * kTileSlots + s) * 2;
        if (inverse[s] > 0) {
          std::memcpy(pair, key + 2 * j, 4);
        } else {
          pair[0] = pair[1] = 0;
        }
      }
    }
  }
};

}  // namespace

// Some tiles of one KV head. Blocks of rows in their order; in a block each tile meets its rows in order.
void CpuBackend::AddHeadSums(const ColumnSumsArgs& args, int64_t kv_head, int64_t first_tile,
                             int64_t tile_count, Scratch& scratch) const {
  const AttentionSequence& sequence = *args.sequence;
  const int64_t group = args.heads / args.kv_heads, d = args.head_size;
  const int64_t together = std::max<int64_t>(1, kRowsTogether / group);
  const int32_t* const tiles = sequence.tiles[kv_head].data();
  float* const tops = scratch.state[0].data();
  ScoreBlock block{.q = scratch.q.data(),
                   .q_wide = nullptr,
                   .rows = 0,
                   .tokens = 0,
                   .positions = scratch.positions.data(),
                   .head_size = d,
                   .scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(d))),
                   .pool = args.pool.data,
                   .tile_elements = args.pool.tile_elements,
                   .counts = args.pool.counts,
                   .starts = args.pool.starts,
                   .slot_positions = args.pool.positions,
                   .tiles = nullptr,
                   .tile_count = 0,
                   .m = tops,
                   .l = nullptr,
                   .inverse = tops + together * group,
                   .largest = false,
                   .out = nullptr,
                   .squares = nullptr,
                   .out_stride = args.stride};
  for (int64_t first_row = 0; first_row < sequence.rows; first_row += together) {
    block.tokens = std::min(together, sequence.rows - first_row);
    block.rows = block.tokens * group;
    for (int64_t t = 0; t < block.tokens; ++t) {
      const int64_t normaliser = (sequence.first_row + first_row + t) * args.heads + kv_head * group;
      for (int64_t g = 0; g < group; ++g) {
        const int64_t r = g * block.tokens + t;
        scratch.positions[r] = sequence.positions[first_row + t];
        block.m[r] = args.tops[normaliser + g];
        block.inverse[r] = args.inverses[normaliser + g];
      }
    }
    for (int64_t first = first_tile, last; first < first_tile + tile_count; first = last) {
      const int32_t base = args.pool.bases[tiles[first]];
      for (last = first + 1; last < first_tile + tile_count && args.pool.bases[tiles[last]] == base;) ++last;
      for (int64_t t = 0; t < block.tokens; ++t) {
        const int64_t offset = std::max<int64_t>(0, scratch.positions[t] - base);
        const float* const rope = args.rope->Row(offset, scratch.rope.data());
        const float* const q = args.q.row(sequence.first_row + first_row + t) + kv_head * group * d;
        for (int64_t g = 0; g < group; ++g) {
          kernels_.rotate(q + g * d, rope, d, scratch.q.data() + (g * block.tokens + t) * d);
        }
      }
      block.q_wide = WidenQueries(block.rows * d, scratch);
      block.tiles = tiles + first;
      block.tile_count = last - first;
      const int64_t at = kv_head * group * args.stride + first * kTileSlots;
      block.out = args.sums + at;
      if (args.squares != nullptr) block.squares = args.squares + at;
      kernels_.score_weights(block);
    }
  }
}

void CpuBackend::AddColumnSums(const ColumnSumsArgs& args) {
  CheckHeadSize(args.head_size);
  PALIMPSEST_CHECK(args.heads % args.kv_heads == 0, "{} heads over {} KV heads", args.heads, args.kv_heads);
  PALIMPSEST_CHECK(args.sequence->shifts == nullptr, "sums of {} rows over shifted tiles",
                   args.sequence->rows);
  const int64_t group = args.heads / args.kv_heads;
  const int64_t rows = std::max<int64_t>(1, kRowsTogether / group) * group;
  for (Scratch& scratch : scratch_) {
    scratch.q.Reserve(rows * args.head_size);
    if (kernels_.wide_left) scratch.wide.Reserve(rows * args.head_size);
    scratch.positions.Reserve(rows);
    scratch.state[0].Reserve(2 * rows);
    scratch.rope.Reserve(args.rope->row_floats());
  }
  int64_t most = 0;
  for (int64_t h = 0; h < args.kv_heads; ++h) {
    const int64_t tiles = static_cast<int64_t>(args.sequence->tiles[h].size());
    PALIMPSEST_CHECK(tiles * kTileSlots <= args.stride, "sums of {} tiles in rows of {}", tiles, args.stride);
    most = std::max(most, tiles);
  }
  const int64_t parts = (most + kTilesTogether - 1) / kTilesTogether;
  // The first tiles, which most rows see, first.
  pool_.ParallelFor(parts * args.kv_heads, [&](int64_t task, int thread) {
    const int64_t head = task % args.kv_heads, first = task / args.kv_heads * kTilesTogether;
    const int64_t tiles = static_cast<int64_t>(args.sequence->tiles[head].size());
    if (first >= tiles) return;
    AddHeadSums(args, head, first, std::min(kTilesTogether, tiles - first),
                scratch_[static_cast<size_t>(thread)]);
  });
}

// Panels in order, so that of equals the first stays.
void CpuBackend::MatchSources(const MatchHead& head, int64_t head_size, int64_t first, int64_t count,
                              Scratch& scratch) const {
  float* const best = scratch.state[0].data();
  float* const inverse = best + count;
  for (int64_t i = 0; i < count; ++i) {
    const Bf16* const key = head.sources[static_cast<size_t>(first + i)];
    best[i] = -std::numeric_limits<float>::infinity();
    inverse[i] = InverseLength(key, head_size);
    Bf16* const to = scratch.q.data() + i * head_size;
    if (inverse[i] > 0) {
      std::copy_n(key, head_size, to);
    } else {
      std::fill_n(to, head_size, Bf16{0});
    }
  }
  std::fill_n(head.best + first, count, 0);
  Panel panel;
  const float* const wide = WidenQueries(count * head_size, scratch);
  for (size_t target = 0; target < head.targets.size(); target += kTileSlots) {
    panel.Pack(head.targets.subspan(target, std::min<size_t>(kTileSlots, head.targets.size() - target)),
               head_size);
    kernels_.match({.q = scratch.q.data(),
                    .q_wide = wide,
                    .rows = count,
                    .head_size = head_size,
                    .panel = panel.keys,
                    .inverse = panel.inverse,
                    .bias = panel.bias,
                    .first = static_cast<int32_t>(target),
                    .best = best,
                    .index = head.best + first});
  }
  for (int64_t i = 0; i < count; ++i) {
    const float cosine = best[i] * inverse[i];  // of numbers near the largest there are, products overflow
    head.similarity[first + i] = std::isfinite(cosine) ? std::clamp(cosine, -1.0f, 1.0f) : 0.0f;
  }
}

void CpuBackend::MatchKeys(const MatchKeysArgs& args) {
  CheckHeadSize(args.head_size);
  for (Scratch& scratch : scratch_) {
    scratch.q.Reserve(kSourcesTogether * args.head_size);
    if (kernels_.wide_left) scratch.wide.Reserve(kSourcesTogether * args.head_size);
    scratch.state[0].Reserve(2 * kSourcesTogether);
  }
  int64_t parts = 0;
  for (const MatchHead& head : args.heads) {
    PALIMPSEST_CHECK(!head.targets.empty(), "{} keys and none that they could be like", head.sources.size());
    const int64_t sources = static_cast<int64_t>(head.sources.size());
    parts = std::max(parts, (sources + kSourcesTogether - 1) / kSourcesTogether);
  }
  const int64_t heads = static_cast<int64_t>(args.heads.size());
  pool_.ParallelFor(parts * heads, [&](int64_t task, int thread) {
    const MatchHead& head = args.heads[static_cast<size_t>(task % heads)];
    const int64_t first = task / heads * kSourcesTogether;
    const int64_t sources = static_cast<int64_t>(head.sources.size());
    if (first >= sources) return;
    MatchSources(head, args.head_size, first, std::min(kSourcesTogether, sources - first),
                 scratch_[static_cast<size_t>(thread)]);
  });
}

}  // namespace palimpsest::cpu
