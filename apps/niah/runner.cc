#include "apps/niah/runner.h"

#include <algorithm>
#include <array>
#include <set>
#include <span>
#include <utility>

#include "proto/base/status.h"
#include "worker/generate_events.h"

namespace palimpsest {
namespace {

struct Place {
  const NiahTask* task;
  NiahRequest request;
};

std::string NameOf(const Place& place) {
  return fmt::format("{}, {} tokens, depth {:g} %, seed {}", place.task->name(), place.request.tokens,
                     place.request.depth_percent, place.request.seed);
}

// What the engine says of an answer.
NiahTrial TrialOf(const Outcome& outcome) {
  NiahTrial trial;
  trial.prompt_tokens = outcome.usage.prompt_tokens();
  trial.output_tokens = outcome.usage.completion_tokens();
  trial.resident_tokens = outcome.receipt.resident_tokens();
  trial.kept_all = trial.resident_tokens >= static_cast<double>(trial.prompt_tokens);
  trial.resident_bytes = outcome.receipt.device_bytes().resident();
  trial.peak_bytes = outcome.receipt.device_bytes().peak();
  trial.degraded = outcome.receipt.degraded_size() > 0;
  trial.recalled_host = outcome.receipt.recalled().host().slices();
  trial.recalled_ssd = outcome.receipt.recalled().ssd().slices();
  trial.needle_seen = outcome.watched_seen;
  trial.first_token_seconds = outcome.receipt.seconds().first_token();
  return trial;
}

class Runner {
 public:
  Runner(const NiahOptions& options, NiahPrompter prompter)
      : options_(options),
        prompter_(std::move(prompter)),
        policies_{{.text = "full", .spec = {.kind = PolicySpec::Kind::kFull}, .catalyst = ""}} {
    for (const NiahPolicy& policy : options.policies) {
      for (const RecallSpec& recall : options.recalls) {
        const bool known = std::any_of(policies_.begin(), policies_.end(), [&](const NiahPolicy& one) {
          return one.spec == policy.spec && (one.recall == recall || policy.full());
        });
        if (known) continue;
        policies_.push_back(policy);
        policies_.back().recall = recall;
        if (!options.oracle || policy.full() || recall.kind != RecallSpec::Kind::kSlices) continue;
        policies_.push_back(policies_.back());
        policies_.back().oracle = true;
      }
    }
  }

