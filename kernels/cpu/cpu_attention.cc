// Attention on the CPU: how rows and tiles are cut into tasks. Whatever the cut, a row meets its tiles in the
// same order and in the same splits, so its bits are the same.
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "proto/base/status.h"

namespace palimpsest::cpu {
namespace {

// Query rows (tokens x heads of the group) that share one pass over a tile: their state stays in L2.
constexpr int64_t kRowsTogether = 192;
// Up to so many tokens of a sequence, tiles are spread over threads instead of rows.
constexpr int64_t kFewTokens = 4;

int64_t TokensTogether(int64_t group) { return std::max<int64_t>(1, kRowsTogether / group); }

std::span<const CodedTile> CodedOf(const AttentionSequence& sequence, int64_t kv_head) {
  return sequence.coded == nullptr ? std::span<const CodedTile>() : sequence.coded[kv_head];
}

// With those in 2 bits, which come first.
int64_t TilesOf(const AttentionSequence& sequence, int64_t kv_head) {
  return static_cast<int64_t>(CodedOf(sequence, kv_head).size() + sequence.tiles[kv_head].size());
}

}  // namespace

CpuBackend::State CpuBackend::StateAt(float* memory, int64_t rows, int64_t o_stride) const {
  float* l = memory;
  float* o = l + rows * 16;
  return {.m = o + rows * o_stride, .l = l, .o = o};
}

void CpuBackend::ClearState(const State& state, int64_t rows, int64_t o_stride) const {
  std::fill_n(state.m, rows, kEmptyMax);
  std::fill_n(state.l, rows * 16, 0.0f);
  std::fill_n(state.o, rows * o_stride, 0.0f);
}

void CpuBackend::PlanAttention(const AttentionArgs& args) {
  tasks_.clear();
  const int64_t group = args.heads / args.kv_heads;
  const int64_t tokens_together = TokensTogether(group);
  const int64_t carried_floats = StateFloats(tokens_together * group, OutputStride(args.head_size));
  int64_t partial = 0, columns = 0;
  bool coded = false;
  columns_first_.assign(args.sequences.size(), -1);
  for (size_t s = 0; s < args.sequences.size(); ++s) {
    const AttentionSequence& sequence = args.sequences[s];
    PALIMPSEST_CHECK(sequence.coded == nullptr || (sequence.shifts == nullptr && sequence.sums == nullptr),
                     "{} rows over tiles in 2 bits with shifts or sums", sequence.rows);
    PALIMPSEST_CHECK(sequence.carried == nullptr || sequence.sums == nullptr, "sums of {} rows with a state",
                     sequence.rows);
    coded = coded || sequence.coded != nullptr;
    int64_t carried = 0;
    if (sequence.sums != nullptr) {
      PlanColumns(args, s, &columns);
      continue;
    }
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      const int64_t tiles = TilesOf(sequence, h);
      AttentionTask task{.columns = -1};
      task.sequence = static_cast<int32_t>(s);
      task.kv_head = static_cast<int32_t>(h);
      if (sequence.rows <= kFewTokens && sequence.carried == nullptr) {
        for (int64_t first = 0; first < tiles; first += kSplitTiles) {
          task.first_row = 0;
          task.rows = sequence.rows;
          task.first_tile = first;
          task.tile_count = std::min(kSplitTiles, tiles - first);
          task.partial = partial;
          partial += StateFloats(sequence.rows * group, OutputStride(args.head_size));
          tasks_.push_back(task);
        }
        continue;
      }
      for (int64_t first = 0; first < sequence.rows; first += tokens_together) {
        task.first_row = first;
        task.rows = std::min(tokens_together, sequence.rows - first);
        task.first_tile = 0;
        task.tile_count = tiles;
        task.partial = -1;
        if (sequence.carried != nullptr) task.carried = carried_floats * carried++;
        tasks_.push_back(task);
      }
    }
  }
  partials_.Reserve(partial);
  // Later rows see more keys: hand out the long tasks first. Stable order is not needed, results do not
  // depend on it.
  std::sort(tasks_.begin(), tasks_.end(),
            [](const AttentionTask& a, const AttentionTask& b) { return a.first_row > b.first_row; });
  const int64_t rows = std::max(tokens_together, kFewTokens) * group;
  for (Scratch& scratch : scratch_) {
    scratch.q.Reserve(rows * args.head_size);
    if (kernels_.wide_left) scratch.wide.Reserve(rows * args.head_size);
    scratch.positions.Reserve(rows);
    for (auto& state : scratch.state) state.Reserve(StateFloats(rows, OutputStride(args.head_size)));
    scratch.rope.Reserve(args.rope->row_floats());
    if (coded) scratch.tile.Reserve(args.pool.tile_elements);
  }
  if (columns > 0) ReserveColumns(args, columns);
}

// The first `count` numbers of the turned queries. Null where the kernels read them as they are.
const float* CpuBackend::WidenQueries(int64_t count, Scratch& scratch) const {
  if (!kernels_.wide_left) return nullptr;
  kernels_.widen(scratch.q.data(), count, scratch.wide.data());
  return scratch.wide.data();
}

