#include "apps/niah/runner.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

std::string NameOf(const NiahPlace& place) {
  return fmt::format("{}, {} tokens, depth {:g} %, seed {}", place.task->name(), place.request.tokens,
                     place.request.depth_percent, place.request.seed);
}

// All runs of a sample are finished together: later ones find what earlier ones left, so that their bytes and
// seconds would be others if they began in the middle.
std::string KeyOf(const NiahPlace& place) {
  return fmt::format("{} {} {} {}", place.task->name(), place.request.tokens, place.request.depth_percent,
                     place.request.seed);
}

class Runner {
 public:
  Runner(const NiahOptions& options, NiahAnswerer& answerer)
      : options_(options),
        answerer_(answerer),
        policies_{{.text = std::string(answerer.full_name()),
                   .spec = {.kind = PolicySpec::Kind::kFull},
                   .catalyst = ""}} {
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
        const absl::StatusOr<NiahSample> sample =
            Generate({task.get(),
                      {.seed = static_cast<uint64_t>(options_.first_seed),
                       .tokens = length,
                       .turns = options_.turns,
                       .answer_tokens = options_.max_tokens}});
        if (!sample.ok())
          return Error(sample.status().code(), "{}: {}", task->name(), Message(sample.status()));
        for (const bool visible : options_.visible) {
          for (const NiahPolicy& policy : policies_) {
            const absl::Status status = answerer_.Check(*sample, policy, visible);
            if (IsOverWindow(status) && policy.full() && policies_.size() > 1) {
              lengths_without_full_.insert(length);
            } else {
              PALIMPSEST_RETURN_IF_ERROR(status);
            }
          }
        }
        answer_tokens_[{task.get(), length}] = sample->answer_tokens;
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<NiahTrial>> Run() {
    const std::vector<NiahPlace> places = NiahPlaces(options_);
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t answers, Announce(places));
    Progress progress("niah", "answers", answers, options_.progress);
    std::vector<NiahTrial> trials;
    for (const NiahPlace& place : places) {
      const absl::Status status = RunSample(place, progress, &trials);
      if (status.ok()) continue;
      if (status.code() == absl::StatusCode::kCancelled) return status;
      return Error(status.code(), "{}: {}", NameOf(place), Message(status));
    }
    progress.Done();
    return trials;
  }

 private:
  absl::StatusOr<NiahSample> Generate(const NiahPlace& place) {
    return place.task->Generate(place.request,
                                [this](const NiahSample& sample) { return answerer_.CountTokens(sample); });
  }

  const std::vector<NiahTrial>* Found(const NiahPlace& place) const {
    return options_.state == nullptr ? nullptr : options_.state->Find(KeyOf(place));
  }

  std::span<const NiahPolicy> PoliciesOf(const NiahPlace& place) const {
    const std::span<const NiahPolicy> all = policies_;
    return lengths_without_full_.contains(place.request.tokens) ? all.subspan(1) : all;
  }

  NiahWork WorkOf(const NiahPlace& place) const {
    NiahWork work{.tokens = place.request.tokens,
                  .answer_tokens = answer_tokens_.at({place.task, place.request.tokens})};
    work.reads = ReadsFirst(place) ? 1 : 0;
    for (const NiahPolicy& policy : PoliciesOf(place)) {
      const int64_t answers = static_cast<int64_t>(options_.visible.size()) * options_.turns;
      work.answers += answers;
      work.reads += answerer_.FindsBlocks(policy) ? 0 : answers;
    }
    return work;
  }

  // Whether any of its policies finds what was read before.
  bool ReadsFirst(const NiahPlace& place) const {
    const std::span<const NiahPolicy> policies = PoliciesOf(place);
    return std::any_of(policies.begin(), policies.end(),
                       [this](const NiahPolicy& policy) { return answerer_.FindsBlocks(policy); });
  }

  // Says what there is to do and how long it takes; the answers that are to be had.
  absl::StatusOr<int64_t> Announce(std::span<const NiahPlace> places) {
    std::vector<NiahWork> left;
    int64_t answers = 0, all = 0;
    for (const NiahPlace& place : places) {
      const NiahWork work = WorkOf(place);
      all += work.answers;
      if (Found(place) != nullptr) continue;
      answers += work.answers;
      left.push_back(work);
    }
    std::string line = fmt::format("niah: {} answers to {} texts", answers, left.size());
    if (answers < all) {
      line += fmt::format("; {} of {} answers are in {}", all - answers, all, options_.state->path());
    }
    if (answers > 0) {
      PALIMPSEST_ASSIGN_OR_RETURN(const std::optional<double> seconds, answerer_.Estimate(left));
      line += seconds.has_value() ? fmt::format("; about {}", FormatSeconds(*seconds))
                                  : std::string("; the first answers show how long it takes");
    }
    options_.progress.write(line + "\n");
    return answers;
  }

