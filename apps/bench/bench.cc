#include "apps/bench/bench.h"

#include <algorithm>
#include <chrono>

#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

double TimeOf(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// Numbers of no meaning, the same in every run.
std::vector<int32_t> SomeTokens(int64_t n, int64_t vocabulary) {
  RngSequence random(Rng(1));
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Below(static_cast<uint64_t>(vocabulary)));
  return tokens;
}

class Bench {
 public:
  Bench(Engine& engine, const BenchOptions& options)
      : engine_(engine),
        options_(options),
        c_(engine.config()),
        int8_(engine.numerics_class().ends_with("int8")) {}

  absl::Status Prefill(int64_t tokens);
  absl::Status Decode(int64_t depth);
  absl::Status Gemm(int64_t rows);
  absl::Status Attention(int64_t rows, int64_t depth);
  std::vector<BenchResult> results;

 private:
  enum class Yardstick { kMultiplyAdd, kBf16, kRead };
  // `work`: multiply-adds counted as 2, or bytes, of one run of the subject.
  struct Measured {
    std::vector<double> seconds, yardsticks;
  };
  double Take(Yardstick yardstick) {
    const BackendYardsticks y = engine_.backend().MeasureYardsticks();
    if (yardstick == Yardstick::kRead) return y.read_bytes;
    return yardstick == Yardstick::kMultiplyAdd && int8_ ? y.int8_ops : y.bf16_flops;
  }
  // Rounds of yardstick and subject; run() is warmed up once before.
  absl::StatusOr<Measured> Measure(Yardstick yardstick, const std::function<absl::StatusOr<double>()>& run) {
    PALIMPSEST_RETURN_IF_ERROR(run().status());
    Measured measured;
    for (int64_t round = 0; round < options_.rounds; ++round) {
      PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
      measured.yardsticks.push_back(Take(yardstick));
      PALIMPSEST_ASSIGN_OR_RETURN(const double seconds, run());
      measured.seconds.push_back(seconds);
    }
    return measured;
  }
  void Add(const std::string& name, int64_t tokens, int64_t depth, double work, int64_t tokens_per_run,
           Yardstick yardstick, const Measured& measured);

  Engine& engine_;
  const BenchOptions& options_;
  const ModelConfig& c_;
  const bool int8_;
};

void Bench::Add(const std::string& name, int64_t tokens, int64_t depth, double work, int64_t tokens_per_run,
                Yardstick yardstick, const Measured& measured) {
  BenchResult result{.name = name, .tokens = tokens, .depth = depth};
  std::vector<double> ratios;
  for (size_t i = 0; i < measured.seconds.size(); ++i) {
    ratios.push_back(work / measured.yardsticks[i] / measured.seconds[i]);
  }
  result.seconds_median = Median(measured.seconds);
  result.tokens_per_second = static_cast<double>(tokens_per_run) / result.seconds_median;
  result.yardstick.value = Median(measured.yardsticks);
  result.yardstick.unit = yardstick == Yardstick::kRead ? "B/s" : "FLOP/s";
  result.yardstick.name = yardstick == Yardstick::kRead                   ? "contiguous read"
                          : yardstick == Yardstick::kMultiplyAdd && int8_ ? "int8 multiply-add"
                                                                          : "bf16 multiply-add";
  result.ideal_seconds = work / result.yardstick.value;
  result.efficiency = Median(ratios);
  if (options_.on_progress) {
    options_.on_progress(fmt::format("{} tokens {} depth {}: {:.4g} s, {:.1f} tok/s, efficiency {:.3f}", name,
                                     tokens, depth, result.seconds_median, result.tokens_per_second,
                                     result.efficiency));
  }
  results.push_back(std::move(result));
}

// Linear layers of every token, attention over half the length on average, the output layer once.
absl::Status Bench::Prefill(int64_t tokens) {
  const double n = static_cast<double>(tokens);
  const double layer =
      static_cast<double>(c_.hidden * (c_.q_columns() * 2 + c_.kv_columns() * 2 + 3 * c_.ffn));
  const double linear = 2 * static_cast<double>(c_.layers) * layer;
  const double attention = 4.0 * static_cast<double>(c_.layers * c_.heads * c_.head_size) * n / 2;
  const double work = n * (linear + attention) + 2 * static_cast<double>(c_.vocabulary * c_.hidden);
  const std::vector<int32_t> ids = SomeTokens(tokens, c_.vocabulary);
  const auto run = [&]() -> absl::StatusOr<double> {
    Request request;
    request.segments = {{.tokens = ids}};
    request.sampling.set_repetition_penalty(1);
    request.top = 1;
    request.cancel = options_.cancel;
    absl::Status status;
    const double seconds = TimeOf([&] {
      const absl::StatusOr<Outcome> outcome = engine_.Run(std::move(request));
      status = outcome.ok() ? outcome->status : outcome.status();
    });
    PALIMPSEST_RETURN_IF_ERROR(status);
    return seconds;
  };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured, Measure(Yardstick::kMultiplyAdd, run));
  Add("prefill", tokens, 0, work, tokens, Yardstick::kMultiplyAdd, measured);
  return absl::OkStatus();
}