// The queries of a task's rows, for keys that were turned to (position - base) and stand `shift` further
// back.
void CpuBackend::TurnTaskQueries(const AttentionArgs& args, const AttentionTask& task, int64_t base,
                                 int64_t shift, Scratch& scratch) const {
  const AttentionSequence& sequence = args.sequences[static_cast<size_t>(task.sequence)];
  const int64_t group = args.heads / args.kv_heads, d = args.head_size;
  for (int64_t t = 0; t < task.rows; ++t) {
    const int64_t position = sequence.positions[task.first_row + t] - shift;
    const float* rope = args.rope->Row(std::max<int64_t>(0, position - base), scratch.rope.data());
    const float* q = args.q.row(sequence.first_row + task.first_row + t) + task.kv_head * group * d;
    for (int64_t g = 0; g < group; ++g) {
      kernels_.rotate(q + g * d, rope, d, scratch.q.data() + (t * group + g) * d);
      scratch.positions[t * group + g] = position;
    }
  }
}

// All but the tiles: those are the pool's, if the caller says nothing else.
AttendBlock CpuBackend::AttendBlockOf(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch,
                                      const State& state) const {
  const int64_t rows = task.rows * (args.heads / args.kv_heads), d = args.head_size;
  return {
      .q = scratch.q.data(),
      .q_wide = WidenQueries(rows * d, scratch),
      .rows = rows,
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
      .m = state.m,
      .l = state.l,
      .o = state.o,
      .o_stride = OutputStride(d),
  };
}

// Tiles [first_tile, first_tile + count) in runs of one base and shift: the queries are turned once for each.
// To the tiles of a run, the rows stand `shift` further ahead than they say.
void CpuBackend::AttendTiles(const AttentionArgs& args, const AttentionTask& task, int64_t first_tile,
                             int64_t count, Scratch& scratch, const State& state) {
  const AttentionSequence& sequence = args.sequences[static_cast<size_t>(task.sequence)];
  const std::span<const CodedTile> coded = CodedOf(sequence, task.kv_head);
  const int64_t in_bits = std::clamp<int64_t>(std::ssize(coded) - first_tile, 0, count);
  if (in_bits > 0) {
    AttendCoded(args, task, coded.subspan(static_cast<size_t>(first_tile), static_cast<size_t>(in_bits)),
                scratch, state);
  }
  const int32_t* tiles = sequence.tiles[task.kv_head].data();
  const int32_t* shifts = sequence.shifts == nullptr ? nullptr : sequence.shifts[task.kv_head].data();
  const auto shift_of = [&](int64_t i) { return shifts == nullptr ? 0 : shifts[i]; };
  int64_t first = first_tile + in_bits - std::ssize(coded);
  const int64_t end = first + count - in_bits;
  while (first < end) {
    const int64_t base = args.pool.bases[tiles[first]], shift = shift_of(first);
    int64_t last = first + 1;
    while (last < end && args.pool.bases[tiles[last]] == base && shift_of(last) == shift) ++last;
    TurnTaskQueries(args, task, base, shift, scratch);
    AttendBlock block = AttendBlockOf(args, task, scratch, state);
    block.tiles = tiles + first;
    block.tile_count = last - first;
    if (task.columns >= 0) {
      const int64_t kept_stride = std::ssize(sequence.tiles[task.kv_head]) * kTileSlots;
      block.weights = KeptAt(scratch, first * kTileSlots);
      block.weights_stride = kept_stride;
      block.tops = scratch.tops.data() + first;
      block.tops_stride = RoundUp16(kept_stride / kTileSlots);
    }
    kernels_.attend(block);
    first = last;
  }
}

// Each is written out in the thread's own memory, which stays in its nearest cache, and met there as any
// other.
void CpuBackend::AttendCoded(const AttentionArgs& args, const AttentionTask& task,
                             std::span<const CodedTile> tiles, Scratch& scratch, const State& state) const {
  static constexpr int32_t kTile = 0, kStart = 0, kCount = kTileSlots;
  static constexpr std::array<int32_t, kTileSlots> kSeenByAll{};  // position 0
  TurnTaskQueries(args, task, /*base=*/0, /*shift=*/0, scratch);
  AttendBlock block = AttendBlockOf(args, task, scratch, state);
  block.pool = scratch.tile.data();
  block.counts = &kCount;
  block.starts = &kStart;
  block.slot_positions = kSeenByAll.data();
  block.tiles = &kTile;
  block.tile_count = 1;
  for (const CodedTile tile : tiles) {
    kernels_.decode_tile(reinterpret_cast<const uint8_t*>(args.pool.coded(tile)),
                         args.pool.tile_elements / kCodedRunElements, scratch.tile.data());
    kernels_.attend(block);
  }
}

