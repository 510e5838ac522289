// Says when to leave a failing device alone: plain data, no lock, no clock of its own.
//
// Closed: all calls pass. `failures` failures in a row open it: for `pause` nothing passes; then one call may
// try, and its outcome closes or opens it again.
// Threads: one at a time.
#pragma once

#include "proto/base/clock.h"

namespace palimpsest {

class Breaker {
 public:
  Breaker(int failures, Duration pause) : failures_max_(failures), pause_(pause) {}

  // May a call be made now? After a pause, true once until that call's outcome is known (or for a pause).
  bool Allow(TimePoint now) {
    if (failures_ < failures_max_) return true;
    if (now < closed_until_) return false;
    closed_until_ = AddSaturated(now, pause_);
    return true;
  }
  void Succeeded() { failures_ = 0; }
  void Failed(TimePoint now) {
    if (++failures_ >= failures_max_) closed_until_ = AddSaturated(now, pause_);
  }
  bool open() const { return failures_ >= failures_max_; }
  // Would Allow refuse now? Who only wants to know does not use up the one try.
  bool Resting(TimePoint now) const { return open() && now < closed_until_; }

 private:
  const int failures_max_;
  const Duration pause_;
  int failures_ = 0;  // in a row
  TimePoint closed_until_{};
};

}  // namespace palimpsest
