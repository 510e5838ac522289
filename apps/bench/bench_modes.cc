// Prompts beyond the model's window, and decoding from what a policy kept.
#include <algorithm>
#include <atomic>
#include <utility>

#include "apps/bench/bench_runs.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kPot = 4096, kCatalyst = 20, kAnchor = 32;

// Keys that rows see, together: row i of `rows` behind `before` others sees before + i + 1.
double KeysSeen(int64_t before, int64_t rows) {
  return static_cast<double>(rows) * (static_cast<double>(before) + static_cast<double>(rows + 1) / 2);
}

}  // namespace

double Bench::LinearFlops() const {
  const double layer =
      static_cast<double>(c_.hidden * (c_.q_columns() * 2 + c_.kv_columns() * 2 + 3 * c_.ffn));
  return 2 * static_cast<double>(c_.layers) * layer;
}

double Bench::FlopsOfKey() const { return 4.0 * static_cast<double>(c_.layers * c_.heads * c_.head_size); }

absl::StatusOr<double> Bench::ReadOnce(Request request) {
  request.sampling.set_repetition_penalty(1);
  request.sampling.set_top_p(1);
  request.cancel = options_.cancel;
  absl::Status status;
  const double seconds = TimeOf([&] {
    const absl::StatusOr<Outcome> outcome = engine_.Run(std::move(request));
    status = outcome.ok() ? outcome->status : outcome.status();
  });
  PALIMPSEST_RETURN_IF_ERROR(status);
  return seconds;
}

absl::StatusOr<Bench::Measured> Bench::MeasureLong(
    int64_t tokens, const std::function<absl::StatusOr<double>(int64_t)>& read) {
  return Measure(
      Yardstick::kMultiplyAdd, [&] { return read(tokens); },
      [&] { return read(std::min(tokens, c_.context)); });
}

// Every row with the keys it sees, a loss for every token, the catalyst's rows too.
absl::Status Bench::PrefillPot(int64_t tokens) {
  const int64_t pot = std::min(kPot, c_.context), keep = pot / 2;
  double rows = static_cast<double>(tokens), keys = 0;
  int64_t left = tokens, residents = 0;
  while (left > 0) {
    const int64_t stretch = std::min(left, pot - kCatalyst - residents);
    keys += KeysSeen(residents, stretch);
    left -= stretch;
    if (left == 0) break;
    keys += KeysSeen(pot - kCatalyst, kCatalyst);
    rows += kCatalyst;
    residents = keep;
  }
  const double work = rows * LinearFlops() + keys * FlopsOfKey() +
                      static_cast<double>(2 * tokens * c_.vocabulary * c_.hidden);
  const auto read = [&](int64_t length) {
    Request request;
    request.segments = {{.tokens = SomeTokens(length, ++texts_)}};
    request.prefill = PrefillMode::kPot;
    request.policy.kind = PolicySpec::Kind::kInfiniPot;
    request.policy.pot = {pot};
    request.catalyst = SomeTokens(kCatalyst, 0);
    return ReadOnce(std::move(request));
  };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured, MeasureLong(tokens, read));
  Add("prefill pot", tokens, pot, work, tokens, Yardstick::kMultiplyAdd, measured);
  return absl::OkStatus();
}

Request Bench::SpansRequest(int64_t tokens) {
  const int64_t span = SpanTokens();
  Request request;
  request.prefill = PrefillMode::kAnchored;
  request.policy.kind = PolicySpec::Kind::kSnapKv;
  const std::vector<int32_t> ids = SomeTokens(tokens, ++texts_);
  request.segments.push_back(
      {.tokens = SomeTokens(kAnchor, texts_), .shared = true, .role = Segment::Role::kPrefix});
  for (int64_t first = 0; first < tokens; first += span) {
    const auto begin = ids.begin() + first, end = ids.begin() + std::min(tokens, first + span);
    request.segments.push_back({.tokens = {begin, end}, .shared = true});
  }
  return request;
}