  // Whether all of it can be asked: the first sample of each length, under each policy. Beyond the window
  // full cannot, and the others go without it.
  absl::Status Check() {
    for (const auto& task : options_.tasks) {
      for (const int64_t length : options_.lengths) {
        PALIMPSEST_ASSIGN_OR_RETURN(const NiahSample sample,
                                    Generate({task.get(), PlaceRequest(First(), length, 0)}));
        for (const bool visible : options_.visible) {
          for (const NiahPolicy& policy : policies_) {
            const absl::Status status = prompter_.Ask(sample, {}, policy, visible).status();
            if (IsOverWindow(status) && policy.full() && policies_.size() > 1) {
              lengths_without_full_.insert(length);
            } else {
              PALIMPSEST_RETURN_IF_ERROR(status);
            }
          }
        }
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<NiahTrial>> Run(Engine& engine) {
    const std::vector<Place> places = Places();
    size_t answers = 0;
    for (const Place& place : places) answers += PoliciesOf(place).size() * options_.visible.size();
    Progress progress("niah", "answers", static_cast<int64_t>(answers) * options_.turns, options_.progress);
    std::vector<NiahTrial> trials;
    for (const Place& place : places) {
      const absl::Status status = RunSample(engine, place, progress, &trials);
      if (status.ok()) continue;
      if (status.code() == absl::StatusCode::kCancelled) return status;
      return Error(status.code(), "{}: {}", NameOf(place), Message(status));
    }
    progress.Done();
    return trials;
  }

 private:
  uint64_t First() const { return static_cast<uint64_t>(options_.first_seed); }
  NiahRequest PlaceRequest(uint64_t seed, int64_t length, double depth) const {
    return {.seed = seed, .tokens = length, .depth_percent = depth, .turns = options_.turns};
  }

  std::vector<Place> Places() const {
    std::vector<Place> places;
    for (const auto& task : options_.tasks) {
      for (const int64_t length : options_.lengths) {
        for (const double depth : options_.depths_percent) {
          for (int64_t i = 0; i < options_.seeds; ++i) {
            places.push_back({task.get(), PlaceRequest(First() + static_cast<uint64_t>(i), length, depth)});
          }
        }
      }
    }
    return places;
  }

  absl::StatusOr<NiahSample> Generate(const Place& place) {
    return place.task->Generate(place.request,
                                [this](const NiahSample& sample) { return prompter_.CountTokens(sample); });
  }

  // `watched`: tokens of the context, by number.
  absl::StatusOr<Outcome> RunRequest(Engine& engine, absl::StatusOr<proto::GenerateRequest> generate,
                                     std::vector<int32_t> watched = {}, bool oracle = false) const {
    PALIMPSEST_RETURN_IF_ERROR(generate.status());
    PALIMPSEST_ASSIGN_OR_RETURN(Request request, RequestOf(*generate));
    request.cancel = options_.cancel;
    size_t prefix = 0;
    for (const Segment& segment : request.segments) {
      if (segment.role == Segment::Role::kPrefix) prefix += segment.tokens.size();
    }
    for (int32_t& token : watched) token += static_cast<int32_t>(prefix);
    request.watched = std::move(watched);
    request.oracle = oracle;
    // What earlier answers left on the device would count in this one's peak. All of it is on a tier below,
    // from where the blocks of the same sample come back.
    if (engine.host_tier() != nullptr || engine.store().mover().has_ssd()) engine.store().DropUnpinned();
    PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, engine.Run(std::move(request)));
    PALIMPSEST_RETURN_IF_ERROR(outcome.status);
    return outcome;
  }

  std::span<const NiahPolicy> PoliciesOf(const Place& place) const {
    const std::span<const NiahPolicy> all = policies_;
    return lengths_without_full_.contains(place.request.tokens) ? all.subspan(1) : all;
  }

  // All runs of one sample, one after the other: they share its blocks.
  absl::Status RunSample(Engine& engine, const Place& place, Progress& progress,
                         std::vector<NiahTrial>* trials) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    PALIMPSEST_ASSIGN_OR_RETURN(const NiahSample sample, Generate(place));
    const std::span<const NiahPolicy> policies = PoliciesOf(place);
    full_answers_ = {};
    if (std::any_of(policies.begin(), policies.end(),
                    [this](const NiahPolicy& policy) { return prompter_.FindsBlocks(policy); })) {
      PALIMPSEST_RETURN_IF_ERROR(RunRequest(engine, prompter_.Read(sample)).status());
    }
    for (const bool visible : options_.visible) {
      for (const NiahPolicy& policy : policies) {
        PALIMPSEST_RETURN_IF_ERROR(RunTurns(engine, place, sample, policy, visible, progress, trials));
      }
    }
    return absl::OkStatus();
  }

  // One conversation: each question stands behind the answers to those before.
  absl::Status RunTurns(Engine& engine, const Place& place, const NiahSample& sample,
                        const NiahPolicy& policy, bool visible, Progress& progress,
                        std::vector<NiahTrial>* trials) {
    std::vector<std::string> answers;
    std::vector<std::string>& of_full = full_answers_[visible ? 1 : 0];
    for (const NiahTurn& turn : sample.turns) {
      std::vector<int32_t> watched;
      if (policy.recall.on()) {
        PALIMPSEST_ASSIGN_OR_RETURN(watched, prompter_.NeedleTokens(sample, answers.size()));
      }
      PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome,
                                  RunRequest(engine, prompter_.Ask(sample, answers, policy, visible),
                                             std::move(watched), policy.oracle));
      answers.push_back(outcome.text);
      NiahTrial trial = TrialOf(outcome);
      trial.task = place.task->name();
      trial.length = place.request.tokens;
      trial.depth_percent = turn.depth_percent;
      trial.policy = policy.text;
      trial.recall = policy.RecallName();
      trial.question_visible = visible;
      trial.turn = static_cast<int64_t>(answers.size());
      trial.score = place.task->Score(outcome.text, turn.references);
      trial.as_full = policy.full() || (answers.size() <= of_full.size() &&
                                        std::equal(answers.begin(), answers.end(), of_full.begin()));
      trials->push_back(std::move(trial));
      progress.Add(1);
    }
    if (policy.full()) of_full = std::move(answers);
    return absl::OkStatus();
  }

  const NiahOptions& options_;
  NiahPrompter prompter_;
  std::vector<NiahPolicy> policies_;  // full first
  std::set<int64_t> lengths_without_full_;
  std::array<std::vector<std::string>, 2> full_answers_;  // of the sample at hand: question hidden, visible
};

}  // namespace

absl::StatusOr<std::vector<NiahTrial>> RunNiah(Model& model, const NiahOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model.MakePlanner());
  Runner runner(options, NiahPrompter(std::move(planner), model.tokenizer(), options.prefill,
                                      GreedySampling(options.max_tokens)));
  PALIMPSEST_RETURN_IF_ERROR(runner.Check());
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model.StartEngine(options.ssd_folder));
  return runner.Run(*engine);
}

}  // namespace palimpsest
