// Where work that nobody waits for runs: an Executor comes in through the constructor of whatever starts such
// work.
//
// ThreadExecutor runs tasks on threads of its own. ManualExecutor runs them when a test says so, in an order
// that depends on nothing but the calls made, and takes its time from a ManualClock.
//
// Contract (one test over both):
// - A task accepted with OK is run exactly once, or dropped (destroyed without being run) only if it was
// given to
//   RunAfter and is not due when Shutdown begins.
// - Tasks start in the order of their due time, then in the order of the calls.
// - No task runs inside Run or RunAfter. A task may call both.
// - Shutdown is the gate: it refuses new work, runs what is due and returns when the last task has ended.
// Errors : ResourceExhausted if `pending_max` tasks wait (queued or not yet due); FailedPrecondition after
// Shutdown.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "proto/base/clock.h"

namespace palimpsest {

// What to run, once. std::function would refuse the move-only handles (pins, buffers) that tasks carry.
using Task = absl::AnyInvocable<void() &&>;

class Executor {
 public:
  virtual ~Executor() = default;  // implementations shut down first
  [[nodiscard]] virtual absl::Status Run(Task task) = 0;
  // Runs `task` once `delay` has passed; a delay that is not positive means now.
  [[nodiscard]] virtual absl::Status RunAfter(Duration delay, Task task) = 0;
  // Idempotent. Never from a task of this executor.
  virtual void Shutdown() = 0;
  virtual const Clock& clock() const = 0;
};

// The waiting tasks of an executor in the order in which they are to start: plain data, no lock, no thread.
class TaskQueue {
 public:
  explicit TaskQueue(size_t pending_max) : pending_max_(pending_max) {}
  absl::Status Add(TimePoint now, Duration delay, Task task);
  std::optional<Task> PopDue(TimePoint now);
  std::optional<TimePoint> NextDue() const;
  // Refuses tasks from now on and returns those that are not due, for the caller to destroy outside its lock.
  std::vector<Task> Close(TimePoint now);
  bool closed() const { return closed_; }
  size_t size() const { return tasks_.size(); }

 private:
  const size_t pending_max_;
  bool closed_ = false;
  uint64_t next_sequence_ = 0;
  std::map<std::pair<TimePoint, uint64_t>, Task> tasks_;  // by due time, then order of calls
};

// Its threads run on all cores of the process, whoever makes it.
// Threads: any thread.
class ThreadExecutor final : public Executor {
 public:
  ThreadExecutor(int threads, size_t pending_max);
  ~ThreadExecutor() override { Shutdown(); }
  absl::Status Run(Task task) override { return RunAfter(Duration::zero(), std::move(task)); }
  absl::Status RunAfter(Duration delay, Task task) override;
  void Shutdown() override;
  const Clock& clock() const override { return RealClock(); }

 private:
  void Work();

  std::vector<std::thread> threads_;  // const after the constructor, until Shutdown joins them
  std::once_flag shutdown_;
  // Not absl::Mutex: its timed wait follows the wall clock, this one the monotonic clock (I-14).
  std::mutex mu_;
  std::condition_variable wake_;  // something was added or the queue closed
  TaskQueue queue_;               // guarded by mu_
};

// Threads: one at a time.
class ManualExecutor final : public Executor {
 public:
  explicit ManualExecutor(ManualClock& clock, size_t pending_max = 1 << 20)
      : clock_(clock), queue_(pending_max) {}
  ~ManualExecutor() override { Shutdown(); }
  absl::Status Run(Task task) override { return RunAfter(Duration::zero(), std::move(task)); }
  absl::Status RunAfter(Duration delay, Task task) override;
  void Shutdown() override;
  const Clock& clock() const override { return clock_; }

  // Runs the first task that is due at the clock's present time; false if there is none.
  bool RunOne();
  // RunOne until nothing is due; the clock stands still. Returns how many ran.
  int64_t RunUntilIdle();
  // Moves the clock on by `by`, stopping at each due time on the way to run what is due then.
  int64_t Advance(Duration by);
  size_t pending() const { return queue_.size(); }
  std::optional<TimePoint> NextDue() const { return queue_.NextDue(); }

 private:
  ManualClock& clock_;
  TaskQueue queue_;
};

}  // namespace palimpsest
