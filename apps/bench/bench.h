// Benchmarks of the engine against yardsticks of the same machine, measured in the same run.
//
// A result is a ratio: ideal time over measured time, where the ideal is what the yardstick loop would need
// for the same multiply-adds (prefill, attention, gemm, scores of compress, recall of several rows) or the
// same bytes (decode, the rest; of tiers in pieces of the same size by as many threads). Each round measures
// yardstick and subject one after the other; medians over the rounds are reported. Nothing is asserted.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine.h"

namespace palimpsest {

struct BenchOptions {
  std::vector<std::string> names;  // prefill, decode, attention, gemm, compress, recall, tiers
  std::vector<int64_t>
      tokens;  // prompts to prefill or compress, rows of attention, gemm, recall; empty: defaults
  std::vector<int64_t>
      depths;  // tokens before the measured ones (decode, attention, recall), stored (tiers); empty: defaults
  int64_t span_tokens = 2048;         // of anchored prefill
  std::vector<std::string> policies;  // compress: whose prefills are measured; empty: the steps of snapkv
  int64_t rounds = 5;
  struct Disk {          // of tiers
    std::string folder;  // the data folder: what is written goes to its scratch, and is removed
    int readers = 8;     // threads
    bool encrypt = true;
  } disk;
  const CancelToken* cancel = &CancelToken::Never();
  std::function<void(const std::string& line)> on_progress;
};

struct BenchResult {
  std::string name;  // "prefill", "gemm gate_up 3072x576"
  int64_t tokens = 0, depth = 0;
  double seconds_median = 0;  // of one prefill, one decoded token, one operation
  double tokens_per_second = 0;
  double ideal_seconds = 0;  // with the median yardstick
  double efficiency = 0;     // median over rounds of ideal / measured
  int64_t bytes = 0;         // tiers: of sealed tiles, moved in one run; 0: not counted
  double of_prefill = 0;     // compress: seconds_median as a share of the prompt's prefill; 0: not measured
  struct {
    std::string name;  // "bf16 multiply-add" | "int8 multiply-add" | "contiguous read" | "direct read" | ...
    double value = 0;  // median
    std::string unit;  // "FLOP/s" | "B/s"
  } yardstick;
};

// InvalidArgument for an unknown name or a length that the model's window does not hold.
absl::StatusOr<std::vector<BenchResult>> RunBench(Engine& engine, const BenchOptions& options);

}  // namespace palimpsest
