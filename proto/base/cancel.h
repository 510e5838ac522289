// How a long loop is asked to stop: a CancelToken (Ctrl-C, client gone) and a Deadline. Both are checked once
// a step (a decoded token, a prefill chunk, a block), never per element.
//
//   for (...) { PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
//   PALIMPSEST_RETURN_IF_ERROR(deadline.Check("prefill")); ... }
#pragma once

#include <atomic>
#include <string_view>

#include "absl/status/status.h"
#include "proto/base/clock.h"

namespace palimpsest {

// A flag that goes from unset to set once. A request's token has the process's token as parent and is set
// with it.
//
// Owns   : nothing; `parent` must outlive the token, the token everything it is lent to.
// Threads: any thread; Set() and IsSet() may be called from a signal handler.
class CancelToken {
 public:
  explicit CancelToken(const CancelToken* parent = nullptr) : parent_(parent) {}
  CancelToken(const CancelToken&) = delete;
  CancelToken& operator=(const CancelToken&) = delete;

  // For callers that are never cancelled.
  static const CancelToken& Never();

  void Set() noexcept { set_.store(true, std::memory_order_relaxed); }
  bool IsSet() const noexcept {
    return set_.load(std::memory_order_relaxed) || (parent_ != nullptr && parent_->IsSet());
  }
  // Cancelled once the token is set.
  absl::Status Check() const;

 private:
  static_assert(std::atomic<bool>::is_always_lock_free, "Set() must be async-signal-safe");
  const CancelToken* const parent_;
  std::atomic<bool> set_{false};  // carries no data, so relaxed order is enough
};

// A point of a clock's time after which work is abandoned. A value: pass it down by copy. `clock` must
// outlive it.
class Deadline {
 public:
  static Deadline Never();
  static Deadline After(const Clock& clock, Duration limit);

  bool Expired() const { return clock_ != nullptr && clock_->Now() >= end_; }
  Duration Remaining() const;  // zero once expired; Duration::max() for Never()
  // DeadlineExceeded "WHAT exceeded its time limit of 3 s" once expired.
  absl::Status Check(std::string_view what) const;
  // This deadline, or `limit` from now if that is earlier; the same clock. REQUIRES: not Never().
  Deadline AtMost(Duration limit) const;

 private:
  Deadline(const Clock* clock, TimePoint end, Duration limit) : clock_(clock), end_(end), limit_(limit) {}
  const Clock* clock_;  // null: never
  TimePoint end_;
  Duration limit_;  // as given, for the message
};

}  // namespace palimpsest
