// What compression needs of the CPU: scores of keys, losses of tokens.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {
// All query heads of the group for one base: row g * tokens + t, as the kernels want them.
void CpuBackend::TurnQueries(const ScoreKeysArgs& args, const ScoreHead& head, int64_t base,
                             Scratch& scratch) const {
  const int64_t tokens = static_cast<int64_t>(args.positions.size()), d = args.head_size;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t offset = args.positions[static_cast<size_t>(t)] - base;
    const float* rope = args.rope->Row(std::max<int64_t>(0, offset), scratch.rope.data());
    for (int64_t g = 0; g < args.group; ++g) {
      kernels_.rotate(head.q.row(t) + g * d, rope, d, scratch.q.data() + (g * tokens + t) * d);
    }
  }
}

// Two passes over runs of tiles of one base. Tiles and rows are met in order, by one thread: bits do not
// depend on how many there are.
void CpuBackend::ScoreHeadKeys(const ScoreKeysArgs& args, const ScoreHead& head, Scratch& scratch) const {
  const int64_t tokens = static_cast<int64_t>(args.positions.size()), rows = tokens * args.group;
  const int64_t tiles = static_cast<int64_t>(head.tiles.size());
  float* l = scratch.state[0].data();
  ScoreBlock block{
      .q = scratch.q.data(),
      .q_wide = nullptr,
      .rows = rows,
      .tokens = tokens,
      .positions = scratch.positions.data(),
      .head_size = args.head_size,
      .scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(args.head_size))),
      .pool = args.pool.data,
      .tile_elements = args.pool.tile_elements,
      .counts = args.pool.counts,
      .starts = args.pool.starts,
      .slot_positions = args.pool.positions,
      .tiles = nullptr,
      .tile_count = 0,
      .m = l + rows * 16,
      .l = l,
      .inverse = l + rows * 17,
      .largest = args.reduce == RowReduce::kMax,
      .out = nullptr,
      .out_stride = tiles * kTileSlots};
  for (int64_t r = 0; r < rows; ++r) {
    scratch.positions[r] = args.positions[static_cast<size_t>(r % tokens)];
    block.m[r] = kEmptyMax;
  }
  std::fill_n(l, rows * 16, 0.0f);
  std::fill_n(head.out, args.group * block.out_stride, 0.0f);

  int64_t turned_to = std::numeric_limits<int64_t>::min();
  const auto each_run = [&](void (*score)(const ScoreBlock&)) {
    for (int64_t first = 0, last; first < tiles; first = last) {
      const auto base_of = [&](int64_t i) { return args.pool.bases[head.tiles[static_cast<size_t>(i)]]; };
      for (last = first + 1; last < tiles && base_of(last) == base_of(first);) ++last;
      if (base_of(first) != turned_to) {
        TurnQueries(args, head, base_of(first), scratch);
        block.q_wide = WidenQueries(rows * args.head_size, scratch);
        turned_to = base_of(first);
      }
      block.tiles = head.tiles.data() + first;
      block.tile_count = last - first;
      block.out = head.out + first * kTileSlots;
      score(block);
    }
  };
  each_run(kernels_.score_sums);
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0;
    for (int64_t lane = 0; lane < 16; ++lane) sum += l[r * 16 + lane];
    block.inverse[r] = sum > 0 ? 1.0f / sum : 0.0f;
  }
  each_run(kernels_.score_weights);
}

void CpuBackend::ScoreKeys(const ScoreKeysArgs& args) {
  CheckHeadSize(args.head_size);
  const int64_t rows = static_cast<int64_t>(args.positions.size()) * args.group;
  for (const ScoreHead& head : args.heads) {
    PALIMPSEST_CHECK(head.q.rows * args.group == rows && head.q.columns == args.group * args.head_size,
                     "queries ({}, {}) for {} positions and {} heads of {}", head.q.rows, head.q.columns,
                     args.positions.size(), args.group, args.head_size);
  }
  for (Scratch& scratch : scratch_) {
    scratch.q.Reserve(rows * args.head_size);
    if (kernels_.wide_left) scratch.wide.Reserve(rows * args.head_size);
    scratch.positions.Reserve(rows);
    scratch.state[0].Reserve(rows * 18);
    scratch.rope.Reserve(args.rope->row_floats());
  }
  pool_.ParallelFor(static_cast<int64_t>(args.heads.size()), [&](int64_t head, int thread) {
    ScoreHeadKeys(args, args.heads[static_cast<size_t>(head)], scratch_[static_cast<size_t>(thread)]);
  });
}

void CpuBackend::TokenLosses(const TokenLossesArgs& args) {
  const int64_t rows = static_cast<int64_t>(args.targets.size());
  PALIMPSEST_CHECK(args.logits.rows >= rows && args.out.size() >= args.targets.size(),
                   "{} targets for {} rows of logits, room for {}", rows, args.logits.rows, args.out.size());
  pool_.ParallelFor(rows, [&](int64_t t, int) {
    const float* logits = args.logits.row(t);
    float largest, sum;
    kernels_.sum_exp(logits, args.logits.columns, &largest, &sum);
    const double target = static_cast<double>(logits[args.targets[static_cast<size_t>(t)]]);
    args.out[static_cast<size_t>(t)] =
        static_cast<float>(static_cast<double>(largest) - target + std::log(static_cast<double>(sum)));
  });
}

}  // namespace palimpsest::cpu
