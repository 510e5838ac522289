// How far a long command has come, told on stderr: a bar on a terminal, a plain line now and then elsewhere.
//
//   Progress progress("ingest", "tokens", total, StderrProgress());
//   while (...) { ...; progress.Add(chunk_tokens); }
//   progress.Done();     // "ingest: 2600000 tokens in 3.2 s, 812500 tokens/s"
//
// A bar is drawn at most ten times a second, a plain line at most every five seconds; both only from inside
// Add, which costs a clock read and an addition: call it per chunk, not per byte. The bar leaves the cursor
// at its line's start, so that a log line written over it begins a line.
//
// Threads: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "proto/base/clock.h"

namespace palimpsest {

// Where progress goes.
struct ProgressOutput {
  std::function<void(std::string_view)> write;  // called one at a time
  bool terminal = false;                        // a bar that redraws itself
  int columns = 80;                             // of the terminal
};

// Standard error, and whether it is a terminal.
ProgressOutput StderrProgress();
// For callers that want none.
ProgressOutput NoProgress();

// "45 s", "2 min 10 s", "3 h 5 min".
std::string FormatSeconds(double seconds);

class Progress {
 public:
  // `unit` in the plural; "bytes" shows as KiB, MiB, ... A `total` of 0 means unknown: no share, no time
  // left.
  Progress(std::string_view label, std::string unit, int64_t total, ProgressOutput output,
           const Clock& clock = RealClock());
  // Ends the bar's line if Done was not called: what follows is an error message.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Add(int64_t amount);
  void Done();  // the last line, with the rate over all; once
  int64_t done() const { return done_.load(std::memory_order_relaxed); }

 private:
  void Draw(TimePoint now);  // REQUIRES: mu_
  std::string Line(int64_t done) const;
  std::string Amount(int64_t amount) const;
  std::string Rate(double per_second) const;

  const std::string label_;
  const std::string unit_;
  const int64_t total_;
  const ProgressOutput output_;
  const Clock& clock_;
  const TimePoint start_;
  const Duration interval_;  // between two draws

  std::atomic<int64_t> done_{0};
  std::atomic<TimePoint> next_draw_;

  std::mutex mu_;  // guards what follows and output_.write
  bool drawn_ = false;
  bool finished_ = false;
  TimePoint drawn_at_;
  int64_t drawn_done_ = 0;
  double rate_ = 0;  // units a second, smoothed; 0 until two draws apart in time
};

}  // namespace palimpsest
