// Backend: where math runs. One virtual call per operation, none per element.
//
// Numerics: within one class (backend, dispatch path, weight format) a row's result does not depend on the
//           rows, chunks or sequences that ran beside it. Bounds against float64 are derived in
//           tests/kernels.
// Threads : one thread at a time (the engine's); parallel inside. LoadBlock and BuildDigest are serial and
//           may be called from several, for different tiles.
// To add one: implement this, add a line to MakeBackend, run tests/kernels/backend_contract_test over it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/thread_pool.h"

namespace palimpsest {

struct BackendOptions {
  std::string isa = "auto";  // auto | avx512 | avx2 | portable
  ThreadPool::Options threads;
};

// The speed of the same instructions without memory: yardsticks for benchmarks, on the threads the product
// uses.
struct BackendYardsticks {
  double bf16_flops, int8_ops;  // multiply-adds count 2; per second
  double read_bytes;            // contiguous read of 512 MiB, per second
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // "cpu-avx512"
  virtual bool Supports(WeightFormat format) const = 0;
  virtual ThreadPool& pool() = 0;

  // Packs n x k weights. fill_row(r, out) writes the k floats of output r; called once per row, from several
  // threads.
  using FillRow = std::function<void(int64_t row, float* out)>;
  virtual PackedWeights Pack(int64_t n, int64_t k, WeightFormat format, const FillRow& fill_row) = 0;

  virtual void Embed(const EmbedArgs& args) = 0;
  virtual void RmsNorm(const RmsNormArgs& args) = 0;
  virtual void MatMul(const MatMulArgs& args) = 0;
  virtual void StoreKv(const StoreKvArgs& args) = 0;
  virtual void LoadBlock(const LoadBlockArgs& args) = 0;
  virtual void Attention(const AttentionArgs& args) = 0;
  virtual void ScoreKeys(const ScoreKeysArgs& args) = 0;
  virtual void MatchKeys(const MatchKeysArgs& args) = 0;
  virtual void GatherKv(const GatherKvArgs& args) = 0;
  virtual void EncodeKv(const EncodeKvArgs& args) = 0;
  virtual void TokenLosses(const TokenLossesArgs& args) = 0;
  virtual void BuildDigest(const BuildDigestArgs& args) = 0;
  virtual void ScoreDigests(const ScoreDigestsArgs& args) = 0;

  // Floats of CarriedAttention's state for so many rows of one sequence: the same rows in all calls that
  // share it.
  virtual int64_t CarriedFloats(int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_size) const = 0;

  // Bytes of scratch memory held between calls (grows to the largest step seen).
  virtual int64_t workspace_bytes() const = 0;
  // One round of each yardstick loop, about 0.1 s each.
  virtual BackendYardsticks MeasureYardsticks() = 0;
};

// InvalidArgument for an unknown isa; FailedPrecondition if this machine cannot run the one asked for (names
// what it lacks).
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const BackendOptions& options);
// The dispatch paths this machine can run, best first.
std::vector<std::string> AvailableIsas();

}  // namespace palimpsest
