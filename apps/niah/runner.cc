#include "apps/niah/runner.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <iterator>
#include <map>
#include <numeric>
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

// The numbers of the places in the order in which they run: samples that differ in depth alone follow each
// other, so that each finds what those before it have read of their common beginning.
std::vector<size_t> RunningOrder(std::span<const NiahPlace> places) {
  std::vector<size_t> order(places.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto same_length = [&](size_t a, size_t b) {
    return places[a].task == places[b].task && places[a].request.tokens == places[b].request.tokens;
  };
  for (auto first = order.begin(); first != order.end();) {
    const auto end =
        std::find_if_not(first, order.end(), [&](size_t other) { return same_length(*first, other); });
    std::stable_sort(first, end,
                     [&](size_t a, size_t b) { return places[a].request.seed < places[b].request.seed; });
    first = end;
  }
  return order;
}

// All turns of a conversation are finished together: each stands behind the answers before it.
std::string KeyOf(const NiahPlace& place, const NiahPolicy& policy, bool visible) {
  return fmt::format("{} {} {} {} {}", place.task->name(), place.request.tokens, place.request.depth_percent,
                     place.request.seed, policy.Named(visible));
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
  // full cannot, and the others go without it. Of a grid, recall that a policy or a question in view excludes
  // is left out; a policy that is left out wholly is an error.
  absl::Status Check() {
    std::set<std::string> left_out;  // for each length the same
    PALIMPSEST_RETURN_IF_ERROR(CheckLengths());
    for (const auto& task : options_.tasks) {
      for (const int64_t length : options_.lengths) {
        const absl::StatusOr<NiahSample> sample =
            Generate({task.get(),
                      {.seed = static_cast<uint64_t>(options_.first_seed),
                       .tokens = length,
                       .turns = options_.turns,
                       .answer_tokens = options_.max_tokens}});
        if (sample.status().code() == absl::StatusCode::kCancelled) return sample.status();
        if (!sample.ok())
          return Error(sample.status().code(), "{}: {}", task->name(), Message(sample.status()));
        Asked& asked = asked_[{task.get(), length}];
        asked.answer_tokens = sample->answer_tokens;
        PALIMPSEST_RETURN_IF_ERROR(CheckSample(*sample, &asked, &left_out));
      }
    }
    for (const std::string& what : left_out) options_.progress.write(fmt::format("niah: without {}\n", what));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<NiahTrial>> RunAll() {
    const std::vector<NiahPlace> places = NiahPlaces(options_);
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t answers, Announce(places));
    Progress progress("niah", "answers", answers, options_.progress);
    std::vector<std::vector<NiahTrial>> samples(places.size());
    for (const size_t i : RunningOrder(places)) {
      absl::StatusOr<std::vector<NiahTrial>> sample = RunSample(places[i], progress);
      if (sample.ok()) {
        samples[i] = *std::move(sample);
      } else if (sample.status().code() == absl::StatusCode::kCancelled) {
        return sample.status();
      } else {
        return Error(sample.status().code(), "{}: {}", NameOf(places[i]), Message(sample.status()));
      }
    }
    progress.Done();
    std::vector<NiahTrial> trials;
    for (std::vector<NiahTrial>& sample : samples)
      std::move(sample.begin(), sample.end(), std::back_inserter(trials));
    return trials;
  }

 private:
  absl::StatusOr<NiahSample> Generate(const NiahPlace& place) {
    return place.task->Generate(place.request, [this](const NiahSample& sample) -> absl::StatusOr<int64_t> {
      PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
      return answerer_.CountTokens(sample);
    });
  }

  // Making a sample of millions of tokens takes a while: not where nothing could read it.
  absl::Status CheckLengths() const {
    int64_t most = 0;
    for (const NiahPolicy& policy : policies_) {
      const std::optional<int64_t> longest = answerer_.LongestFor(policy);
      if (!longest.has_value()) return absl::OkStatus();
      most = std::max(most, *longest);
    }
    const int64_t length = *std::max_element(options_.lengths.begin(), options_.lengths.end());
    if (length <= most) return absl::OkStatus();
    return InvalidArgument(
        "length {} is too long to be read as one text: {} was trained for {} tokens with the answer; give at "
        "most that many, or --prefill auto and a policy besides full",
        length, answerer_.name(), most);
  }

  // A row of the table, for one length.
  struct Run {
    const NiahPolicy* policy;
    bool visible;
  };
  struct Asked {
    int64_t answer_tokens = 0;
    std::vector<Run> runs;
  };

  absl::Status CheckSample(const NiahSample& sample, Asked* asked, std::set<std::string>* left_out) {
    std::vector<std::pair<const NiahPolicy*, absl::Status>> refused;
    for (const bool visible : options_.visible) {
      for (const NiahPolicy& policy : policies_) {
        absl::Status status = answerer_.Check(sample, policy, visible);
        if (status.ok()) {
          asked->runs.push_back({&policy, visible});
        } else if (policy.recall.on() && !IsOverWindow(status)) {
          refused.emplace_back(&policy, status);
          left_out->insert(fmt::format("{} + {}, question {}: {}", policy.text, policy.RecallName(),
                                       visible ? "visible" : "hidden", Message(status)));
        } else if (!IsOverWindow(status) || !policy.full() || policies_.size() == 1) {
          return status;
        }
      }
    }
    for (const auto& [policy, status] : refused) {
      const bool runs =
          std::any_of(asked->runs.begin(), asked->runs.end(),
                      [policy = policy](const Run& run) { return run.policy->spec == policy->spec; });
      if (!runs) return status;
    }
    return absl::OkStatus();
  }

  const Asked& AskedOf(const NiahPlace& place) const { return asked_.at({place.task, place.request.tokens}); }

  // Its conversation, if it was finished before; else null.
  const std::vector<NiahTrial>* Found(const NiahPlace& place, const Run& run) const {
    if (options_.state == nullptr) return nullptr;
    return options_.state->Find(KeyOf(place, *run.policy, run.visible));
  }

  // What is still to be done at a place.
  NiahWork WorkOf(const NiahPlace& place) const {
    const Asked& asked = AskedOf(place);
    NiahWork work{.tokens = place.request.tokens,
                  .answer_tokens = asked.answer_tokens,
                  .reads_first = false,
                  .turns = options_.turns,
                  .policies = {}};
    for (const Run& run : asked.runs) {
      if (Found(place, run) != nullptr) continue;
      work.policies.push_back(run.policy);
      work.reads_first |= answerer_.FindsBlocks(*run.policy);
    }
    return work;
  }

  // Says what there is to do and how long it takes; the answers that are to be had.
  absl::StatusOr<int64_t> Announce(std::span<const NiahPlace> places) {
    std::vector<NiahWork> left;
    int64_t answers = 0, all = 0;
    for (const NiahPlace& place : places) {
      all += options_.turns * static_cast<int64_t>(AskedOf(place).runs.size());
      const NiahWork work = WorkOf(place);
      if (work.policies.empty()) continue;
      answers += work.answers();
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
  absl::StatusOr<std::vector<NiahTrial>> RunSample(const NiahPlace& place, Progress& progress) {
    PALIMPSEST_RETURN_IF_ERROR(options_.cancel->Check());
    const NiahWork work = WorkOf(place);
    NiahSample sample;
    if (!work.policies.empty()) {
      PALIMPSEST_ASSIGN_OR_RETURN(sample, Generate(place));
    }
    NiahReading reading;
    if (work.reads_first) {
      PALIMPSEST_ASSIGN_OR_RETURN(reading, answerer_.Read(sample));
    }
    PALIMPSEST_RETURN_IF_ERROR(LeaveAgain(place, sample));
    full_answers_ = {};
    std::vector<NiahTrial> all;
    for (const Run& run : AskedOf(place).runs) {
      std::vector<NiahTrial> trials;
      if (const std::vector<NiahTrial>* const found = Found(place, run)) {
        trials = *found;
      } else {
        PALIMPSEST_ASSIGN_OR_RETURN(trials, RunTurns(place, sample, run, progress));
        if (all.empty()) {
          trials.front().read_tokens = reading.tokens;
          trials.front().read_computed_tokens = reading.computed_tokens;
          trials.front().read_peak_bytes = reading.peak_bytes;
        }
        PALIMPSEST_RETURN_IF_ERROR(Keep(place, run, trials));
      }
      if (run.policy->full()) full_answers_[run.visible ? 1 : 0] = AnswersOf(trials);
      std::move(trials.begin(), trials.end(), std::back_inserter(all));
    }
    return all;
  }

  // What finished conversations left that those still to come behind them would have found: questions again,
  // for a token. Of hidden ones the first, since what it leaves is of the text alone; and nothing twice.
  absl::Status LeaveAgain(const NiahPlace& place, const NiahSample& sample) {
    const std::vector<Run>& runs = AskedOf(place).runs;
    std::vector<const Run*> left;  // hidden
    for (auto run = runs.begin(); run != runs.end(); ++run) {
      const std::vector<NiahTrial>* const found = Found(place, *run);
      if (found == nullptr) continue;
      const auto finds = [&](const Run& earlier, const Run& later) {
        return answerer_.FindsOf(*earlier.policy, *later.policy, place.request.tokens,
                                 earlier.visible == later.visible);
      };
      const bool wanted = std::any_of(run + 1, runs.end(), [&](const Run& later) {
        return Found(place, later) == nullptr && finds(*run, later);
      });
      const bool there = !run->visible && std::any_of(left.begin(), left.end(), [&](const Run* earlier) {
        return finds(*earlier, *run);
      });
      if (!wanted || there) continue;
      if (!run->visible) left.push_back(&*run);
      PALIMPSEST_RETURN_IF_ERROR(AskAgain(sample, *run, *found));
    }
    return absl::OkStatus();
  }
  absl::Status AskAgain(NiahSample sample, const Run& run, std::span<const NiahTrial> trials) {
    if (!run.policy->spec.evicts()) sample.answer_tokens = 1;  // who drops tokens of the answer sees how many
    const std::vector<std::string> answers = AnswersOf(trials);
    const size_t turns = run.visible ? sample.turns.size() : 1;
    for (size_t turn = 0; turn < turns; ++turn) {
      PALIMPSEST_RETURN_IF_ERROR(
          answerer_.Ask(sample, std::span(answers).first(turn), *run.policy, run.visible).status());
    }
    return absl::OkStatus();
  }

  // One with a hole is not finished.
  absl::Status Keep(const NiahPlace& place, const Run& run, std::span<const NiahTrial> trials) {
    const bool whole = std::all_of(trials.begin(), trials.end(),
                                   [](const NiahTrial& trial) { return trial.failed.empty(); });
    if (options_.state == nullptr || !whole) return absl::OkStatus();
    return options_.state->Add(KeyOf(place, *run.policy, run.visible), trials);
  }

  static std::vector<std::string> AnswersOf(std::span<const NiahTrial> trials) {
    std::vector<std::string> answers;
    for (const NiahTrial& trial : trials) {
      if (trial.failed.empty()) answers.push_back(trial.answer);
    }
    return answers;
  }

  // One conversation: each question stands behind the answers to those before. One without an answer ends it:
  // the rest has none either.
  absl::StatusOr<std::vector<NiahTrial>> RunTurns(const NiahPlace& place, const NiahSample& sample,
                                                  const Run& run, Progress& progress) {
    const NiahPolicy& policy = *run.policy;
    const bool visible = run.visible;
    std::vector<NiahTrial> trials;
    std::vector<std::string> answers;
    const std::vector<std::string>& of_full = full_answers_[visible ? 1 : 0];
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
        // An endpoint has no full beside it: nobody knows what it keeps.
        trial.compared = policy.full() ? trial.measured : answers.size() <= of_full.size();
        trial.as_full =
            trial.compared && (policy.full() || std::equal(answers.begin(), answers.end(), of_full.begin()));
        // Tokens that are coded in fewer bits are compressed, all of them there or not.
        trial.kept_all = trial.kept_all && policy.spec.kv == PolicySpec::Resident::kBf16;
      }
      trials.push_back(std::move(trial));
      progress.Add(1);
    }
    return trials;
  }

  const NiahOptions& options_;
  NiahAnswerer& answerer_;
  std::vector<NiahPolicy> policies_;                            // full first
  std::map<std::pair<const NiahTask*, int64_t>, Asked> asked_;  // by task and length
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
  return runner.RunAll();
}

absl::StatusOr<std::vector<NiahTrial>> RunNiah(Model& model, const NiahOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<NiahAnswerer> answerer,
                              MakeEngineAnswerer(model, options.prefill, options.ssd_folder, options.cancel));
  return RunNiah(*answerer, options);
}

}  // namespace palimpsest
