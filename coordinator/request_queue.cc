#include "coordinator/request_queue.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

// How often who waits looks at its cancel token and at the workers, neither of which wakes it.
constexpr Duration kLook = std::chrono::milliseconds(50);

}  // namespace

// From the workers' last beats.
Admission::Capacity RequestQueue::CapacityNow() const {
  Admission::Capacity capacity;
  for (const Registry::Worker& worker : registry_->Alive()) {
    capacity.bytes += worker.hello.arena_bytes();
    capacity.prefill_tokens_per_second += worker.status.prefill_tokens_per_second();
    capacity.decode_tokens_per_second += worker.status.decode_tokens_per_second() *
                                         static_cast<double>(std::max<int64_t>(worker.status.running(), 1));
  }
  return capacity;
}

absl::StatusOr<RequestQueue::Turn> RequestQueue::Enter(const std::string& tenant) {
  const Admission::Capacity capacity = CapacityNow();
  const std::lock_guard<std::mutex> lock(mu_);
  PALIMPSEST_ASSIGN_OR_RETURN(const Admission::Id id, admission_.Enter(tenant, capacity, clock_.Now()));
  return Turn(this, id);
}

RequestQueue::Turn::~Turn() {
  if (queue_ == nullptr) return;
  const Admission::Capacity capacity = queue_->CapacityNow();
  {
    const std::lock_guard<std::mutex> lock(queue_->mu_);
    queue_->admission_.Leave(id_);
    queue_->admission_.Grant(capacity, queue_->clock_.Now());
  }
  queue_->turn_.notify_all();
}

absl::Status RequestQueue::Turn::SetNeed(const Admission::Need& need) {
  const Admission::Capacity capacity = queue_->CapacityNow();
  const std::lock_guard<std::mutex> lock(queue_->mu_);
  return queue_->admission_.SetNeed(id_, need, capacity);
}

absl::Status RequestQueue::Turn::Wait(const CancelToken& cancel) { return queue_->WaitForTurn(id_, cancel); }

absl::Status RequestQueue::WaitForTurn(Admission::Id id, const CancelToken& cancel) {
  const TimePoint end = AddSaturated(clock_.Now(), std::chrono::seconds(limits_.waiting_seconds));
  Admission::Capacity capacity = CapacityNow();
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    admission_.Grant(capacity, clock_.Now());
    if (admission_.running(id)) break;
    PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
    if (clock_.Now() >= end) return admission_.WaitedTooLong(id, capacity, clock_.Now());
    turn_.wait_for(lock, kLook, [&] { return admission_.running(id); });
    lock.unlock();
    capacity = CapacityNow();
    lock.lock();
  }
  lock.unlock();
  turn_.notify_all();  // Grant may have let in others too
  return absl::OkStatus();
}

RequestQueue::Numbers RequestQueue::numbers() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return {.running = admission_.running_requests(),
          .waiting = admission_.waiting_requests(),
          .waiting_tokens = admission_.waiting_tokens()};
}

}  // namespace palimpsest
