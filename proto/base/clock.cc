#include "proto/base/clock.h"

#include "proto/base/status.h"

namespace palimpsest {
namespace {

class SystemClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
  int64_t UnixMillis() const override {
    const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
  }
};

}  // namespace

const Clock& RealClock() {
  static const SystemClock* const clock =
      new SystemClock;  // never destroyed: threads may outlive main's statics
  return *clock;
}

ManualClock::ManualClock(int64_t unix_millis) : unix_millis_at_start_(unix_millis) {}

TimePoint ManualClock::Now() const {
  return TimePoint(std::chrono::seconds(1) + std::chrono::nanoseconds(elapsed_ns_.load()));
}

int64_t ManualClock::UnixMillis() const { return unix_millis_at_start_ + elapsed_ns_.load() / 1'000'000; }

void ManualClock::Advance(Duration by) {
  PALIMPSEST_CHECK(by >= Duration::zero(), "a monotonic clock advanced by {} ns", by.count());
  elapsed_ns_.fetch_add(std::chrono::duration_cast<std::chrono::nanoseconds>(by).count());
}

}  // namespace palimpsest
