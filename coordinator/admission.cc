#include "coordinator/admission.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// Before anything is measured: a small model on a few cores.
constexpr double kPrefillRate = 500, kDecodeRate = 50;

int64_t Tokens(const Admission::Need& need) { return need.prompt_tokens + need.answer_tokens; }

}  // namespace

// When about half of what waits has been let in; clients that all come back then find room.
int64_t Admission::SecondsUntilRoom(const Capacity& capacity) const {
  const auto rate = [](double measured, double otherwise) { return measured > 0 ? measured : otherwise; };
  const double seconds =
      static_cast<double>(waiting_tokens_) / rate(capacity.prefill_tokens_per_second, kPrefillRate) +
      static_cast<double>(waiting_answer_tokens_ + running_answer_tokens_) /
          rate(capacity.decode_tokens_per_second, kDecodeRate);
  const auto most = static_cast<double>(std::max<int64_t>(limits_.waiting_seconds, 1));
  return static_cast<int64_t>(std::ceil(std::clamp(seconds / 2, 1.0, most)));
}

int64_t Admission::WaitingOf(const std::string& tenant) const {
  return std::count_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return !entry.second.running && entry.second.tenant == tenant;
  });
}

absl::StatusOr<Admission::Id> Admission::Enter(const std::string& tenant, const Capacity& capacity,
                                               TimePoint now) {
  // Those that free slots are about to take do not count.
  const int64_t places = limits_.waiting + std::max<int64_t>(limits_.running - running_slots_, 0);
  // One tenant leaves a quarter to others: its flood must not be what refuses them.
  if (!tenant.empty() && WaitingOf(tenant) >= places - places / 4 && waiting_requests() < places) {
    const int64_t seconds = SecondsUntilRoom(capacity);
    return WithRetryAfter(
        Error(absl::StatusCode::kUnavailable,
              "{} requests of this key wait, three quarters of limits.waiting, {}; come again in {} s",
              WaitingOf(tenant), limits_.waiting, seconds),
        seconds);
  }
  if (waiting_requests() >= places) {
    const int64_t seconds = SecondsUntilRoom(capacity);
    return WithRetryAfter(
        Error(absl::StatusCode::kUnavailable,
              "{} requests with {} prompt tokens wait, limits.waiting is {}; come again in {} s",
              waiting_requests(), waiting_tokens_, limits_.waiting, seconds),
        seconds);
  }
  const Id id = next_++;
  entries_[id] = {.tenant = tenant, .need = {}, .arrived = now};
  return id;
}

absl::Status Admission::SetNeed(Id id, const Need& need, const Capacity& capacity) {
  Entry& entry = entries_.at(id);
  PALIMPSEST_CHECK(!entry.known, "a request's need is set twice");
  // One alone may be longer than the limit: otherwise it could never be asked.
  if (waiting_tokens_ > 0 && waiting_tokens_ + need.prompt_tokens > limits_.waiting_tokens) {
    const int64_t seconds = SecondsUntilRoom(capacity);
    return WithRetryAfter(
        Error(absl::StatusCode::kUnavailable,
              "{} requests with {} prompt tokens wait, this one has {}, limits.waiting_tokens is {}; come "
              "again "
              "in {} s",
              waiting_requests() - 1, waiting_tokens_, need.prompt_tokens, limits_.waiting_tokens, seconds),
        seconds);
  }
  entry.need = need;
  entry.need.slots = std::min(entry.need.slots, limits_.running);  // or it could never be let in
  entry.known = true;
  waiting_tokens_ += need.prompt_tokens;
  waiting_answer_tokens_ += need.answer_tokens;
  tokens_[entry.tenant] += Tokens(need);
  return absl::OkStatus();
}

bool Admission::Fits(const Need& need, const Capacity& capacity) const {
  if (capacity.bytes <= 0) return false;
  if (running_requests_ == 0) return true;
  return running_slots_ + need.slots <= limits_.running && need.bytes <= capacity.bytes - running_bytes_;
}

// Who waits, first to be let in first. What a tenant holds does not change as its requests are let in, so one
// order serves a whole Grant; and within a tenant who came first has waited longest.
std::vector<Admission::Id> Admission::InTurn(TimePoint now) const {
  std::vector<std::pair<double, Id>> order;
  for (const auto& [id, entry] : entries_) {
    if (entry.running || !entry.known) continue;
    const auto held = tokens_.find(entry.tenant);
    order.emplace_back(static_cast<double>(held == tokens_.end() ? 0 : held->second) -
                           Seconds(now - entry.arrived) * static_cast<double>(kAgeTokensPerSecond),
                       id);
  }
  std::sort(order.begin(), order.end());
  std::vector<Id> ids;
  ids.reserve(order.size());
  for (const auto& [tokens, id] : order) ids.push_back(id);
  return ids;
}

void Admission::Grant(const Capacity& capacity, TimePoint now) {
  const auto has_slots = [this] { return running_requests_ == 0 || running_slots_ < limits_.running; };
  if (capacity.bytes <= 0 || waiting_requests() == 0 || !has_slots()) return;
  for (const Id id : InTurn(now)) {
    if (!has_slots()) return;
    Entry& entry = entries_.at(id);
    if (!Fits(entry.need, capacity)) {
      if (now - entry.arrived >= kPassedOver) return;
      continue;
    }
    entry.running = true;
    ++running_requests_;
    running_slots_ += entry.need.slots;
    running_bytes_ += entry.need.bytes;
    running_answer_tokens_ += entry.need.answer_tokens;
    waiting_tokens_ -= entry.need.prompt_tokens;
    waiting_answer_tokens_ -= entry.need.answer_tokens;
  }
}

void Admission::Leave(Id id) {
  const auto found = entries_.find(id);
  PALIMPSEST_CHECK(found != entries_.end(), "request {} is not here", id);
  const Entry& entry = found->second;
  const Need& need = entry.need;
  if (entry.running) {
    --running_requests_;
    running_slots_ -= need.slots;
    running_bytes_ -= need.bytes;
    running_answer_tokens_ -= need.answer_tokens;
  } else if (entry.known) {
    waiting_tokens_ -= need.prompt_tokens;
    waiting_answer_tokens_ -= need.answer_tokens;
  }
  if (entry.known) {
    const auto tenant = tokens_.find(entry.tenant);
    tenant->second -= Tokens(need);
    if (tenant->second == 0) tokens_.erase(tenant);
  }
  entries_.erase(found);
}

absl::Status Admission::WaitedTooLong(Id id, const Capacity& capacity, TimePoint now) const {
  const Entry& entry = entries_.at(id);
  const int64_t seconds = SecondsUntilRoom(capacity);
  const std::string why =
      capacity.bytes > 0 ? fmt::format("{} requests run and {} wait", running_requests_, waiting_requests())
                         : std::string("no worker is there");
  return WithRetryAfter(
      Error(
          absl::StatusCode::kUnavailable,
          "the request with {} prompt tokens waited {:.0f} s for its turn, limits.waiting_seconds is {}: {}; "
          "come again in {} s",
          entry.need.prompt_tokens, Seconds(now - entry.arrived), limits_.waiting_seconds, why, seconds),
      seconds);
}

}  // namespace palimpsest
