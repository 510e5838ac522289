// Any tier, with faults by seed: what a broken disk, a full one or a slow peer does, at chosen odds.
//
// The same seed and the same order of calls give the same faults; each kind draws from its own sequence, so
// that changing the odds of one leaves the others where they were. With all odds 0 it is the inner tier.
// Threads: any thread, as far as the inner tier and `sleep` allow; which call meets a fault then depends on
// the order.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "storage/tier.h"

namespace palimpsest {

// Odds are per call, 0 to 1; a Put of several items is one call. "Get" is GetPart too, and each value of a
// GetTogether.
struct TierFaults {
  uint64_t seed = 0;
  double put_error = 0;    // Put: Unavailable, nothing stored
  double put_full = 0;     // Put: ResourceExhausted, nothing stored
  double put_lost = 0;     // Put: OK, nothing stored (a write cache that lied)
  double get_error = 0;    // Get: Unavailable
  double get_corrupt = 0;  // Get: OK, one bit flipped (after the tier's own check: a bus, a buffer, a driver)
  double get_truncated = 0;  // Get: OK, a shorter value
  double get_misplaced = 0;  // Get: OK, what the Get before it read, if that was another value or part
  double slow = 0;           // Put and Get: `delay` first
  std::chrono::nanoseconds delay{0};
  // Required if slow > 0: a test's clock, or a real wait.
  std::function<void(std::chrono::nanoseconds)> sleep = nullptr;
};

// Faults that were injected.
struct TierFaultCounts {
  int64_t put_errors = 0, put_full = 0, put_lost = 0, get_errors = 0, get_corrupt = 0, get_truncated = 0,
          get_misplaced = 0, slow = 0;
};

class FaultyTier : public Tier {
 public:
  virtual void SetFaults(const TierFaults& faults) = 0;  // starts the sequences anew; counts go on
  virtual TierFaultCounts Counts() const = 0;
};

std::unique_ptr<FaultyTier> MakeFaultyTier(std::unique_ptr<Tier> inner, const TierFaults& faults);

}  // namespace palimpsest
