// The engine of this process.
#include "apps/niah/engine_answerer.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "apps/niah/fit.h"
#include "apps/niah/own_answerer.h"
#include "proto/base/clock.h"
#include "proto/base/status.h"
#include "worker/compression/policy.h"
#include "worker/generate_events.h"

namespace palimpsest {
namespace {

// The further readings in which policies see what they want to know of every token.
class Looks {
 public:
  // `depth`: of reading the text. None if the policy wants nothing, or what one before it has seen.
  std::optional<double> Of(const PolicySpec& spec, double depth) {
    const std::unique_ptr<CompressionPolicy> policy = MakePolicy(spec);
    if (policy == nullptr) return std::nullopt;
    const PolicyNeeds needs = policy->needs();
    const bool queries = needs.future > 0;
    if (!needs.sums && !needs.losses && !queries && needs.repeat == 0) return std::nullopt;
    const auto want = [&](bool squares) {
      return Want(needs.sums, squares, needs.losses, queries, queries ? needs.sink : 0, needs.repeat,
                  needs.repeat_part);
    };
    // Who saw the squares saw the sums.
    if (seen_.contains(want(needs.squares)) || seen_.contains(want(true))) return std::nullopt;
    seen_.insert(want(needs.squares));
    if (needs.repeat == 0) return depth;
    // A part of the repetition stands behind all of the text, unless it sees itself alone.
    return needs.repeat_part ? std::min(depth, static_cast<double>(needs.repeat) / 2) : 2 * depth;
  }

 private:
  using Want = std::tuple<bool, bool, bool, bool, int64_t, int64_t, bool>;
  std::set<Want> seen_;
};

class EngineAnswerer final : public OwnAnswerer {
 public:
  EngineAnswerer(Model& model, NiahPrompter prompter, const NiahReads& reads, std::string ssd_folder,
                 const CancelToken* cancel)
      : OwnAnswerer(std::move(prompter)),
        model_(model),
        reads_(reads),
        ssd_folder_(std::move(ssd_folder)),
        cancel_(cancel) {}

  std::string name() const override { return model_.config().name; }
  std::string numerics() const override {
    const absl::StatusOr<Engine*> engine = model_.StartEngine(ssd_folder_);
    return engine.ok() ? std::string((*engine)->numerics_class()) : std::string();
  }
  absl::StatusOr<NiahReading> Read(const NiahSample& sample) override {
    PALIMPSEST_ASSIGN_OR_RETURN(const std::vector<proto::GenerateRequest> requests, prompter_.Read(sample));
    NiahReading reading;
    for (const proto::GenerateRequest& request : requests) {
      PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome, Run(request, Request()));
      reading.tokens += outcome.usage.prompt_tokens();
      reading.computed_tokens += outcome.usage.prompt_tokens() - outcome.usage.cached_tokens();
      reading.peak_bytes = std::max<int64_t>(reading.peak_bytes, outcome.receipt.device_bytes().peak());
    }
    return reading;
  }
  bool FindsOf(const NiahPolicy& earlier, const NiahPolicy& policy, int64_t tokens,
               bool alike) const override {
    if (!FindsBlocks(earlier) || !FindsBlocks(policy)) return false;  // a pot is read by each for itself
    // In spans a question is no part of the context, and only what a repetition says is kept.
    const bool anchored = tokens > reads_.window_tokens || reads_.prefill == PrefillChoice::kAnchored;
    if (anchored ? !earlier.spec.repeats() : !alike) return false;
    Looks looks;
    if (!looks.Of(earlier.spec, 1).has_value()) return false;
    return Looks().Of(policy.spec, 1).has_value() && !looks.Of(policy.spec, 1).has_value();
  }
  absl::StatusOr<NiahTrial> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                const NiahPolicy& policy, bool visible) override {
    // A conversation that found what a policy kept for another one would take fewer bytes than it does alone.
    Request measured{.oracle = policy.oracle, .measured_as = policy.Named(visible)};
    if (policy.recall.on()) {
      PALIMPSEST_ASSIGN_OR_RETURN(measured.watched, prompter_.NeedleTokens(sample, answers.size()));
    }
    PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome,
                                Run(prompter_.Ask(sample, answers, policy, visible), std::move(measured)));
    NiahTrial trial = TrialOf(outcome.text, outcome.usage, outcome.receipt);
    trial.needle_seen = outcome.watched_seen;
    return trial;
  }
  absl::StatusOr<std::optional<double>> Estimate(std::span<const NiahWork> work) override;

 private:
  // `measured`: what a request over the wire does not have; `watched` by number in the context.
  absl::StatusOr<Outcome> Run(absl::StatusOr<proto::GenerateRequest> generate, Request measured);

  Model& model_;
  const NiahReads reads_;
  const std::string ssd_folder_;
  const CancelToken* const cancel_;
};

absl::StatusOr<Outcome> EngineAnswerer::Run(absl::StatusOr<proto::GenerateRequest> generate,
                                            Request measured) {
  PALIMPSEST_RETURN_IF_ERROR(generate.status());
  PALIMPSEST_ASSIGN_OR_RETURN(Request request, RequestOf(*generate));
  request.cancel = cancel_;
  size_t prefix = 0;
  for (const Segment& segment : request.segments) {
    if (segment.role == Segment::Role::kPrefix) prefix += segment.tokens.size();
  }
  request.watched = std::move(measured.watched);
  for (int32_t& token : request.watched) token += static_cast<int32_t>(prefix);
  request.oracle = measured.oracle;
  request.measured_as = std::move(measured.measured_as);
  // What earlier answers left on the device would count in this one's peak. All of it is on a tier below,
  // from where the blocks of the same sample come back.
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model_.StartEngine(ssd_folder_));
  if (engine->host_tier() != nullptr || engine->store().mover().has_ssd()) engine->store().DropUnpinned();
  PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, engine->Run(std::move(request)));
  PALIMPSEST_RETURN_IF_ERROR(outcome.status);
  return outcome;
}

