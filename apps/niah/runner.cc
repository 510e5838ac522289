#include "apps/niah/runner.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "worker/generate_events.h"

namespace palimpsest {
namespace {

constexpr std::string_view kFull = "full";

struct Place {
  const NiahTask* task;
  NiahRequest request;
};

std::string NameOf(const Place& place) {
  return fmt::format("{}, {} tokens, depth {:g} %, seed {}", place.task->name(), place.request.tokens,
                     place.request.depth_percent, place.request.seed);
}

class Runner {
 public:
  Runner(const NiahOptions& options, NiahPrompter prompter)
      : options_(options),
        prompter_(std::move(prompter)),
        policies_{{.text = std::string(kFull), .spec = {}}} {
    for (const NiahPolicy& policy : options.policies) {
      const bool known = std::any_of(policies_.begin(), policies_.end(),
                                     [&](const NiahPolicy& one) { return one.spec == policy.spec; });
      if (!known) policies_.push_back(policy);
    }
  }

  // Whether all of it can be asked: the first sample of each length, under each policy.
  absl::Status Check() {
    for (const auto& task : options_.tasks) {
      for (const int64_t length : options_.lengths) {
        const Place place{task.get(), {.seed = First(), .tokens = length}};
        PALIMPSEST_ASSIGN_OR_RETURN(const NiahSample sample, Generate(place));
        for (const bool visible : options_.visible) {
          for (const NiahPolicy& policy : policies_) {
            PALIMPSEST_RETURN_IF_ERROR(prompter_.Ask(sample, policy, visible).status());
          }
        }
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<NiahTrial>> Run(Engine& engine) {
    const std::vector<Place> places = Places();
    const size_t each = policies_.size() * options_.visible.size();
    Progress progress("niah", "answers", static_cast<int64_t>(places.size() * each), options_.progress);
    std::vector<NiahTrial> trials;
    for (const Place& place : places) {
      const absl::Status status = RunSample(engine, place, progress, &trials);
      if (!status.ok()) {
        if (status.code() == absl::StatusCode::kCancelled) return status;
        return Error(status.code(), "{}: {}", NameOf(place), Message(status));
      }
    }
    progress.Done();
    return trials;
  }

 private:
  uint64_t First() const { return static_cast<uint64_t>(options_.first_seed); }

  std::vector<Place> Places() const {
    std::vector<Place> places;
    for (const auto& task : options_.tasks) {
      for (const int64_t length : options_.lengths) {
        for (const double depth : options_.depths_percent) {
          for (int64_t i = 0; i < options_.seeds; ++i) {
            places.push_back(
                {task.get(),
                 {.seed = First() + static_cast<uint64_t>(i), .tokens = length, .depth_percent = depth}});
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

  absl::StatusOr<Outcome> RunRequest(Engine& engine, absl::StatusOr<proto::GenerateRequest> generate) const {
    PALIMPSEST_RETURN_IF_ERROR(generate.status());
    PALIMPSEST_ASSIGN_OR_RETURN(Request request, RequestOf(*generate));
    request.cancel = options_.cancel;
    PALIMPSEST_ASSIGN_OR_RETURN(Outcome outcome, engine.Run(std::move(request)));
    PALIMPSEST_RETURN_IF_ERROR(outcome.status);
    return outcome;
  }

  // All runs of one sample, one after the other: they share its blocks.
  absl::Status RunSample(Engine& engine, const Place& place, Progress& progress,
                         std::vector<NiahTrial>* trials) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    PALIMPSEST_ASSIGN_OR_RETURN(const NiahSample sample, Generate(place));
    PALIMPSEST_RETURN_IF_ERROR(RunRequest(engine, prompter_.Read(sample)).status());
    for (const bool visible : options_.visible) {
      double full_tokens = 0;
      for (const NiahPolicy& policy : policies_) {
        PALIMPSEST_ASSIGN_OR_RETURN(const Outcome outcome,
                                    RunRequest(engine, prompter_.Ask(sample, policy, visible)));
        const double resident = outcome.receipt.resident_tokens();
        if (policy.text == kFull) full_tokens = resident;
        trials->push_back({.task = std::string(place.task->name()),
                           .length = place.request.tokens,
                           .depth_percent = place.request.depth_percent,
                           .policy = policy.text,
                           .question_visible = visible,
                           .score = place.task->Score(outcome.text, sample.references),
                           .prompt_tokens = outcome.usage.prompt_tokens(),
                           .output_tokens = outcome.usage.completion_tokens(),
                           .resident_tokens = resident,
                           .kept_all = resident >= full_tokens,
                           .resident_bytes = outcome.receipt.device_bytes().resident(),
                           .peak_bytes = outcome.receipt.device_bytes().peak(),
                           .first_token_seconds = outcome.receipt.seconds().first_token()});
        progress.Add(1);
      }
    }
    return absl::OkStatus();
  }

  const NiahOptions& options_;
  NiahPrompter prompter_;
  std::vector<NiahPolicy> policies_;  // full first
};

}  // namespace

absl::StatusOr<std::vector<NiahTrial>> RunNiah(Model& model, const NiahOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(PromptPlanner planner, model.MakePlanner());
  Runner runner(options, NiahPrompter(std::move(planner), model.tokenizer(), options.prefill,
                                      GreedySampling(options.max_tokens)));
  PALIMPSEST_RETURN_IF_ERROR(runner.Check());
  PALIMPSEST_ASSIGN_OR_RETURN(Engine* const engine, model.StartEngine());
  return runner.Run(*engine);
}

}  // namespace palimpsest
