// Sums of attention over all rows of a sequence, and which keys are most alike: what policies need that weigh
// tokens by every query, and merging. How both are cut into tasks changes no bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {
namespace {

// Tokens whose weights are kept at once: of 8K keys and a group of 3 they take 1.5 MiB in float.
constexpr int64_t kPieceTokens = 16;
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
        if (there && inverse[s] > 0) {
          std::memcpy(pair, key + 2 * j, 4);
        } else {
          pair[0] = pair[1] = 0;
        }
      }
    }
  }
};

// Adds the blocks of one head, `step` floats apart, of `rows` rows that follow `before` others.
void JoinBlocks(int64_t before, int64_t rows, const float* part, int64_t step, int64_t columns, float* sums,
                float* open) {
  for (int64_t first = 0, last; first < rows; first = last, part += step) {
    last = std::min(rows, first + kSumTokens - (before + first) % kSumTokens);
    if ((before + last) % kSumTokens != 0) {
      std::copy_n(part, columns, open);
      continue;
    }
    for (int64_t i = 0; i < columns; ++i) sums[i] += part[i];
    std::fill_n(open, columns, 0.0f);
  }
}

}  // namespace

// Blocks of rows that begin where they would in one call for all rows; of each, sums of its own for all
// heads.
void CpuBackend::PlanColumns(const AttentionArgs& args, size_t s, int64_t* columns) {
  const AttentionSequence& sequence = args.sequences[s];
  const ColumnSums& sums = *sequence.sums;
  PALIMPSEST_CHECK(sequence.shifts == nullptr, "sums of {} rows over shifted tiles", sequence.rows);
  columns_first_[s] = *columns;
  const int64_t group = args.heads / args.kv_heads, kinds = sums.squares == nullptr ? 1 : 2;
  for (int64_t first = 0, last; first < sequence.rows; first = last) {
    last = std::min(sequence.rows, first + kSumTokens - (sums.rows + first) % kSumTokens);
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      const int64_t tiles = static_cast<int64_t>(sequence.tiles[h].size());
      PALIMPSEST_CHECK(tiles * kTileSlots <= sums.stride, "sums of {} tiles in rows of {}", tiles,
                       sums.stride);
      tasks_.push_back({.sequence = static_cast<int32_t>(s),
                        .kv_head = static_cast<int32_t>(h),
                        .first_row = first,
                        .rows = last - first,
                        .first_tile = 0,
                        .tile_count = tiles,
                        .partial = -1,
                        .columns = *columns + h * group * sums.stride * kinds});
    }
    *columns += args.heads * sums.stride * kinds;
  }
}

void CpuBackend::ReserveColumns(const AttentionArgs& args, int64_t columns) {
  const int64_t rows = kPieceTokens * (args.heads / args.kv_heads);
  int64_t most = 0;
  for (const AttentionTask& task : tasks_) most = std::max(most, task.columns < 0 ? 0 : task.tile_count);
  columns_.Reserve(columns);
  for (Scratch& scratch : scratch_) {
    scratch.q.Reserve(rows * args.head_size);
    if (kernels_.wide_left) scratch.wide.Reserve(rows * args.head_size);
    scratch.positions.Reserve(rows);
    for (auto& state : scratch.state) state.Reserve(StateFloats(rows, OutputStride(args.head_size)));
    scratch.kept.Reserve(rows * most * kTileSlots / (kernels_.wide_left ? 1 : 2));
    scratch.tops.Reserve(rows * RoundUp16(most));
  }
}

// Some rows at a time, so that what is kept of them is small; their columns join the block's in the rows'
// order.
void CpuBackend::RunColumnsTask(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch) {
  const AttentionSequence& sequence = args.sequences[static_cast<size_t>(task.sequence)];
  const ColumnSums& to = *sequence.sums;
  const int64_t group = args.heads / args.kv_heads, floats = group * to.stride;
  const int64_t head = task.kv_head * group * to.stride;
  float* const sums = columns_.data() + task.columns;
  float* const squares = to.squares == nullptr ? nullptr : sums + floats;
  if (task.first_row == 0 && to.rows % kSumTokens != 0) {  // an earlier call began the block
    std::copy_n(to.open + head, floats, sums);
    if (squares != nullptr) std::copy_n(to.open_squares + head, floats, squares);
  } else {
    std::fill_n(sums, squares == nullptr ? floats : 2 * floats, 0.0f);
  }
  const int64_t tops = kPieceTokens * group * RoundUp16(task.tile_count);
  for (int64_t first = 0; first < task.rows; first += kPieceTokens) {
    AttentionTask piece = task;
    piece.first_row += first;
    piece.rows = std::min(kPieceTokens, task.rows - first);
    std::fill_n(scratch.tops.data(), tops, -std::numeric_limits<float>::infinity());
    const State state = AttendRows(args, piece, scratch);
    WriteOut(args, piece, state);
    AddColumns(args, piece, state, scratch, sums, squares);
  }
}

void CpuBackend::AddColumns(const AttentionArgs& args, const AttentionTask& piece, const State& state,
                            Scratch& scratch, float* sums, float* squares) const {
  const int64_t group = args.heads / args.kv_heads, tops_stride = RoundUp16(piece.tile_count);
  const int64_t kept_stride = piece.tile_count * kTileSlots;
  const int64_t stride = args.sequences[static_cast<size_t>(piece.sequence)].sums->stride;
  for (int64_t r = 0; r < piece.rows * group; ++r) {
    float sum = 0;
    for (int64_t lane = 0; lane < 16; ++lane) sum += state.l[r * 16 + lane];
    kernels_.factors(scratch.tops.data() + r * tops_stride, tops_stride, state.m[r],
                     sum > 0 ? 1 / sum : 0.0f);
  }
  for (int64_t g = 0; g < group; ++g) {
    kernels_.sum_columns({.rows = piece.rows,
                          .tiles = piece.tile_count,
                          .weights = KeptAt(scratch, g * kept_stride),
                          .weights_stride = group * kept_stride,
                          .factors = scratch.tops.data() + g * tops_stride,
                          .factors_stride = group * tops_stride,
                          .sums = sums + g * stride,
                          .squares = squares == nullptr ? nullptr : squares + g * stride});
  }
}

// The blocks of each sequence in their order; a last one that is not whole stays open.
void CpuBackend::JoinColumns(const AttentionArgs& args) {
  for (size_t s = 0; s < args.sequences.size(); ++s) {
    if (columns_first_[s] < 0) continue;
    const AttentionSequence& sequence = args.sequences[s];
    const ColumnSums& to = *sequence.sums;
    const int64_t group = args.heads / args.kv_heads, kinds = to.squares == nullptr ? 1 : 2;
    pool_.ParallelFor(args.heads, [&](int64_t head, int) {
      const int64_t kv_head = head / group;
      const int64_t used = static_cast<int64_t>(sequence.tiles[kv_head].size()) * kTileSlots;
      const float* const parts =
          columns_.data() + columns_first_[s] + (kv_head * group * kinds + head % group) * to.stride;
      const int64_t step = args.heads * to.stride * kinds, at = head * to.stride;
      JoinBlocks(to.rows, sequence.rows, parts, step, used, to.sums + at, to.open + at);
      if (to.squares == nullptr) return;
      JoinBlocks(to.rows, sequence.rows, parts + group * to.stride, step, used, to.squares + at,
                 to.open_squares + at);
    });
  }
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
