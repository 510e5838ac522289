// The engine of this process.
#include <utility>

#include "apps/niah/fit.h"
#include "apps/niah/own_answerer.h"
#include "proto/base/clock.h"
#include "proto/base/status.h"
#include "worker/generate_events.h"

namespace palimpsest {
namespace {

// Multiply-adds of one token behind `before` others, twice.
double TokenFlops(const ModelConfig& model, double before) {
  const double hidden = static_cast<double>(model.hidden), heads = static_cast<double>(model.q_columns());
  const double weights =
      hidden * (2 * heads + 2 * static_cast<double>(model.kv_columns()) + 3 * static_cast<double>(model.ffn));
  return static_cast<double>(model.layers) * 2 * (weights + 2 * before * heads);
}

double ReadFlops(const ModelConfig& model, int64_t tokens) {
  return static_cast<double>(tokens) * TokenFlops(model, static_cast<double>(tokens) / 2);
}

class EngineAnswerer final : public OwnAnswerer {
 public:
  EngineAnswerer(Model& model, NiahPrompter prompter, std::string ssd_folder, const CancelToken* cancel)
      : OwnAnswerer(std::move(prompter)),
        model_(model),
        ssd_folder_(std::move(ssd_folder)),
        cancel_(cancel) {}

  std::string name() const override { return model_.config().name; }
  std::string numerics() const override {
    const absl::StatusOr<Engine*> engine = model_.StartEngine(ssd_folder_);
    return engine.ok() ? std::string((*engine)->numerics_class()) : std::string();
  }
  absl::StatusOr<NiahReading> Read(const NiahSample& sample) override {
    PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome, Run(prompter_.Read(sample), {}, /*oracle=*/false));
    const int64_t tokens = outcome.usage.prompt_tokens();
    return NiahReading{.tokens = tokens, .computed_tokens = tokens - outcome.usage.cached_tokens()};
  }
  absl::StatusOr<NiahTrial> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                const NiahPolicy& policy, bool visible) override {
    std::vector<int32_t> watched;
    if (policy.recall.on()) {
      PALIMPSEST_ASSIGN_OR_RETURN(watched, prompter_.NeedleTokens(sample, answers.size()));
    }
    PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome, Run(prompter_.Ask(sample, answers, policy, visible),
                                                           std::move(watched), policy.oracle));
    NiahTrial trial = TrialOf(outcome.text, outcome.usage, outcome.receipt);
    trial.needle_seen = outcome.watched_seen;
    return trial;
  }
  absl::StatusOr<std::optional<double>> Estimate(std::span<const NiahWork> work) override;

 private:
  // `watched`: tokens of the context, by number.
  absl::StatusOr<Outcome> Run(absl::StatusOr<proto::GenerateRequest> generate, std::vector<int32_t> watched,
                              bool oracle);

  Model& model_;
  const std::string ssd_folder_;
  const CancelToken* const cancel_;
};

absl::StatusOr<Outcome> EngineAnswerer::Run(absl::StatusOr<proto::GenerateRequest> generate,
                                            std::vector<int32_t> watched, bool oracle) {
  PALIMPSEST_RETURN_IF_ERROR(generate.status());
  PALIMPSEST_ASSIGN_OR_RETURN(Request request, RequestOf(*generate));
  request.cancel = cancel_;
  size_t prefix = 0;
  for (const Segment& segment : request.segments) {
    if (segment.role == Segment::Role::kPrefix) prefix += segment.tokens.size();
  }
  for (int32_t& token : watched) token += static_cast<int32_t>(prefix);
  request.watched = std::move(watched);
  request.oracle = oracle;
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
  const absl::Status read = Read(probe).status();
  if (read.code() == absl::StatusCode::kCancelled) return read;
  if (!read.ok()) return std::optional<double>();  // a window below a few hundred tokens
  const double read_seconds = std::chrono::duration<double>(RealClock().Now() - start).count();
  PALIMPSEST_ASSIGN_OR_RETURN(const NiahTrial said, Ask(probe, {}, full, /*visible=*/false));
  const ModelConfig& model = model_.config();
  const double seconds_per_flop = read_seconds / ReadFlops(model, said.prompt_tokens);
  // A token that is said reads all weights for itself, which takes longer than one among many that are read.
  const double said_tokens = std::max<double>(1, static_cast<double>(said.output_tokens - 1));
  const double said_per_flop =
      said.decode_seconds / (said_tokens * TokenFlops(model, static_cast<double>(said.prompt_tokens)));
  double seconds = 0;
  for (const NiahWork& one : work) {
    seconds += static_cast<double>(one.reads) * ReadFlops(model, one.tokens) * seconds_per_flop;
    const double each = static_cast<double>(one.answers);
    seconds += each * said.first_token_seconds;
    seconds += each * static_cast<double>(one.answer_tokens) *
               TokenFlops(model, static_cast<double>(one.tokens)) * said_per_flop;
  }
  return std::optional<double>(seconds);
}

}  // namespace

absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeEngineAnswerer(Model& model, PrefillChoice prefill,
                                                                 const std::string& ssd_folder,
                                                                 const CancelToken* cancel) {
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model.MakePlanner());
  return std::make_unique<EngineAnswerer>(
      model, NiahPrompter(std::move(planner), model.tokenizer(), prefill, GreedySampling(0)), ssd_folder,
      cancel);
}

}  // namespace palimpsest
