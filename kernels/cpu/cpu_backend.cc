#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "proto/base/status.h"

namespace palimpsest::cpu {
namespace {

int64_t RoundUp(int64_t a, int64_t b) { return DivideUp(a, b) * b; }

// Rows up to this many stream the weights once from memory; above, weights are reused from cache.
constexpr int64_t kFewRows = 8;
// A widened row block stays in L2, or close to it.
constexpr int64_t kWideFloats = 74'000;
// Inputs that share a scale in the int8 class.
constexpr int64_t kInt8Group = 64;

double SecondsOf(const auto& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void CheckHeadSize(int64_t head_size) {
  PALIMPSEST_CHECK(head_size % 16 == 0 && head_size <= 256, "head size {}", head_size);
}

CpuBackend::CpuBackend(const IsaKernels& kernels, const ThreadPool::Options& threads)
    : kernels_(kernels), pool_(threads), scratch_(static_cast<size_t>(pool_.threads())) {}

PackedWeights CpuBackend::Pack(int64_t n, int64_t k, WeightFormat format, const FillRow& fill_row) {
  PackedWeights packed;
  packed.format = format;
  packed.n = n;
  packed.k = k;
  packed.n_padded = RoundUp(n, kPanelColumns);
  if (format == WeightFormat::kInt8) {
    PackInt8(packed, fill_row);
  } else {
    PackBf16(packed, fill_row);
  }
  return packed;
}

void CpuBackend::PackBf16(PackedWeights& packed, const FillRow& fill_row) {
  const int64_t k = packed.k;
  PALIMPSEST_CHECK(k % 2 == 0, "inner dimension {} is odd", k);
  packed.bf16 = AlignedBuffer<Bf16>(packed.n_padded * k);
  pool_.ParallelFor(packed.panels(), [&](int64_t panel, int) {
    std::vector<float> row(static_cast<size_t>(k));
    std::vector<Bf16> rounded(static_cast<size_t>(k));
    Bf16* out = packed.bf16.data() + panel * kPanelColumns * k;
    for (int64_t column = 0; column < std::min(kPanelColumns, packed.n - panel * kPanelColumns); ++column) {
      fill_row(panel * kPanelColumns + column, row.data());
      for (size_t i = 0; i < row.size(); ++i) rounded[i] = FloatToBf16(row[i]);
      for (int64_t i = 0; i < k / 2; ++i)
        std::memcpy(out + (i * kPanelColumns + column) * 2, &rounded[2 * i], 4);
    }
  });
}

void CpuBackend::PackInt8(PackedWeights& packed, const FillRow& fill_row) {
  const int64_t k = packed.k, groups = k / kInt8Group;
  PALIMPSEST_CHECK(kernels_.int8 && k % kInt8Group == 0, "inner dimension {}", k);
  packed.int8 = AlignedBuffer<int8_t>(packed.n_padded * k);
  packed.scales = AlignedBuffer<float>(packed.n_padded * groups);
  packed.sums = AlignedBuffer<int32_t>(packed.n_padded * groups);
  pool_.ParallelFor(packed.panels(), [&](int64_t panel, int) {
    std::vector<float> row(static_cast<size_t>(k));
    int8_t* out = packed.int8.data() + panel * kPanelColumns * k;
    for (int64_t column = 0; column < std::min(kPanelColumns, packed.n - panel * kPanelColumns); ++column) {
      fill_row(panel * kPanelColumns + column, row.data());
      for (int64_t group = 0; group < groups; ++group) {
        const float* w = row.data() + group * kInt8Group;
        float largest = 0;
        for (int64_t i = 0; i < kInt8Group; ++i) largest = std::max(largest, std::abs(w[i]));
        const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
        int32_t sum = 0;
        for (int64_t i = 0; i < kInt8Group; ++i) {
          const int8_t q = static_cast<int8_t>(std::lrintf(w[i] * inverse));
          out[((group * kInt8Group + i) / 4 * kPanelColumns + column) * 4 + i % 4] = q;
          sum += q;
        }
        const int64_t at = (panel * groups + group) * kPanelColumns + column;
        packed.scales[at] = largest / 127.0f;
        packed.sums[at] = -128 * sum;
      }
    }
  });
}

void CpuBackend::Embed(const EmbedArgs& args) {
  const PackedWeights& w = *args.weights;
  PALIMPSEST_CHECK(w.format == WeightFormat::kBf16, "embeddings are read in bf16");
  constexpr int64_t kRowsPerTask = 16;
  const int64_t rows = static_cast<int64_t>(args.ids.size());
  pool_.ParallelFor(DivideUp(rows, kRowsPerTask), [&](int64_t task, int) {
    for (int64_t t = task * kRowsPerTask; t < std::min(rows, (task + 1) * kRowsPerTask); ++t) {
      const int64_t id = args.ids[static_cast<size_t>(t)];
      const Bf16* panel = w.bf16.data() + id / kPanelColumns * kPanelColumns * w.k;
      float* x = args.x.row(t);
      for (int64_t i = 0; i < w.k / 2; ++i) {
        const Bf16* pair = panel + (i * kPanelColumns + id % kPanelColumns) * 2;
        x[2 * i] = Bf16ToFloat(pair[0]);
        x[2 * i + 1] = Bf16ToFloat(pair[1]);
      }
    }
  });
}

void CpuBackend::RmsNorm(const RmsNormArgs& args) {
  PALIMPSEST_CHECK(args.x.columns % 16 == 0, "norm of {} columns: not a multiple of 16", args.x.columns);
  constexpr int64_t kRowsPerTask = 32;
  pool_.ParallelFor(DivideUp(args.x.rows, kRowsPerTask), [&](int64_t task, int) {
    for (int64_t t = task * kRowsPerTask; t < std::min(args.x.rows, (task + 1) * kRowsPerTask); ++t) {
      kernels_.rms_norm(args.x.row(t), args.weight, args.epsilon, args.x.columns, args.out.row(t));
    }
  });
}

GemmBlock CpuBackend::BlockOf(const MatMulArgs& args, int64_t row, int64_t rows, int64_t panel,
                              int64_t column, int64_t columns) const {
  const PackedWeights& w = *args.weights;
  const int64_t first = panel * kPanelColumns + column;  // output
  GemmBlock block{};
  block.a = args.a.row(row);
  block.lda = args.a.stride;
  if (kernels_.wide_left) block.a_wide = widened_.data() + row * w.k;
  block.rows = rows;
  block.k = w.k;
  if (w.format == WeightFormat::kInt8) {
    const int64_t groups = w.k / kInt8Group, at = panel * groups * kPanelColumns;
    block.a8 = quantized_.data() + row * w.k;
    block.a_scales = quantized_scales_.data() + row * groups;
    block.b8 = w.int8.data() + panel * kPanelColumns * w.k;
    block.b_scales = w.scales.data() + at;
    block.b_sums = w.sums.data() + at;
  } else {
    block.b = w.bf16.data() + panel * kPanelColumns * w.k;
  }
  block.column = column;
  block.columns = columns;
  block.valid_columns = std::min(columns, w.n - first);
  block.output = static_cast<int>(args.output);
  if (args.output == MatMulOutput::kSiluGate) {
    block.gated = args.gated.row(row) + first / 2;
    block.ldg = args.gated.stride;
  } else {
    block.out = args.out.row(row) + first;
    block.ldo = args.out.stride;
  }
  return block;
}

void CpuBackend::MatMul(const MatMulArgs& args) {
  PALIMPSEST_CHECK(args.a.columns == args.weights->k, "product of {} columns with weights of {}",
                   args.a.columns, args.weights->k);
  PALIMPSEST_CHECK(args.output != MatMulOutput::kSiluGate || args.weights->n % 32 == 0);
  if (args.weights->format == WeightFormat::kInt8) QuantizeActivations(args);
  if (kernels_.wide_left) WidenActivations(args);
  if (args.a.rows <= kFewRows) return MatMulFewRows(args);
  MatMulManyRows(args);
}

void CpuBackend::WidenActivations(const MatMulArgs& args) {
  constexpr int64_t kRowsPerTask = 32;
  const int64_t k = args.weights->k, whole = k / 16 * 16;
  widened_.Reserve(args.a.rows * k);
  pool_.ParallelFor(DivideUp(args.a.rows, kRowsPerTask), [&](int64_t task, int) {
    for (int64_t t = task * kRowsPerTask; t < std::min(args.a.rows, (task + 1) * kRowsPerTask); ++t) {
      float* wide = widened_.data() + t * k;
      kernels_.widen(args.a.row(t), whole, wide);
      for (int64_t i = whole; i < k; ++i) wide[i] = Bf16ToFloat(args.a.row(t)[i]);
    }
  });
}

void CpuBackend::QuantizeActivations(const MatMulArgs& args) {
  constexpr int64_t kRowsPerTask = 32;
  const int64_t k = args.weights->k, groups = k / kInt8Group;
  quantized_.Reserve(args.a.rows * k);
  quantized_scales_.Reserve(args.a.rows * groups);
  pool_.ParallelFor(DivideUp(args.a.rows, kRowsPerTask), [&](int64_t task, int) {
    for (int64_t t = task * kRowsPerTask; t < std::min(args.a.rows, (task + 1) * kRowsPerTask); ++t) {
      kernels_.quantize_row(args.a.row(t), k, quantized_.data() + t * k,
                            quantized_scales_.data() + t * groups);
    }
  });
}

// Blocks of about 128 rows stay in L2 beside one panel of weights, which all their rows use while it is
// there.
void CpuBackend::MatMulManyRows(const MatMulArgs& args) {
  const auto gemm = GemmOf(args);
  const int64_t rows = args.a.rows, panels = args.weights->panels();
  const int64_t together =
      kernels_.wide_left ? std::clamp<int64_t>(kWideFloats / args.weights->k, 24, 128) : 128;
  const int64_t row_blocks =
      std::max(DivideUp(rows, together), std::min<int64_t>(pool_.threads(), rows / 12));
  const int64_t block_rows = RoundUp(DivideUp(rows, std::max<int64_t>(row_blocks, 1)), 6);
  const int64_t blocks = DivideUp(rows, block_rows);
  const int64_t groups = DivideUp(panels, 8);
  pool_.ParallelFor(blocks * groups, [&](int64_t task, int) {
    const int64_t row = task % blocks * block_rows, group = task / blocks;
    const int64_t count = std::min(block_rows, rows - row);
    for (int64_t panel = panels * group / groups; panel < panels * (group + 1) / groups; ++panel) {
      gemm(BlockOf(args, row, count, panel, 0, kPanelColumns));
    }
  });
}

// Weights stream from memory: half panels, so that both threads get the same share of narrow matrices.
void CpuBackend::MatMulFewRows(const MatMulArgs& args) {
  const auto gemm = GemmOf(args);
  const int64_t halves = args.weights->panels() * 2;
  const int64_t tasks = std::min<int64_t>(halves, pool_.threads() * 8);
  pool_.ParallelFor(tasks, [&](int64_t task, int) {
    const int64_t first = halves * task / tasks, last = halves * (task + 1) / tasks;
    for (int64_t half = first; half < last;) {
      const bool whole = half % 2 == 0 && half + 1 < last;
      const int64_t column = half % 2 * 32, columns = whole ? 64 : 32;
      half += whole ? 2 : 1;
      const int64_t panel = (half - 1) / 2;
      if (panel * kPanelColumns + column >= args.weights->n) continue;
      GemmBlock block = BlockOf(args, 0, args.a.rows, panel, column, columns);
      block.stream = true;
      gemm(block);
    }
  });
}

// A key from its form at rest to the one in a tile. All that fills tiles comes here, so that what is loaded
// or gathered equals what was computed.
void CpuBackend::RotateKey(const RopeTable& rope, int64_t head_size, int64_t offset, const Bf16* key,
                           Bf16* out) const {
  alignas(64) float wide[256], scratch[512];
  kernels_.widen(key, head_size, wide);
  kernels_.rotate(wide, rope.Row(offset, scratch), head_size, out);
}

// One token of one KV head into its slot: the key turned from its form at rest, the value as it is.
void CpuBackend::WriteSlot(const TilePool& pool, const RopeTable& rope, int64_t head_size, int32_t tile,
                           int64_t slot, int64_t position, const Bf16* key, const Bf16* value) const {
  alignas(64) Bf16 rotated[256];
  RotateKey(rope, head_size, position - pool.bases[tile], key, rotated);
  Bf16* k = pool.k(tile) + slot * 2;
  for (int64_t i = 0; i < head_size / 2; ++i) std::memcpy(k + i * kTileSlots * 2, rotated + 2 * i, 4);
  Bf16* v = pool.v(tile, head_size) + slot / 2 * 128 + slot % 2;
  for (int64_t i = 0; i < head_size; ++i) v[i / 64 * 4096 + i % 64 * 2] = value[i];
}

void CpuBackend::StoreKv(const StoreKvArgs& args) {
  constexpr int64_t kRowsPerTask = 16;
  CheckHeadSize(args.head_size);
  const int64_t rows = static_cast<int64_t>(args.rows.size()), d = args.head_size;
  pool_.ParallelFor(DivideUp(rows, kRowsPerTask), [&](int64_t task, int) {
    alignas(64) Bf16 key[256], value[256];
    for (int64_t t = task * kRowsPerTask; t < std::min(rows, (task + 1) * kRowsPerTask); ++t) {
      const KvRow& row = args.rows[static_cast<size_t>(t)];
      for (int64_t h = 0; h < args.kv_heads; ++h) {
        const int32_t tile = args.tiles[static_cast<size_t>(t * args.kv_heads + h)];
        kernels_.round(args.k.row(t) + h * d, d, key);
        kernels_.round(args.v.row(t) + h * d, d, value);
        WriteSlot(args.pool, *args.rope, d, tile, row.slot, row.position, key, value);
        if (row.rest != nullptr) {
          const int64_t stride = row.rest_stride != 0 ? row.rest_stride : 2 * row.rest_rows * d;
          Bf16* const head = row.rest + h * stride + row.slot * d;
          std::memcpy(head, key, static_cast<size_t>(d) * 2);
          std::memcpy(head + row.rest_rows * d, value, static_cast<size_t>(d) * 2);
        }
      }
    }
  });
}

void CpuBackend::LoadBlock(const LoadBlockArgs& args) {
  CheckHeadSize(args.head_size);
  const int64_t d = args.head_size;
  for (int64_t h = 0; h < args.kv_heads; ++h) {
    for (int64_t slot = 0; slot < args.rows; ++slot) {
      const int64_t stride = args.stride != 0 ? args.stride : 2 * args.rows * d;
      const Bf16* key = args.rest + h * stride + slot * d;
      WriteSlot(args.pool, *args.rope, d, args.tiles[h], slot, args.first_position + slot, key,
                key + args.rows * d);
    }
  }
}

int64_t CpuBackend::workspace_bytes() const {
  int64_t bytes = (partials_.size() + columns_.size() + widened_.size() + quantized_scales_.size()) * 4 +
                  quantized_.size();
  bytes += digest_queries_.bytes();
  for (const Scratch& s : scratch_) {
    bytes += (s.q.size() + s.tile.size()) * 2 + s.positions.size() * 8 +
             (s.wide.size() + s.state[0].size() + s.state[1].size() + s.rope.size() + s.kept.size() +
              s.tops.size()) *
                 4;
  }
  return bytes;
}

BackendYardsticks CpuBackend::MeasureYardsticks() {
  BackendYardsticks result{};
  const int threads = pool_.threads();
  constexpr int64_t kRounds = 4000;
  constexpr int64_t kTasks =
      32;  // tasks of about a millisecond: a disturbed core takes fewer, as in real work
  const double peak =
      SecondsOf([&] { pool_.ParallelFor(kTasks, [&](int64_t, int) { kernels_.peak_bf16(kRounds); }); });
  result.bf16_flops = 2.0 * kPeakMultiplyAddsBf16 * kRounds * kTasks / peak;
  if (kernels_.int8) {
    const double ops =
        SecondsOf([&] { pool_.ParallelFor(kTasks, [&](int64_t, int) { kernels_.peak_int8(kRounds); }); });
    result.int8_ops = 2.0 * kPeakMultiplyAddsInt8 * kRounds * kTasks / ops;
  }
  constexpr int64_t kRead = int64_t{512} << 20;
  read_yardstick_.Reserve(kRead);
  const int64_t share = kRead / (threads * 16);
  const double read = SecondsOf([&] {
    pool_.ParallelFor(threads * 16,
                      [&](int64_t t, int) { kernels_.read(read_yardstick_.data() + t * share, share); });
  });
  result.read_bytes = static_cast<double>(kRead) / read;
  return result;
}

}  // namespace palimpsest::cpu
