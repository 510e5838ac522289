// What one engine step runs, decided from numbers alone: which sessions decode, and how many rows of which
// prompts.
//
// Decode : all sessions that decode have their row; if there are more than rows, they take turns.
// Prompts: interactive ones first. Background ones are left out beside them, since their rows are what a
//          short question would wait for, but have an eighth of a step each kPauseSeconds, so that they
//          never stand still. Within a class the one with the least left goes first, so that a short
//          question does not wait for a long document; what has had no row for kStarvedSeconds goes before
//          all others. One request has at most `share` of the class's rows while others want some; what it
//          leaves is not filled: a shorter step is what the others wait for.
// Time   : rows are cut to what `step_seconds` is predicted to hold, by a running mean of the cost of a
//          row. A row's result never depends on the rows beside it, so neither cuts nor clocks change an
//          answer.
// Threads: one at a time (the engine's).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace palimpsest {

// A session that could have rows in the next step.
struct StepCandidate {
  int64_t id;                  // by arrival, ascending in the list
  bool decoding = false;       // wants one row; otherwise some of its prompt
  bool background = false;     // of a prompt
  int64_t rows = 1;            // left of its prompt
  bool whole = false;          // at once: all of them, or half of what a step holds
  int64_t depth = 0;           // tokens before them
  double starved_seconds = 0;  // since it had a row, or came
};

struct StepGrant {
  size_t candidate;  // its place in the list
  int64_t rows;
};

class Scheduler {
 public:
  static constexpr double kStarvedSeconds = 2;
  static constexpr double kPauseSeconds = 0.5;  // of a background prompt beside interactive ones
  static constexpr int64_t kRowsMin = 16;       // no prediction cuts a step's prompt rows below this

  struct Options {
    int64_t rows_max = 512;         // of a step
    double share = 0.5;             // of a class's rows for one request, while others want some
    double step_seconds = 0;        // 0: no limit
    double attention_depth = 1024;  // tokens at which attending to them costs as much as the rest of a row
  };
  explicit Scheduler(const Options& options) : options_(options) {}

  // Decoding sessions first. Valid until the next Pick.
  std::span<const StepGrant> Pick(std::span<const StepCandidate> candidates);
  // How long the step took that was picked last.
  void Observe(double seconds);
  double seconds_per_row() const { return seconds_per_row_; }  // at depth 0; 0: not known yet

 private:
  double CostOf(int64_t rows, int64_t depth) const;  // in rows at depth 0
  int64_t WholeMax() const;                          // rows of a piece that is taken whole
  void PickDecoding(std::span<const StepCandidate> candidates);
  double PromptCostMax() const;
  void GrantWhole(size_t place, const StepCandidate& c, int64_t* rows_max, double* cost_max);
  void PickPrompts(std::span<const StepCandidate> candidates, bool background, int64_t rows_max,
                   double cost_max);

  const Options options_;
  double seconds_per_row_ = 0;
  int64_t last_turn_ = -1;  // id of the session that decoded last, where not all could
  bool owed_ = false;       // half of this step's rows, to a piece that starved
  std::vector<StepGrant> grants_;
  std::vector<size_t> order_;  // places of one class, first to be served first
  int64_t prompt_rows_ = 0;    // of the step picked last
  double cost_ = 0;            // of it
};

}  // namespace palimpsest
