// Single operations of the backend, over numbers of no meaning.
#include <algorithm>
#include <memory>

#include "apps/bench/bench_runs.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {

FullTiles::FullTiles(int64_t heads, int64_t tiles, int64_t spare, int64_t head_size)
    : tiles_(tiles),
      spare_(spare),
      arena_(heads * (tiles + spare) * TileArena::TileBytes(head_size), head_size),
      ids_(static_cast<size_t>(heads * (tiles + spare))) {}

absl::StatusOr<std::unique_ptr<FullTiles>> FullTiles::Make(int64_t heads, int64_t tokens, int64_t spare,
                                                           int64_t head_size) {
  const int64_t tiles = DivideUp(tokens, kTileSlots);
  std::unique_ptr<FullTiles> full(new FullTiles(heads, tiles, spare, head_size));
  PALIMPSEST_RETURN_IF_ERROR(full->arena_.Allocate(full->ids_));
  const TilePool pool = full->pool();
  RngSequence random(Rng(3));
  std::vector<Bf16> numbers(1 << 20);
  for (Bf16& x : numbers) x = FloatToBf16(static_cast<float>(random.Uniform() - 0.5));
  for (size_t i = 0; i < full->ids_.size(); ++i) {  // each tile begins elsewhere in them
    const size_t first = i * 4099 % (numbers.size() - static_cast<size_t>(pool.tile_elements));
    std::copy_n(numbers.data() + first, pool.tile_elements, pool.k(full->ids_[i]));
  }
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t t = 0; t < tiles; ++t) {
      const int32_t tile = full->tiles(h)[static_cast<size_t>(t)];
      pool.counts[tile] = static_cast<int32_t>(std::min(kTileSlots, tokens - t * kTileSlots));
      for (int64_t s = 0; s < kTileSlots; ++s)
        pool.positions[tile * kTileSlots + s] = static_cast<int32_t>(t * kTileSlots + s);
    }
  }
  return full;
}

absl::Status Bench::Gemm(int64_t rows) {
  const LayerWeights& layer = engine_.weights().layers.front();
  const struct {
    const char* name;
    const PackedWeights* weights;
  } matrices[] = {{"qkv", &layer.qkv},
                  {"output", &layer.attention_output},
                  {"gate_up", &layer.gate_up},
                  {"down", &layer.down}};
  RngSequence random(Rng(2));
  for (const auto& [name, weights] : matrices) {
    AlignedBuffer<Bf16> a(rows * weights->k);
    AlignedBuffer<float> out(rows * weights->n);
    for (int64_t i = 0; i < a.size(); ++i) a[i] = FloatToBf16(static_cast<float>(random.Uniform() - 0.5));
    const MatMulArgs args{.a = {a.data(), rows, weights->k, weights->k},
                          .weights = weights,
                          .output = MatMulOutput::kStore,
                          .out = {out.data(), rows, weights->n, weights->n},
                          .gated = {}};
    const double work = 2.0 * static_cast<double>(rows * weights->n * weights->k);
    const int64_t repeat =
        std::max<int64_t>(1, static_cast<int64_t>(2e9 / work));  // milliseconds, not microseconds
    const auto run = [&]() -> absl::StatusOr<double> {
      return TimeOf([&] {
               for (int64_t i = 0; i < repeat; ++i) engine_.backend().MatMul(args);
             }) /
             static_cast<double>(repeat);
    };
    PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured, Measure(Yardstick::kMultiplyAdd, run));
    Add(fmt::format("gemm {} {}x{}", name, weights->n, weights->k), rows, 0, work, rows,
        Yardstick::kMultiplyAdd, measured);
  }
  return absl::OkStatus();
}

// The last `rows` tokens of `depth`, one layer, over tiles of numbers of no meaning.
absl::Status Bench::Attention(int64_t rows, int64_t depth) {
  rows = std::min(rows, depth);
  const int64_t columns = c_.q_columns();
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<FullTiles> cache,
                              FullTiles::Make(c_.kv_heads, depth, 0, c_.head_size));
  std::vector<std::span<const int32_t>> heads;
  for (int64_t h = 0; h < c_.kv_heads; ++h) heads.push_back(cache->tiles(h));
  RngSequence random(Rng(3));
  AlignedBuffer<float> q(rows * columns);
  AlignedBuffer<Bf16> out(rows * columns);
  for (int64_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(random.Uniform() - 0.5);
  std::vector<int64_t> positions(static_cast<size_t>(rows));
  for (int64_t t = 0; t < rows; ++t) positions[static_cast<size_t>(t)] = depth - rows + t;
  const RopeTable rope(c_.head_size, c_.rope_size, c_.rope_theta, c_.rope_factors, depth);
  const AttentionSequence sequence{
      .first_row = 0, .rows = rows, .positions = positions.data(), .tiles = heads.data()};
  const AttentionArgs args{.q = {q.data(), rows, columns, columns},
                           .out = {out.data(), rows, columns, columns},
                           .heads = c_.heads,
                           .kv_heads = c_.kv_heads,
                           .head_size = c_.head_size,
                           .rope = &rope,
                           .pool = cache->pool(),
                           .sequences = {&sequence, 1}};
  const double keys =
      static_cast<double>(rows) * (static_cast<double>(depth) - static_cast<double>(rows) / 2);
  const double flops = 4.0 * static_cast<double>(columns) * keys;
  const double bytes = static_cast<double>(depth * c_.kv_columns() * 4);
  const bool few =
      rows == 1;  // bound by bytes (from cache when all of it fits: an efficiency above 1 says so)
  const int64_t repeat = std::max<int64_t>(1, static_cast<int64_t>(2e9 / flops));
  const auto run = [&]() -> absl::StatusOr<double> {
    return TimeOf([&] {
             for (int64_t i = 0; i < repeat; ++i) engine_.backend().Attention(args);
           }) /
           static_cast<double>(repeat);
  };
  const Yardstick yardstick = few ? Yardstick::kRead : Yardstick::kBf16;
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured, Measure(yardstick, run));
  Add("attention", rows, depth, few ? bytes : flops, rows, yardstick, measured);
  return absl::OkStatus();
}

}  // namespace palimpsest
