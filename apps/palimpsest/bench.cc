// palimpsest bench: how fast this machine runs the model, beside yardsticks of the same run.
#include "apps/bench/bench.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <memory>

#include "apps/model.h"
#include "apps/palimpsest/command.h"
#include "proto/base/json.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

namespace json = boost::json;

struct Flags {
  std::vector<std::string> names;
  std::vector<std::string> tokens, depths, policies;
  int64_t rounds = 5;
};

absl::StatusOr<std::vector<int64_t>> Counts(const std::vector<std::string>& texts) {
  std::vector<int64_t> counts;
  for (const std::string& text : texts) {
    const absl::StatusOr<int64_t> count = ParseCount(text);
    if (!count.ok()) return UsageError(count.status());
    counts.push_back(*count);
  }
  return counts;
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

json::object ToJson(const BenchResult& r) {
  json::object object = {
      {"name", r.name},
      {"tokens", r.tokens},
      {"depth", r.depth},
      {"seconds_median", r.seconds_median},
      {"tokens_per_second", r.tokens_per_second},
      {"ideal_seconds", r.ideal_seconds},
      {"efficiency", r.efficiency},
      {"yardstick", {{"name", r.yardstick.name}, {"value", r.yardstick.value}, {"unit", r.yardstick.unit}}}};
  if (r.bytes > 0) object["bytes"] = r.bytes;
  if (r.of_prefill > 0) object["of_prefill"] = r.of_prefill;
  return object;
}

json::object MachineJson(Engine& engine) {
  return {{"processor", ProcessorName()},
          {"threads", engine.backend().pool().threads()},
          {"numerics", engine.numerics_class()},
          {"model", engine.config().name},
          {"weight_bytes", engine.weights().bytes()},
          {"decode_weight_bytes", engine.weights().decode_bytes()}};
}

std::string Remark(const BenchResult& r) {
  std::string text;
  if (r.bytes > 0)
    text = fmt::format("; tier {:.2f} GB/s", static_cast<double>(r.bytes) / r.seconds_median * 1e-9);
  if (r.of_prefill > 0) text += fmt::format("  {:.2f} % of the prefill", r.of_prefill * 100);
  return text;
}

std::string RateText(double value, const std::string& unit) {
  return value < 1e6 ? fmt::format("{:.1f} {}", value, unit) : fmt::format("{:.1f} G{}", value * 1e-9, unit);
}

std::string Table(const std::vector<BenchResult>& results) {
  std::string text = fmt::format("{:<26}{:>8}{:>8}{:>12}{:>12}{:>12}  {}\n", "benchmark", "tokens", "depth",
                                 "seconds", "tok/s", "efficiency", "yardstick");
  for (const BenchResult& r : results) {
    text += fmt::format("{:<26}{:>8}{:>8}{:>12.4g}{:>12.1f}{:>12.3f}  {} {}{}\n", r.name, r.tokens, r.depth,
                        r.seconds_median, r.tokens_per_second, r.efficiency, r.yardstick.name,
                        RateText(r.yardstick.value, r.yardstick.unit), Remark(r));
  }
  return text;
}

absl::Status Run(const Flags& flags, const CommandContext& context) {
  BenchOptions options;
  options.names = flags.names;
  options.rounds = flags.rounds;
  options.policies = flags.policies;
  options.span_tokens = context.config.prefill.span_tokens;
  options.disk = {.folder = context.config.data_dir,
                  .readers = static_cast<int>(context.config.ssd.readers),
                  .encrypt = context.config.ssd.encryption == "on"};
  options.cancel = context.cancel;
  PALIMPSEST_ASSIGN_OR_RETURN(options.tokens, Counts(flags.tokens));
  PALIMPSEST_ASSIGN_OR_RETURN(options.depths, Counts(flags.depths));
  options.on_progress = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(context.config));
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model->StartEngine());
  PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<BenchResult> results, RunBench(*engine, options));
  if (!context.json) return WriteOut(Table(results));
  json::array list;
  for (const BenchResult& result : results) list.push_back(ToJson(result));
  return WriteOut(PrintJson(json::object{{"machine", MachineJson(*engine)}, {"results", std::move(list)}}) +
                  "\n");
}

}  // namespace

void AddBenchCommand(CommandSet& commands) {
  const auto flags = std::make_shared<Flags>();
  CLI::App& bench =
      commands.Add("bench", "measures the model's speed beside yardsticks of this machine", Generation::kNo,
                   [flags](const CommandContext& context) { return Run(*flags, context); });
  bench
      .add_option("NAME", flags->names,
                  "prefill, decode, attention, gemm, compress, recall, tiers; several with commas")
      ->required()
      ->delimiter(',')
      ->check(CLI::IsMember({"prefill", "decode", "attention", "gemm", "compress", "recall", "tiers"}));
  bench
      .add_option("--tokens", flags->tokens,
                  "prompt lengths (prefill, compress) or rows (attention, gemm, recall): 512,2K")
      ->type_name("N,N")
      ->delimiter(',');
  bench
      .add_option("--depth", flags->depths,
                  "tokens before the measured ones (decode, attention, recall) or on disk (tiers): 0,4K")
      ->type_name("N,N")
      ->delimiter(',');
  bench
      .add_option("--policy", flags->policies,
                  "of compress: what a prefill costs with it, beside one without; may be given several times")
      ->type_name("NAME[:key=value,...]");
  bench
      .add_option("--rounds", flags->rounds, "rounds of yardstick and subject; the median counts; default 5")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}));
}

}  // namespace palimpsest
