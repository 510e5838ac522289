// What SnapKV costs at the end of a prompt, beside the prompt's own prefill: scores of all keys for the last
// tokens, the pick of each head, packing of what stays. All layers, over tiles of numbers of no meaning.
#include <algorithm>
#include <numeric>

#include "apps/bench/bench_runs.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "worker/compression/policy.h"

namespace palimpsest {
namespace {

// The compression of one prompt, step by step.
class Compression {
 public:
  static absl::StatusOr<std::unique_ptr<Compression>> Make(Engine& engine, int64_t tokens, int64_t budget) {
    const ModelConfig& c = engine.config();
    std::unique_ptr<Compression> made(new Compression(engine, tokens, budget));
    PALIMPSEST_ASSIGN_OR_RETURN(
        made->cache_, FullTiles::Make(made->heads_, tokens, DivideUp(budget, kTileSlots), c.head_size));
    return made;
  }

  void Score() {
    std::vector<ScoreHead> heads;
    for (int64_t h = 0; h < heads_; ++h) {
      heads.push_back({.q = {q_.data() + h * spec_.window * columns_, spec_.window, columns_, columns_},
                       .tiles = cache_->tiles(h),
                       .out = attention_.data() + h * group_ * stride_});
    }
    std::vector<int64_t> positions(static_cast<size_t>(spec_.window));
    std::iota(positions.begin(), positions.end(), tokens_ - spec_.window);
    backend_.ScoreKeys({.positions = positions,
                        .group = group_,
                        .head_size = head_size_,
                        .rope = &rope_,
                        .pool = cache_->pool(),
                        .heads = heads});
  }

  void Select() {
    std::vector<int32_t> all(static_cast<size_t>(tokens_));
    std::iota(all.begin(), all.end(), 0);
    backend_.pool().ParallelFor(heads_, [&](int64_t h, int) {
      std::vector<float> scores(all.size());
      policy_->Score({.layer = h,
                      .kv_head = 0,
                      .group = group_,
                      .tokens = all,
                      .attention = attention_.data() + h * group_ * stride_,
                      .attention_stride = stride_,
                      .losses = {}},
                     scores);
      SelectTop(scores, spec_.budget.value, &picks_[static_cast<size_t>(h)]);
    });
  }

  void Gather() {
    std::vector<std::vector<KvSource>> sources(static_cast<size_t>(heads_));
    std::vector<GatherHead> heads;
    for (int64_t h = 0; h < heads_; ++h) {
      const std::vector<int32_t>& picks = picks_[static_cast<size_t>(h)];
      for (const int32_t pick : picks) {
        sources[static_cast<size_t>(h)].push_back(
            {.tile = cache_->tiles(h)[static_cast<size_t>(pick / kTileSlots)],
             .slot = static_cast<int32_t>(pick % kTileSlots)});
      }
      heads.push_back(
          {.sources = sources[static_cast<size_t>(h)], .positions = picks, .tiles = cache_->spare(h)});
    }
    backend_.GatherKv({.head_size = head_size_, .rope = &rope_, .pool = cache_->pool(), .heads = heads});
  }

  // Two passes over the keys, a multiply and an add for each element.
  double score_flops() const { return 4.0 * static_cast<double>(heads_ * spec_.window * columns_ * tokens_); }
  double select_bytes() const { return 4.0 * static_cast<double>(heads_ * group_ * tokens_); }
  // K and V read and written.
  double gather_bytes() const { return 8.0 * static_cast<double>(heads_ * spec_.budget.value * head_size_); }

 private:
  Compression(Engine& engine, int64_t tokens, int64_t budget)
      : backend_(engine.backend()),
        tokens_(tokens),
        heads_(engine.config().layers * engine.config().kv_heads),
        group_(engine.config().heads / engine.config().kv_heads),
        head_size_(engine.config().head_size),
        columns_(group_ * head_size_),
        stride_(DivideUp(tokens, kTileSlots) * kTileSlots),
        rope_(head_size_, engine.config().rope_size, engine.config().rope_theta, engine.config().rope_factors,
              tokens),
        picks_(static_cast<size_t>(heads_)) {
    spec_.kind = PolicySpec::Kind::kSnapKv;
    spec_.budget = {budget};
    policy_ = MakePolicy(spec_);
    q_ = AlignedBuffer<float>(heads_ * spec_.window * columns_);
    attention_ = AlignedBuffer<float>(heads_ * group_ * stride_);
    RngSequence random(Rng(4));
    for (int64_t i = 0; i < q_.size(); ++i) q_[i] = static_cast<float>(random.Uniform() * 8 - 4);
  }

