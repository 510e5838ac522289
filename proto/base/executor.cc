#include "proto/base/executor.h"

#include "proto/base/cores.h"
#include "proto/base/status.h"

namespace palimpsest {

absl::Status TaskQueue::Add(TimePoint now, Duration delay, Task task) {
  PALIMPSEST_CHECK(task != nullptr, "an empty task");
  if (closed_) return FailedPrecondition("the executor is shut down and takes no more tasks");
  if (tasks_.size() >= pending_max_) {
    return ResourceExhausted("{} tasks wait in the executor, its limit: retry when some have ended",
                             tasks_.size());
  }
  tasks_.emplace(std::pair(AddSaturated(now, delay), next_sequence_++), std::move(task));
  return absl::OkStatus();
}

std::optional<Task> TaskQueue::PopDue(TimePoint now) {
  if (tasks_.empty() || tasks_.begin()->first.first > now) return std::nullopt;
  std::optional<Task> task(std::move(tasks_.begin()->second));
  tasks_.erase(tasks_.begin());
  return task;
}

std::optional<TimePoint> TaskQueue::NextDue() const {
  if (tasks_.empty()) return std::nullopt;
  return tasks_.begin()->first.first;
}

std::vector<Task> TaskQueue::Close(TimePoint now) {
  closed_ = true;
  std::vector<Task> dropped;
  const auto first = tasks_.upper_bound(std::pair(now, UINT64_MAX));
  for (auto it = first; it != tasks_.end(); ++it) dropped.push_back(std::move(it->second));
  tasks_.erase(first, tasks_.end());
  return dropped;
}

ThreadExecutor::ThreadExecutor(int threads, size_t pending_max) : queue_(pending_max) {
  PALIMPSEST_CHECK(threads > 0, "an executor of {} threads", threads);
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

absl::Status ThreadExecutor::RunAfter(Duration delay, Task task) {
  {
    std::lock_guard<std::mutex> lock(
        mu_);  // the time is read under the lock, so that equal delays keep their order
    PALIMPSEST_RETURN_IF_ERROR(queue_.Add(clock().Now(), delay, std::move(task)));
  }
  wake_.notify_one();
  return absl::OkStatus();
}

void ThreadExecutor::Work() {
  RunOnAllCores();
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    if (std::optional<Task> task = queue_.PopDue(clock().Now())) {
      // This thread may have been the one that waited for the next due time: hand that wait on before being
      // busy.
      if (queue_.size() > 0) wake_.notify_one();
      lock.unlock();
      std::move(task.value())();
      task.reset();  // what the task captured is released outside the lock
      lock.lock();
      continue;
    }
    if (queue_.closed()) return;  // nothing is due, and what is not due was dropped
    if (const std::optional<TimePoint> due = queue_.NextDue()) {
      wake_.wait_until(lock, *due);
    } else {
      wake_.wait(lock);
    }
  }
}

void ThreadExecutor::Shutdown() {
  for (const std::thread& thread : threads_) {
    PALIMPSEST_CHECK(thread.get_id() != std::this_thread::get_id(), "Shutdown called from one of its tasks");
  }
  std::call_once(shutdown_, [this] {
    std::vector<Task> dropped;
    {
      std::lock_guard<std::mutex> lock(mu_);
      dropped = queue_.Close(clock().Now());
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  });
}

absl::Status ManualExecutor::RunAfter(Duration delay, Task task) {
  return queue_.Add(clock_.Now(), delay, std::move(task));
}

bool ManualExecutor::RunOne() {
  std::optional<Task> task = queue_.PopDue(clock_.Now());
  if (!task.has_value()) return false;
  std::move(task.value())();
  return true;
}

int64_t ManualExecutor::RunUntilIdle() {
  int64_t count = 0;
  while (RunOne()) ++count;
  return count;
}

int64_t ManualExecutor::Advance(Duration by) {
  const TimePoint end = AddSaturated(clock_.Now(), by);
  int64_t count = RunUntilIdle();
  while (true) {
    const std::optional<TimePoint> due = queue_.NextDue();
    if (!due.has_value() || *due > end) break;
    clock_.Advance(*due - clock_.Now());
    count += RunUntilIdle();
  }
  clock_.Advance(end - clock_.Now());
  return count;
}

void ManualExecutor::Shutdown() {
  const std::vector<Task> dropped = queue_.Close(clock_.Now());
  RunUntilIdle();
}

}  // namespace palimpsest
