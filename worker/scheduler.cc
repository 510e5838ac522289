#include "worker/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace palimpsest {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
// A step before any was measured.
constexpr double kFirstCost = 64;

bool IsBackground(const StepCandidate& c) {  // what starved is served with the interactive ones
  return c.background && c.starved_seconds < Scheduler::kStarvedSeconds;
}

}  // namespace

double Scheduler::CostOf(int64_t rows, int64_t depth) const {
  const double mean_depth = static_cast<double>(depth) + static_cast<double>(rows) / 2;
  return static_cast<double>(rows) * (1 + mean_depth / options_.attention_depth);
}

int64_t Scheduler::WholeMax() const { return std::max<int64_t>(1, options_.rows_max / 2); }

void Scheduler::PickDecoding(std::span<const StepCandidate> candidates) {
  order_.clear();
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].decoding) order_.push_back(i);
  }
  const int64_t most = options_.rows_max - (owed_ ? WholeMax() : 0);
  const size_t rows = std::min(order_.size(), static_cast<size_t>(most));
  if (0 < rows && rows < order_.size()) {  // round and round
    const auto next =
        std::find_if(order_.begin(), order_.end(), [&](size_t i) { return candidates[i].id > last_turn_; });
    std::rotate(order_.begin(), next, order_.end());
    last_turn_ = candidates[order_[rows - 1]].id;
  }
  for (size_t i = 0; i < rows; ++i) {
    grants_.push_back({order_[i], 1});
    cost_ += CostOf(1, candidates[order_[i]].depth);
  }
}

// What the step's time leaves for prompts.
double Scheduler::PromptCostMax() const {
  if (options_.step_seconds == 0) return kNoLimit;
  const double all = seconds_per_row_ > 0 ? options_.step_seconds / seconds_per_row_ : kFirstCost;
  return std::max(all - cost_, static_cast<double>(kRowsMin));
}

// A piece is as large whatever runs beside it. What a step is predicted to hold counts only behind others.
void Scheduler::GrantWhole(size_t place, const StepCandidate& c, int64_t* rows_max, double* cost_max) {
  const int64_t rows = std::min(c.rows, WholeMax());
  const double cost = CostOf(rows, c.depth);
  if (rows > *rows_max || (prompt_rows_ > 0 && cost > *cost_max)) return;
  grants_.push_back({place, rows});
  *rows_max -= rows;
  *cost_max = std::max(0.0, *cost_max - cost);
  prompt_rows_ += rows;
  cost_ += cost;
}

void Scheduler::PickPrompts(std::span<const StepCandidate> candidates, bool background, int64_t rows_max,
                            double cost_max) {
  order_.clear();
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].decoding && IsBackground(candidates[i]) == background) order_.push_back(i);
  }
  std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
    const StepCandidate &x = candidates[a], &y = candidates[b];
    const bool x_starved = x.starved_seconds >= kStarvedSeconds,
               y_starved = y.starved_seconds >= kStarvedSeconds;
    if (x_starved != y_starved) return x_starved;
    if (x_starved) return x.id < y.id;
    return std::tie(x.rows, x.id) < std::tie(y.rows, y.id);
  });
  const double share = order_.size() > 1 ? options_.share : 1;
  const int64_t rows_each =
      std::max<int64_t>(1, std::llround(std::ceil(share * static_cast<double>(rows_max))));
  const double cost_each = share * cost_max;
  for (const size_t i : order_) {
    const StepCandidate& c = candidates[i];
    if (c.whole) {
      GrantWhole(i, c, &rows_max, &cost_max);
      continue;
    }
    int64_t rows = std::min({c.rows, rows_each, rows_max});
    if (rows == 0) break;
    const double row_cost = CostOf(rows, c.depth) / static_cast<double>(rows);
    const double room = std::min(cost_each, cost_max) / row_cost;
    if (room < static_cast<double>(rows)) {
      const int64_t least = i == order_.front() ? std::min(rows, kRowsMin) : 0;
      rows = std::max(least, static_cast<int64_t>(room));
    }
    if (rows == 0) break;
    grants_.push_back({i, rows});
    const double cost = CostOf(rows, c.depth);
    rows_max -= rows;
    cost_max = std::max(0.0, cost_max - cost);
    prompt_rows_ += rows;
    cost_ += cost;
  }
}

std::span<const StepGrant> Scheduler::Pick(std::span<const StepCandidate> candidates) {
  grants_.clear();
  cost_ = 0;
  prompt_rows_ = 0;
  // A piece that is taken whole would wait for as long as many decode.
  owed_ = std::any_of(candidates.begin(), candidates.end(), [](const StepCandidate& c) {
    return c.whole && !c.decoding && c.starved_seconds >= kStarvedSeconds;
  });
  PickDecoding(candidates);
  const int64_t rows = options_.rows_max - static_cast<int64_t>(grants_.size());
  const double cost = PromptCostMax();
  int64_t interactive = 0, background = 0;
  bool due = false;  // a background prompt has paused long enough
  for (const StepCandidate& c : candidates) {
    if (c.decoding) continue;
    ++(IsBackground(c) ? background : interactive);
    due = due || (IsBackground(c) && c.starved_seconds >= kPauseSeconds);
  }
  if (interactive == 0 || !due || owed_) {
    PickPrompts(candidates, interactive == 0, rows, cost);
    return grants_;
  }
  const int64_t kept = rows > 1 ? std::max<int64_t>(1, rows / 8) : 0;  // for the background
  PickPrompts(candidates, /*background=*/false, rows - kept, cost * 7 / 8);
  PickPrompts(candidates, /*background=*/true, kept, cost / 8);
  return grants_;
}

void Scheduler::Observe(double seconds) {
  // Steps with few rows are bound by reading the weights and tell little about what a row costs.
  if (prompt_rows_ < kRowsMin || seconds <= 0) return;
  constexpr double kNewest = 0.3;
  const double now = seconds / cost_;
  seconds_per_row_ = seconds_per_row_ == 0 ? now : seconds_per_row_ + kNewest * (now - seconds_per_row_);
}

}  // namespace palimpsest