// A short text is read and a few tokens are said; all else is counted in multiply-adds.
absl::StatusOr<std::optional<double>> EngineAnswerer::Estimate(std::span<const NiahWork> work) {
  constexpr int64_t kSentences = 100, kAnswerTokens = 8;
  const NiahSample probe{.context = NoiseSentences(kSentences),
                         .turns = {{.question = "What is it about?", .answer_prefix = " It"}},
                         .answer_tokens = kAnswerTokens};
  const NiahPolicy full{.text = "full", .spec = {.kind = PolicySpec::Kind::kFull}, .catalyst = ""};
  // The first text that an engine reads pays for weights and threads, too.
  const NiahSample first{
      .context = NoiseSentences(kSentences / 10), .turns = probe.turns, .answer_tokens = 1};
  const absl::Status warm = Read(first).status();
  if (warm.code() == absl::StatusCode::kCancelled) return warm;
  const TimePoint start = RealClock().Now();
  const absl::StatusOr<NiahReading> read = Read(probe);
  if (read.status().code() == absl::StatusCode::kCancelled) return read.status();
  if (!read.ok()) return std::optional<double>();  // a window below a few hundred tokens
  const double read_seconds = std::chrono::duration<double>(RealClock().Now() - start).count();
  PALIMPSEST_ASSIGN_OR_RETURN(const NiahTrial said, Ask(probe, {}, full, /*visible=*/false));
  const ModelConfig& model = model_.config();
  const double read_tokens = static_cast<double>(std::max<int64_t>(1, read->computed_tokens));  // in each way
  const double read_depth = static_cast<double>(said.prompt_tokens) / 2;
  const double seconds_per_flop = read_seconds / (read_tokens * TokenFlops(model, read_depth));
  // A token that is said reads all weights for itself, which takes longer than one among many that are read.
  const double said_tokens = std::max<double>(1, static_cast<double>(said.output_tokens - 1));
  const double said_per_flop =
      said.decode_seconds / (said_tokens * TokenFlops(model, static_cast<double>(said.prompt_tokens)));
  double seconds = 0;
  for (const NiahWork& one : work) {
    for (const double depth : DepthsOfReadings(one, reads_)) {
      seconds += static_cast<double>(one.tokens) * TokenFlops(model, depth) * seconds_per_flop;
    }
    const double each = static_cast<double>(one.answers());
    seconds += each * said.first_token_seconds;
    seconds += each * static_cast<double>(one.answer_tokens) *
               TokenFlops(model, static_cast<double>(one.tokens)) * said_per_flop;
  }
  return std::optional<double>(seconds);
}

}  // namespace

std::vector<double> DepthsOfReadings(const NiahWork& work, const NiahReads& how) {
  const auto half_of = [&](int64_t tokens) { return static_cast<double>(std::min(work.tokens, tokens)) / 2; };
  const bool fits = work.tokens <= how.window_tokens;
  const double text = half_of(fits ? work.tokens : how.span_tokens);
  std::vector<double> depths;
  if (work.reads_first) depths.push_back(text);
  bool in_spans = !fits;  // whether a reading in spans is there
  Looks looks;
  for (const NiahPolicy* const policy : work.policies) {
    if (policy->full()) continue;
    if (policy->spec.kind == PolicySpec::Kind::kInfiniPot || how.prefill == PrefillChoice::kPot) {
      const int64_t pot = policy->spec.pot.Of(work.tokens);  // full from there on, or nearly
      const double depth = static_cast<double>(pot < work.tokens ? pot : work.tokens / 2);
      const int64_t times = policy->spec.repeats() ? 2 : 1;
      depths.insert(depths.end(), static_cast<size_t>(times * work.turns), depth);
      continue;
    }
    const bool anchored = !fits || how.prefill == PrefillChoice::kAnchored;
    const double depth = anchored ? half_of(how.span_tokens) : text;
    // What is read before anything is asked is read as one text where it fits.
    if (anchored && !in_spans) depths.push_back(depth);
    in_spans |= anchored;
    if (const std::optional<double> look = looks.Of(policy->spec, depth)) depths.push_back(*look);
  }
  return depths;
}

double TokenFlops(const ModelConfig& model, double before) {
  const double hidden = static_cast<double>(model.hidden), heads = static_cast<double>(model.q_columns());
  const double weights =
      hidden * (2 * heads + 2 * static_cast<double>(model.kv_columns()) + 3 * static_cast<double>(model.ffn));
  return static_cast<double>(model.layers) * 2 * (weights + 2 * before * heads);
}

absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeEngineAnswerer(Model& model, PrefillChoice prefill,
                                                                 const std::string& ssd_folder,
                                                                 const CancelToken* cancel) {
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model.MakePlanner());
  const PromptPlanner::Limits& limits = planner.limits();
  const NiahReads reads{
      .prefill = prefill,
      .window_tokens = limits.window_tokens,
      .span_tokens = SpanTokens({limits.model, limits.window_tokens, limits.span_tokens}, /*prefix=*/0)};
  return std::make_unique<EngineAnswerer>(
      model, NiahPrompter(std::move(planner), model.tokenizer(), prefill, GreedySampling(0)), reads,
      ssd_folder, cancel);
}

}  // namespace palimpsest