  // All runs of one sample, one after the other: they share its blocks.
  absl::Status RunSample(const NiahPlace& place, Progress& progress, std::vector<NiahTrial>* trials) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    if (const std::vector<NiahTrial>* const found = Found(place)) {
      trials->insert(trials->end(), found->begin(), found->end());
      return absl::OkStatus();
    }
    PALIMPSEST_ASSIGN_OR_RETURN(const NiahSample sample, Generate(place));
    if (ReadsFirst(place)) PALIMPSEST_RETURN_IF_ERROR(answerer_.Read(sample));
    full_answers_ = {};
    std::vector<NiahTrial> all;
    for (const bool visible : options_.visible) {
      for (const NiahPolicy& policy : PoliciesOf(place)) {
        PALIMPSEST_RETURN_IF_ERROR(RunTurns(place, sample, policy, visible, progress, &all));
      }
    }
    trials->insert(trials->end(), all.begin(), all.end());
    const bool whole =
        std::all_of(all.begin(), all.end(), [](const NiahTrial& trial) { return trial.failed.empty(); });
    return options_.state != nullptr && whole ? options_.state->Add(KeyOf(place), all) : absl::OkStatus();
  }

  // One conversation: each question stands behind the answers to those before. One without an answer ends it:
  // the rest has none either.
  absl::Status RunTurns(const NiahPlace& place, const NiahSample& sample, const NiahPolicy& policy,
                        bool visible, Progress& progress, std::vector<NiahTrial>* trials) {
    std::vector<std::string> answers;
    std::vector<std::string>& of_full = full_answers_[visible ? 1 : 0];
    std::string failed;
    int64_t number = 0;
    for (const NiahTurn& turn : sample.turns) {
      NiahTrial trial;
      if (failed.empty()) {
        absl::StatusOr<NiahTrial> asked = answerer_.Ask(sample, answers, policy, visible);
        if (asked.ok()) {
          trial = *std::move(asked);
        } else if (answerer_.fails_alone() && asked.status().code() != absl::StatusCode::kCancelled) {
          failed = Message(asked.status());
        } else {
          return asked.status();
        }
      }
      trial.failed = failed;
      trial.task = place.task->name();
      trial.length = place.request.tokens;
      trial.depth_percent = place.task->has_depths() ? turn.depth_percent : -1;
      trial.policy = policy.text;
      trial.recall = policy.RecallName();
      trial.question_visible = visible;
      trial.turn = ++number;
      trial.seed = place.request.seed;
      if (failed.empty()) {
        answers.push_back(trial.answer);
        trial.score = place.task->Score(trial.answer, turn);
        trial.as_full = policy.full() || (answers.size() <= of_full.size() &&
                                          std::equal(answers.begin(), answers.end(), of_full.begin()));
      }
      trials->push_back(std::move(trial));
      progress.Add(1);
    }
    if (policy.full()) of_full = std::move(answers);
    return absl::OkStatus();
  }

  const NiahOptions& options_;
  NiahAnswerer& answerer_;
  std::vector<NiahPolicy> policies_;  // full first
  std::set<int64_t> lengths_without_full_;
  std::map<std::pair<const NiahTask*, int64_t>, int64_t> answer_tokens_;  // by task and length
  std::array<std::vector<std::string>, 2> full_answers_;  // of the sample at hand: question hidden, visible
};

}  // namespace

std::vector<NiahPlace> NiahPlaces(const NiahOptions& options) {
  std::vector<NiahPlace> places;
  for (const auto& task : options.tasks) {
    for (const int64_t length : options.lengths) {
      for (const double depth : options.depths_percent) {
        for (int64_t i = 0; i < options.seeds; ++i) {
          places.push_back({task.get(),
                            {.seed = static_cast<uint64_t>(options.first_seed + i),
                             .tokens = length,
                             .depth_percent = task->has_depths() ? depth : 0,
                             .turns = options.turns,
                             .answer_tokens = options.max_tokens}});
        }
        if (!task->has_depths()) break;
      }
    }
  }
  return places;
}

absl::StatusOr<std::vector<NiahTrial>> RunNiah(NiahAnswerer& answerer, const NiahOptions& options) {
  Runner runner(options, answerer);
  PALIMPSEST_RETURN_IF_ERROR(runner.Check());
  return runner.Run();
}

absl::StatusOr<std::vector<NiahTrial>> RunNiah(Model& model, const NiahOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<NiahAnswerer> answerer,
                              MakeEngineAnswerer(model, options.prefill, options.ssd_folder, options.cancel));
  return RunNiah(*answerer, options);
}

}  // namespace palimpsest