  Backend& backend_;
  const int64_t tokens_, heads_, group_, head_size_, columns_, stride_;
  const RopeTable rope_;
  PolicySpec spec_;
  std::unique_ptr<CompressionPolicy> policy_;
  std::unique_ptr<FullTiles> cache_;
  AlignedBuffer<float> q_, attention_;  // (heads, window, group * D), (heads, group, stride)
  std::vector<std::vector<int32_t>> picks_;
};

}  // namespace

absl::Status Bench::Compress(int64_t tokens) {
  constexpr int64_t kLeast = 128;
  if (tokens < kLeast)
    return InvalidArgument("bench compress: {} tokens, expected at least {}", tokens, kLeast);
  const int64_t budget = std::min<int64_t>(1024, tokens / 2);
  PALIMPSEST_ASSIGN_OR_RETURN(const double prefill, PrefillOnce(SomeTokens(tokens)));
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Compression> compression,
                              Compression::Make(engine_, tokens, budget));
  Measured score, select, gather, all;
  for (int64_t round = -1; round < options_.rounds; ++round) {  // the first is to warm up
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    const BackendYardsticks y = engine_.backend().MeasureYardsticks();
    const double seconds[] = {TimeOf([&] { compression->Score(); }), TimeOf([&] { compression->Select(); }),
                              TimeOf([&] { compression->Gather(); })};
    if (round < 0) continue;
    const auto take = [&](Yardstick yardstick, double of, Measured* measured) {
      measured->seconds.push_back(of);
      measured->yardsticks.push_back(Of(yardstick, y));
    };
    take(Yardstick::kBf16, seconds[0], &score);
    take(Yardstick::kRead, seconds[1], &select);
    take(Yardstick::kRead, seconds[2], &gather);
    take(Yardstick::kBf16, seconds[0] + seconds[1] + seconds[2], &all);
  }
  const double flops = compression->score_flops();
  Add("compress score", tokens, 0, flops, tokens, Yardstick::kBf16, score);
  Add("compress select", tokens, 0, compression->select_bytes(), tokens, Yardstick::kRead, select);
  Add("compress gather", tokens, 0, compression->gather_bytes(), tokens, Yardstick::kRead, gather);
  BenchResult& total = Add("compress", tokens, 0, flops, tokens, Yardstick::kBf16, all);
  total.of_prefill = total.seconds_median / prefill;
  return absl::OkStatus();
}

// Whatever a policy needs is paid: queries that are kept or added up while rows run, losses, scores, the pick
// and the packing. Each text is new, so that no block of it is found; the question is one token, so that
// something follows what is compressed.
absl::Status Bench::CompressWith(const std::string& policy, int64_t tokens) {
  PALIMPSEST_ASSIGN_OR_RETURN(const PolicySpec spec, ParsePolicy(policy));
  if (!spec.compresses() || spec.kind == PolicySpec::Kind::kInfiniPot) {
    return InvalidArgument("bench compress: policy {} drops nothing at the end of a prompt; take another",
                           policy);
  }
  PALIMPSEST_RETURN_IF_ERROR(CheckPolicyFits(spec, tokens - 1, 0, 0));
  if (spec.BudgetOf(tokens - 1) >= tokens - 1) {
    return InvalidArgument("bench compress: policy {} keeps all of {} tokens; give it a smaller budget",
                           policy, tokens - 1);
  }
  const auto read = [&](const PolicySpec& with) {
    Request request;
    request.policy = with;
    request.segments = {{.tokens = SomeTokens(tokens - 1, ++texts_), .shared = true},
                        {.tokens = SomeTokens(1), .role = Segment::Role::kQuestion}};
    request.top = 1;
    if (with.runs_catalyst()) request.catalyst = SomeTokens(20);
    return ReadOnce(std::move(request));
  };
  const auto rate = [&]() -> absl::StatusOr<double> {
    PALIMPSEST_ASSIGN_OR_RETURN(const double seconds, read({}));
    return static_cast<double>(tokens) / seconds;
  };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured, MeasureBeside(rate, [&] { return read(spec); }));
  BenchResult result{.name = fmt::format("compress {}", spec.name()), .tokens = tokens};
  result.yardstick = {.name = "without a policy", .value = 0, .unit = "tok/s"};
  BenchResult& reported = Report(std::move(result), static_cast<double>(tokens), tokens, measured);
  reported.of_prefill = 1 / reported.efficiency - 1;
  return absl::OkStatus();
}

}  // namespace palimpsest