// One session; rounds of kTokens steps each at growing depth, centred on the depth asked for.
absl::Status Bench::Decode(int64_t depth) {
  constexpr int64_t kTokens = 16;
  const int64_t generated = kTokens * (options_.rounds + 1) + 1;
  const int64_t prompt = std::max<int64_t>(1, depth - generated / 2);
  Request request;
  request.segments = {{.tokens = SomeTokens(prompt, c_.vocabulary)}};
  request.sampling.set_max_tokens(generated + 1);
  request.sampling.set_repetition_penalty(1);
  request.ignore_end = true;
  request.cancel = options_.cancel;
  bool decoding = false;
  request.on_prefill = [&](int64_t done, int64_t total) { decoding = done == total; };
  PALIMPSEST_ASSIGN_OR_RETURN(const Engine::JobId job, engine_.Submit(std::move(request)));
  while (!decoding) {
    PALIMPSEST_CHECK(engine_.Step() || options_.cancel->IsSet());
    if (options_.cancel->IsSet()) break;
  }
  const absl::StatusOr<Measured> measured = Measure(Yardstick::kRead, [&]() -> absl::StatusOr<double> {
    return TimeOf([&] {
             for (int64_t i = 0; i < kTokens; ++i) engine_.Step();
           }) /
           kTokens;
  });
  std::unique_ptr<Outcome> outcome;
  while ((outcome = engine_.Take(job)) == nullptr) engine_.Step();
  PALIMPSEST_RETURN_IF_ERROR(measured.status());
  PALIMPSEST_RETURN_IF_ERROR(outcome->status);
  const KvShape shape = engine_.store().shape();
  const double work = static_cast<double>(engine_.weights().decode_bytes() + shape.bytes_per_token() * depth);
  Add("decode", 1, depth, work, 1, Yardstick::kRead, *measured);
  return absl::OkStatus();
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
  const int64_t tiles = (depth + kTileSlots - 1) / kTileSlots, columns = c_.q_columns();
  TileArena arena(tiles * c_.kv_heads * TileArena::TileBytes(c_.head_size), c_.head_size);
  std::vector<int32_t> ids(static_cast<size_t>(tiles * c_.kv_heads));
  PALIMPSEST_RETURN_IF_ERROR(arena.Allocate(ids));
  const TilePool pool = arena.pool();
  RngSequence random(Rng(3));
  const auto some = [&] { return static_cast<float>(random.Uniform() - 0.5); };
  for (int64_t i = 0; i < static_cast<int64_t>(ids.size()) * pool.tile_elements; ++i)
    pool.data[i] = FloatToBf16(some());
  std::vector<std::span<const int32_t>> heads;
  for (int64_t h = 0; h < c_.kv_heads; ++h) {
    heads.push_back(std::span(ids).subspan(static_cast<size_t>(h * tiles), static_cast<size_t>(tiles)));
    for (int64_t t = 0; t < tiles; ++t) {
      const int32_t tile = heads.back()[static_cast<size_t>(t)];
      pool.counts[tile] = static_cast<int32_t>(std::min(kTileSlots, depth - t * kTileSlots));
      for (int64_t s = 0; s < kTileSlots; ++s)
        pool.positions[tile * kTileSlots + s] = static_cast<int32_t>(t * kTileSlots + s);
    }
  }
  AlignedBuffer<float> q(rows * columns);
  AlignedBuffer<Bf16> out(rows * columns);
  for (int64_t i = 0; i < q.size(); ++i) q[i] = some();
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
                           .pool = pool,
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

}  // namespace

absl::StatusOr<std::vector<BenchResult>> RunBench(Engine& engine, const BenchOptions& options) {
  Bench bench(engine, options);
  const int64_t context = engine.config().context;
  const auto or_default = [](const std::vector<int64_t>& given, std::vector<int64_t> defaults) {
    return given.empty() ? defaults : given;
  };
  const auto in_window = [&](int64_t n, int64_t room) -> absl::Status {
    if (n + room <= context) return absl::OkStatus();
    return InvalidArgument("bench: {} tokens do not fit the window of {} ({} kept free)", n, context, room);
  };
  for (const int64_t tokens : options.tokens) {
    if (tokens < 1) return InvalidArgument("bench: --tokens {}, expected at least 1", tokens);
  }
  const int64_t window = std::min<int64_t>(context, 8192);
  for (const std::string& name : options.names) {
    if (name == "prefill") {
      for (const int64_t tokens :
           or_default(options.tokens, {std::min<int64_t>(512, window), window / 4, window})) {
        PALIMPSEST_RETURN_IF_ERROR(in_window(tokens, 0));
        PALIMPSEST_RETURN_IF_ERROR(bench.Prefill(tokens));
      }
    } else if (name == "decode") {
      for (const int64_t depth : or_default(options.depths, {0, window / 2, window - 256})) {
        PALIMPSEST_RETURN_IF_ERROR(in_window(depth, 16 * (options.rounds + 1) + 2));
        PALIMPSEST_RETURN_IF_ERROR(bench.Decode(depth));
      }
    } else if (name == "gemm") {
      for (const int64_t rows : or_default(options.tokens, {1, 8, 512}))
        PALIMPSEST_RETURN_IF_ERROR(bench.Gemm(rows));
    } else if (name == "attention") {
      for (const int64_t rows : or_default(options.tokens, {1, 512})) {
        for (const int64_t depth : or_default(options.depths, {window / 2, window})) {
          PALIMPSEST_RETURN_IF_ERROR(bench.Attention(rows, std::max<int64_t>(1, depth)));
        }
      }
    } else {
      return InvalidArgument("bench {}: use prefill, decode, attention or gemm", name);
    }
  }
  return std::move(bench.results);
}

}  // namespace palimpsest
