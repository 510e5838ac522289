// The one pool of pinned threads that all math runs on.
//
// A parallel region costs 2-6 us while the workers spin and 45-60 us once they sleep, so they spin for a
// short while after each region. Tasks are handed out one by one: a slow core takes fewer. Which thread runs
// a task never changes its result.
//
// Threads: ParallelFor from one thread at a time (the engine's); the caller works too, as thread 0.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace palimpsest {

class ThreadPool {
 public:
  struct Options {
    int threads = 0;        // 0: one per core this process may use
    bool pin = true;        // bind worker i to the i-th allowed core (the caller is bound by PinCaller)
    int64_t spin_us = 200;  // how long an idle worker spins before it sleeps
  };
  explicit ThreadPool(const Options& options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Binds the calling thread to the pool's first core, if the pool pins at all.
  void PinCaller() const;

  // Calls f(task, thread) for each task in [0, tasks); returns when all are done.
  template <typename F>
  void ParallelFor(int64_t tasks, F&& f) {
    if (tasks <= 1 || workers_.empty()) {
      for (int64_t t = 0; t < tasks; ++t) f(t, 0);
      return;
    }
    using Function = std::remove_reference_t<F>;
    Run(
        tasks,
        [](void* context, int64_t task, int thread) { (*static_cast<Function*>(context))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Call = void (*)(void*, int64_t, int);
  void Run(int64_t tasks, Call call, void* context);
  void Work(int thread);
  void TakeTasks(int thread);

  bool pin_ = false;
  int64_t spin_us_ = 0;
  // Written by Run before epoch_ is raised, read by workers after they saw it.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int32_t> busy_{0};  // workers still in this region
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace palimpsest