absl::Status Bench::PrefillAnchored(int64_t tokens) {
  const int64_t span = SpanTokens();
  double keys = KeysSeen(0, kAnchor);
  for (int64_t first = 0; first < tokens; first += span)
    keys += KeysSeen(kAnchor, std::min(span, tokens - first));
  const double work = static_cast<double>(kAnchor + tokens) * LinearFlops() + keys * FlopsOfKey();
  const auto read = [&](int64_t length) { return ReadOnce(SpansRequest(length)); };
  PALIMPSEST_ASSIGN_OR_RETURN(const Measured measured, MeasureLong(tokens, read));
  Add("prefill anchored", tokens, span, work, tokens, Yardstick::kMultiplyAdd, measured);
  return absl::OkStatus();
}

absl::Status Bench::BesideReading(int64_t tokens, BenchResult* result) {
  const int64_t span = SpanTokens();
  std::vector<double> seconds;
  for (int64_t round = -1; round < options_.rounds; ++round) {  // the first is to warm up
    PALIMPSEST_ASSIGN_OR_RETURN(const double of_span, ReadOnce(SpansRequest(span)));
    if (round >= 0) seconds.push_back(of_span);
  }
  const double of_token = Median(seconds) / static_cast<double>(span);
  result->of_prefill = result->seconds_median / static_cast<double>(tokens) / of_token;
  return absl::OkStatus();
}

// Two sessions that take turns: one with recall, one that keeps a short text. The first tokens of both, which
// bring the most slices, do not count.
absl::Status Bench::DecodeRecall(int64_t depth) {
  constexpr int64_t kQuestion = 32;
  const int64_t near_depth = std::min<int64_t>(2048, c_.context / 4);
  const int64_t generated = kDecodeTokens * (options_.rounds + 2) + 1;
  std::atomic<bool> far_paused{false}, near_paused{false};
  Request far = SpansRequest(depth), near;
  far.policy.budget = {std::min<int64_t>(512, c_.context / 4)};
  far.segments.push_back({.tokens = SomeTokens(kQuestion, 0), .role = Segment::Role::kQuestion});
  far.recall.kind = RecallSpec::Kind::kSlices;
  far.recall.budget =
      std::min<int64_t>(far.recall.budget, c_.context / 4 / far.recall.slice * far.recall.slice);
  far.paused = &far_paused;
  near.segments = {{.tokens = SomeTokens(near_depth)}};
  near.paused = &near_paused;
  PALIMPSEST_ASSIGN_OR_RETURN(const Engine::JobId far_job, StartDecode(std::move(far), generated));
  far_paused = true;
  const absl::StatusOr<Engine::JobId> near_job = StartDecode(std::move(near), generated);
  const auto one = [&](bool of_near) {
    far_paused = of_near;
    near_paused = !of_near;
    return DecodeSome();
  };
  const auto rate = [&]() -> absl::StatusOr<double> {
    PALIMPSEST_ASSIGN_OR_RETURN(const double seconds, one(/*of_near=*/true));
    return 1 / seconds;
  };
  const absl::StatusOr<Measured> measured = MeasureBeside(rate, [&] { return one(/*of_near=*/false); });
  far_paused = near_paused = false;
  const absl::Status far_ended = EndDecode(far_job);
  if (near_job.ok()) PALIMPSEST_RETURN_IF_ERROR(EndDecode(*near_job));
  PALIMPSEST_RETURN_IF_ERROR(far_ended);
  PALIMPSEST_RETURN_IF_ERROR(near_job.status());
  PALIMPSEST_RETURN_IF_ERROR(measured.status());
  BenchResult result{.name = "decode recall", .tokens = 1, .depth = depth};
  result.yardstick.name = fmt::format("decode at {}", near_depth);
  result.yardstick.unit = "tok/s";
  Report(std::move(result), 1, 1, *measured);
  return absl::OkStatus();
}

}  // namespace palimpsest
