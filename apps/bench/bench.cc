#include "apps/bench/bench.h"

#include <algorithm>
#include <chrono>

#include "apps/bench/bench_runs.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {

double Bench::Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double Bench::TimeOf(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<int32_t> Bench::SomeTokens(int64_t n, uint64_t seed) const {
  RngSequence random{Rng(seed)};
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& token : tokens)
    token = static_cast<int32_t>(random.Below(static_cast<uint64_t>(c_.vocabulary)));
  return tokens;
}

absl::StatusOr<Bench::Measured> Bench::Measure(Yardstick yardstick, const Subject& run,
                                               const Subject& warm_up) {
  return MeasureBeside([&] { return Of(yardstick, engine_.backend().MeasureYardsticks()); }, run, warm_up);
}

absl::StatusOr<Bench::Measured> Bench::MeasureBeside(const Subject& yardstick, const Subject& run,
                                                     const Subject& warm_up) {
  PALIMPSEST_RETURN_IF_ERROR((warm_up ? warm_up : run)().status());
  Measured measured;
  for (int64_t round = 0; round < options_.rounds; ++round) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    PALIMPSEST_ASSIGN_OR_RETURN(const double rate, yardstick());
    PALIMPSEST_ASSIGN_OR_RETURN(const double seconds, run());
    measured.yardsticks.push_back(rate);
    measured.seconds.push_back(seconds);
  }
  return measured;
}

BenchResult& Bench::Add(const std::string& name, int64_t tokens, int64_t depth, double work,
                        int64_t tokens_per_run, Yardstick yardstick, const Measured& measured) {
  BenchResult result{.name = name, .tokens = tokens, .depth = depth};
  result.yardstick.unit = yardstick == Yardstick::kRead ? "B/s" : "FLOP/s";
  result.yardstick.name = yardstick == Yardstick::kRead                   ? "contiguous read"
                          : yardstick == Yardstick::kMultiplyAdd && int8_ ? "int8 multiply-add"
                                                                          : "bf16 multiply-add";
  return Report(std::move(result), work, tokens_per_run, measured);
}

BenchResult& Bench::Report(BenchResult result, double work, int64_t tokens_per_run,
                           const Measured& measured) {
  std::vector<double> ratios;
  for (size_t i = 0; i < measured.seconds.size(); ++i) {
    ratios.push_back(work / measured.yardsticks[i] / measured.seconds[i]);
  }
  result.seconds_median = Median(measured.seconds);
  result.tokens_per_second = static_cast<double>(tokens_per_run) / result.seconds_median;
  result.yardstick.value = Median(measured.yardsticks);
  result.ideal_seconds = work / result.yardstick.value;
  result.efficiency = Median(ratios);
  if (options_.on_progress) {
    options_.on_progress(fmt::format("{} tokens {} depth {}: {:.4g} s, {:.1f} tok/s, efficiency {:.3f}",
                                     result.name, result.tokens, result.depth, result.seconds_median,
                                     result.tokens_per_second, result.efficiency));
  }
  results.push_back(std::move(result));
  return results.back();
}

absl::StatusOr<double> Bench::PrefillOnce(const std::vector<int32_t>& ids) {
  Request request;
  request.segments = {{.tokens = ids}};
  request.top = 1;
  return ReadOnce(std::move(request));
}

// Linear layers of every token, attention over half the length on average, the output layer once.
absl::Status Bench::Prefill(int64_t tokens) {
  const double n = static_cast<double>(tokens);
  const double work =
      n * (LinearFlops() + FlopsOfKey() * n / 2) + 2 * static_cast<double>(c_.vocabulary * c_.hidden);
  const std::vector<int32_t> ids = SomeTokens(tokens);
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured,
                              Measure(Yardstick::kMultiplyAdd, [&] { return PrefillOnce(ids); }));
  Add("prefill", tokens, 0, work, tokens, Yardstick::kMultiplyAdd, measured);
  return absl::OkStatus();
}