void CpuBackend::WriteOut(const AttentionArgs& args, const AttentionTask& task, const State& state) {
  const AttentionSequence& sequence = args.sequences[static_cast<size_t>(task.sequence)];
  const int64_t group = args.heads / args.kv_heads, d = args.head_size, o_stride = OutputStride(d);
  for (int64_t t = 0; t < task.rows; ++t) {
    Bf16* row = args.out.row(sequence.first_row + task.first_row + t) + task.kv_head * group * d;
    for (int64_t g = 0; g < group; ++g) {
      Bf16* out = row + g * d;
      const int64_t r = t * group + g;
      kernels_.finish(1, d, state.l + r * 16, state.o + r * o_stride, o_stride, &out);
    }
  }
}

void CpuBackend::RunAttentionTask(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch) {
  const int64_t rows = task.rows * (args.heads / args.kv_heads), o_stride = OutputStride(args.head_size);
  if (task.partial >= 0) {
    const State state = StateAt(partials_.data() + task.partial, rows, o_stride);
    ClearState(state, rows, o_stride);
    AttendTiles(args, task, task.first_tile, task.tile_count, scratch, state);
    return;
  }
  if (task.columns >= 0) return RunColumnsTask(args, task, scratch);
  if (task.carried >= 0) return RunCarriedTask(args, task, scratch);
  WriteOut(args, task, AttendRows(args, task, scratch));
}

// All splits of some rows, in their order.
CpuBackend::State CpuBackend::AttendRows(const AttentionArgs& args, const AttentionTask& task,
                                         Scratch& scratch) {
  const int64_t rows = task.rows * (args.heads / args.kv_heads), o_stride = OutputStride(args.head_size);
  const State total = StateAt(scratch.state[0].data(), rows, o_stride);
  ClearState(total, rows, o_stride);
  AddSplits(args, task, /*fresh=*/true, scratch, total);
  return total;
}

// All splits of some rows, in their order, to `total`; `fresh`: there is nothing in it.
void CpuBackend::AddSplits(const AttentionArgs& args, const AttentionTask& task, bool fresh, Scratch& scratch,
                           const State& total) {
  const int64_t rows = task.rows * (args.heads / args.kv_heads), o_stride = OutputStride(args.head_size);
  const State split = StateAt(scratch.state[1].data(), rows, o_stride);
  for (int64_t first = 0; first < task.tile_count; first += kSplitTiles) {
    const int64_t count = std::min(kSplitTiles, task.tile_count - first);
    if (first == 0 && fresh) {
      AttendTiles(args, task, first, count, scratch, total);
      continue;
    }
    ClearState(split, rows, o_stride);
    AttendTiles(args, task, first, count, scratch, split);
    kernels_.merge(rows, o_stride, total.m, total.l, total.o, split.m, split.l, split.o);
  }
}

// As AttendRows, in the caller's memory.
void CpuBackend::RunCarriedTask(const AttentionArgs& args, const AttentionTask& task, Scratch& scratch) {
  const CarriedAttention& carried = *args.sequences[static_cast<size_t>(task.sequence)].carried;
  const int64_t rows = task.rows * (args.heads / args.kv_heads), o_stride = OutputStride(args.head_size);
  const State total = StateAt(carried.state + task.carried, rows, o_stride);
  if (carried.first) ClearState(total, rows, o_stride);
  AddSplits(args, task, carried.first, scratch, total);
  if (carried.last) WriteOut(args, task, total);
}

int64_t CpuBackend::CarriedFloats(int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_size) const {
  const int64_t group = heads / kv_heads, together = TokensTogether(group);
  return kv_heads * DivideUp(rows, together) * StateFloats(together * group, OutputStride(head_size));
}

// Joins the splits of each (sequence, head) in the order of their tiles, into the first.
void CpuBackend::MergePartials(const AttentionArgs& args) {
  const int64_t group = args.heads / args.kv_heads, o_stride = OutputStride(args.head_size);
  for (const AttentionTask& first : tasks_) {
    if (first.partial < 0 || first.first_tile != 0) continue;
    const int64_t rows = first.rows * group;
    const int64_t tiles = TilesOf(args.sequences[static_cast<size_t>(first.sequence)], first.kv_head);
    const State total = StateAt(partials_.data() + first.partial, rows, o_stride);
    for (int64_t split = 1; split * kSplitTiles < tiles; ++split) {
      const State part =
          StateAt(partials_.data() + first.partial + split * StateFloats(rows, o_stride), rows, o_stride);
      kernels_.merge(rows, o_stride, total.m, total.l, total.o, part.m, part.l, part.o);
    }
    WriteOut(args, first, total);
  }
}

void CpuBackend::Attention(const AttentionArgs& args) {
  CheckHeadSize(args.head_size);
  PALIMPSEST_CHECK(args.heads % args.kv_heads == 0, "{} heads over {} KV heads", args.heads, args.kv_heads);
  PlanAttention(args);
  pool_.ParallelFor(static_cast<int64_t>(tasks_.size()), [&](int64_t task, int thread) {
    RunAttentionTask(args, tasks_[static_cast<size_t>(task)], scratch_[static_cast<size_t>(thread)]);
  });
  MergePartials(args);
  JoinColumns(args);
}

}  // namespace palimpsest::cpu
