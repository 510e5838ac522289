#include "proto/base/cancel.h"

#include <algorithm>

#include "proto/base/status.h"

namespace palimpsest {

const CancelToken& CancelToken::Never() {
  static const CancelToken* const never = new CancelToken;
  return *never;
}

absl::Status CancelToken::Check() const {
  if (!IsSet()) [[likely]]
    return absl::OkStatus();
  return absl::CancelledError("cancelled");
}

Deadline Deadline::Never() { return Deadline(nullptr, TimePoint::max(), Duration::max()); }

Deadline Deadline::After(const Clock& clock, Duration limit) {
  return Deadline(&clock, AddSaturated(clock.Now(), limit), std::max(limit, Duration::zero()));
}

Duration Deadline::Remaining() const {
  if (clock_ == nullptr) return Duration::max();
  return std::max(end_ - clock_->Now(), Duration::zero());
}

absl::Status Deadline::Check(std::string_view what) const {
  if (!Expired()) [[likely]]
    return absl::OkStatus();
  return Error(absl::StatusCode::kDeadlineExceeded, "{} exceeded its time limit of {:.6g} s", what,
               Seconds(limit_));
}

Deadline Deadline::AtMost(Duration limit) const {
  PALIMPSEST_CHECK(clock_ != nullptr, "a deadline without a clock cannot be shortened");
  const Deadline other = After(*clock_, limit);
  return other.end_ < end_ ? other : *this;
}

}  // namespace palimpsest