absl::StatusOr<Engine::JobId> Bench::StartDecode(Request request, int64_t generated) {
  request.sampling.set_max_tokens(generated + 1);
  request.sampling.set_repetition_penalty(1);
  request.ignore_end = true;
  request.cancel = options_.cancel;
  const auto decoding = std::make_shared<bool>(false);
  request.on_prefill = [decoding](int64_t done, int64_t total) { *decoding = done == total; };
  PALIMPSEST_ASSIGN_OR_RETURN(const Engine::JobId job, engine_.Submit(std::move(request)));
  while (!*decoding && !options_.cancel->IsSet())
    PALIMPSEST_CHECK(engine_.Step() || options_.cancel->IsSet());
  return job;
}

absl::StatusOr<double> Bench::DecodeSome() {
  return TimeOf([&] {
           for (int64_t i = 0; i < kDecodeTokens; ++i) engine_.Step();
         }) /
         kDecodeTokens;
}

absl::Status Bench::EndDecode(Engine::JobId job) {
  std::unique_ptr<Outcome> outcome;
  while ((outcome = engine_.Take(job)) == nullptr) engine_.Step();
  return outcome->status;
}

// One session; rounds of some steps each at growing depth, centred on the depth asked for.
absl::Status Bench::Decode(int64_t depth, int64_t read) {
  const int64_t generated = kDecodeTokens * (options_.rounds + 1) + 1;
  const int64_t prompt = std::max<int64_t>(1, depth - generated / 2);
  Request request;
  request.segments = {{.tokens = SomeTokens(std::max(prompt, read))}};
  if (read > 0) {
    request.policy.kind = PolicySpec::Kind::kSnapKv;
    request.policy.budget = {prompt};
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const Engine::JobId job, StartDecode(std::move(request), generated));
  const absl::StatusOr<Measured> measured = Measure(Yardstick::kRead, [&] { return DecodeSome(); });
  PALIMPSEST_RETURN_IF_ERROR(EndDecode(job));
  PALIMPSEST_RETURN_IF_ERROR(measured.status());
  const KvShape shape = engine_.store().shape();
  const double work = static_cast<double>(engine_.weights().decode_bytes() + shape.bytes_per_token() * depth);
  Add(read > 0 ? fmt::format("decode, {} read", read) : "decode", 1, depth, work, 1, Yardstick::kRead,
      *measured);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BenchResult>> RunBench(Engine& engine, const BenchOptions& options) {
  Bench bench(engine, options);
  const int64_t context = engine.config().context;
  const auto or_default = [](const std::vector<int64_t>& given, const std::vector<int64_t>& defaults) {
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
        if (tokens <= context) {
          PALIMPSEST_RETURN_IF_ERROR(bench.Prefill(tokens));
          continue;
        }
        PALIMPSEST_RETURN_IF_ERROR(bench.PrefillPot(tokens));
        PALIMPSEST_RETURN_IF_ERROR(bench.PrefillAnchored(tokens));
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
    } else if (name == "compress") {
      for (const int64_t tokens : or_default(options.tokens, {window})) {
        PALIMPSEST_RETURN_IF_ERROR(in_window(tokens, 0));
        for (const std::string& policy : options.policies)
          PALIMPSEST_RETURN_IF_ERROR(bench.CompressWith(policy, tokens));
        if (!options.policies.empty()) continue;
        PALIMPSEST_RETURN_IF_ERROR(bench.Compress(tokens));
        const int64_t kept = 1024, generated = 16 * (options.rounds + 2);
        if (tokens - generated <= kept) continue;
        PALIMPSEST_RETURN_IF_ERROR(bench.Decode(kept));
        PALIMPSEST_RETURN_IF_ERROR(bench.Decode(kept, tokens - generated));
      }
    } else if (name == "recall") {
      for (const int64_t depth : or_default(options.depths, {int64_t{64} << 10})) {
        PALIMPSEST_RETURN_IF_ERROR(
            bench.Recall(or_default(options.tokens, {1, 45}), std::max<int64_t>(1, depth)));
        if (depth > context) PALIMPSEST_RETURN_IF_ERROR(bench.DecodeRecall(depth));
      }
    } else if (name == "tiers") {
      for (const int64_t depth : or_default(options.depths, {int64_t{32} << 10}))
        PALIMPSEST_RETURN_IF_ERROR(bench.Tiers(std::max<int64_t>(1, depth)));
    } else {
      return InvalidArgument("bench {}: use prefill, decode, attention, gemm, compress, recall or tiers",
                             name);
    }
  }
  return std::move(bench.results);
}

}  // namespace palimpsest
