// What the benchmarks share: rounds of yardstick and subject, tiles full of numbers, one list of results.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "apps/bench/bench.h"

namespace palimpsest {

// Tiles of `tokens` tokens of numbers of no meaning at positions from 0, for each of `heads` heads, and
// `spare` tiles for each that hold nothing.
class FullTiles {
 public:
  static absl::StatusOr<std::unique_ptr<FullTiles>> Make(int64_t heads, int64_t tokens, int64_t spare,
                                                         int64_t head_size);
  TilePool pool() const { return arena_.pool(); }
  std::span<const int32_t> tiles(int64_t head) const { return Part(head, 0, tiles_); }
  std::span<const int32_t> spare(int64_t head) const { return Part(head, tiles_, spare_); }

 private:
  FullTiles(int64_t heads, int64_t tiles, int64_t spare, int64_t head_size);
  std::span<const int32_t> Part(int64_t head, int64_t first, int64_t count) const {
    return std::span(ids_).subspan(static_cast<size_t>(head * (tiles_ + spare_) + first),
                                   static_cast<size_t>(count));
  }
  int64_t tiles_, spare_;  // for each head
  TileArena arena_;
  std::vector<int32_t> ids_;
};

class Bench {
 public:
  Bench(Engine& engine, const BenchOptions& options)
      : engine_(engine),
        options_(options),
        c_(engine.config()),
        int8_(engine.numerics_class().ends_with("int8")) {}

  absl::Status Prefill(int64_t tokens);
  // From `depth` tokens; if more were read, from what snapkv kept of them.
  absl::Status Decode(int64_t depth, int64_t read = 0);
  absl::Status Gemm(int64_t rows);
  absl::Status Attention(int64_t rows, int64_t depth);
  absl::Status Compress(int64_t tokens);
  // A prefill with the policy beside one without, in turns.
  absl::Status CompressWith(const std::string& policy, int64_t tokens);
  // The index of `depth` tokens made, and read by so many query rows together.
  absl::Status Recall(const std::vector<int64_t>& rows, int64_t depth);
  // With recall from `depth` tokens read in spans, whose blocks are in host memory.
  absl::Status DecodeRecall(int64_t depth);
  // An SSD tier of `depth` tokens written and read.
  absl::Status Tiers(int64_t depth);
  // Through a pot, and in spans behind an anchor; any length.
  absl::Status PrefillPot(int64_t tokens);
  absl::Status PrefillAnchored(int64_t tokens);
  std::vector<BenchResult> results;

 private:
  enum class Yardstick { kMultiplyAdd, kBf16, kRead };
  struct Measured {
    std::vector<double> seconds, yardsticks;  // by round
  };
  double Of(Yardstick yardstick, const BackendYardsticks& y) const {
    if (yardstick == Yardstick::kRead) return y.read_bytes;
    return yardstick == Yardstick::kMultiplyAdd && int8_ ? y.int8_ops : y.bf16_flops;
  }
  static double TimeOf(const std::function<void()>& run);
  static double Median(std::vector<double> values);
  // Ids of no meaning, the same for the same `seed`.
  std::vector<int32_t> SomeTokens(int64_t n, uint64_t seed = 1) const;
  using Subject = std::function<absl::StatusOr<double>()>;  // runs once, says its seconds
  // Rounds of yardstick and subject, after a first run of the subject, or of `warm_up`, that does not count.
  absl::StatusOr<Measured> Measure(Yardstick yardstick, const Subject& run, const Subject& warm_up = nullptr);
  // With a yardstick of its own, which says its rate.
  absl::StatusOr<Measured> MeasureBeside(const Subject& yardstick, const Subject& run,
                                         const Subject& warm_up = nullptr);
  // The same of reading so many tokens, which takes minutes: the window's length is enough to warm up.
  absl::StatusOr<Measured> MeasureLong(int64_t tokens,
                                       const std::function<absl::StatusOr<double>(int64_t)>& read);
  // `work`: multiply-adds counted as 2, or bytes, of one run of the subject.
  BenchResult& Add(const std::string& name, int64_t tokens, int64_t depth, double work,
                   int64_t tokens_per_run, Yardstick yardstick, const Measured& measured);
  // The same of a result that has its name, its lengths and its yardstick's name and unit.
  BenchResult& Report(BenchResult result, double work, int64_t tokens_per_run, const Measured& measured);
  absl::StatusOr<double> PrefillOnce(const std::vector<int32_t>& ids);  // seconds
  absl::StatusOr<double> ReadOnce(Request request);                     // the same
  Request SpansRequest(int64_t tokens);  // of a text of its own, behind an anchor
  // What `result`, of so many tokens, takes beside reading them in spans: seconds of a token to seconds of
  // one.
  absl::Status BesideReading(int64_t tokens, BenchResult* result);
  // Until its first token, of `generated` and more.
  absl::StatusOr<Engine::JobId> StartDecode(Request request, int64_t generated);
  absl::StatusOr<double> DecodeSome();        // seconds of a token of those that are not paused
  absl::Status EndDecode(Engine::JobId job);  // until its last token
  int64_t SpanTokens() const { return std::min(options_.span_tokens, c_.context / 2); }
  double LinearFlops() const;  // of one token
  double FlopsOfKey() const;   // that one token sees

  static constexpr int64_t kDecodeTokens = 16;  // of a round

  Engine& engine_;
  const BenchOptions& options_;
  const ModelConfig& c_;
  const bool int8_;
  uint64_t texts_ = 1;  // seed of the last text: those that began alike would find each other's spans
};

}  // namespace palimpsest
