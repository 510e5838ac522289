// Time comes in through a Clock, so that everything with a timeout can run from a test's clock (invariant
// I-14).
//
// Timeouts, rates and durations use Now(), which is monotonic; UnixMillis() is for logs and for people only.
// Neither a TimePoint nor a deadline leaves the process: only durations cross hosts.
//
// Threads: any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace palimpsest {

using Duration = std::chrono::steady_clock::duration;  // nanoseconds
using TimePoint = std::chrono::steady_clock::time_point;

constexpr double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// `start` + `delay`, at most TimePoint::max(); a negative delay counts as zero.
constexpr TimePoint AddSaturated(TimePoint start, Duration delay) {
  if (delay <= Duration::zero()) return start;
  const bool passes_end = start > TimePoint::max() - delay;
  return passes_end ? TimePoint::max() : start + delay;
}

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;       // never goes back
  virtual int64_t UnixMillis() const = 0;  // wall time; may jump
};

// The machine's clock; lives as long as the process.
const Clock& RealClock();

// Stands still until it is told to advance.
class ManualClock final : public Clock {
 public:
  // Now() starts one second after the epoch of steady_clock, so that a default TimePoint reads as the past.
  explicit ManualClock(int64_t unix_millis = 1'700'000'000'000);
  TimePoint Now() const override;
  int64_t UnixMillis() const override;
  void Advance(Duration by);  // moves both clocks; `by` must not be negative

 private:
  const int64_t unix_millis_at_start_;
  std::atomic<int64_t> elapsed_ns_{0};
};

}  // namespace palimpsest
