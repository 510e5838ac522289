#include "kernels/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "proto/base/cores.h"

namespace palimpsest {
namespace {

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Spins until done() holds or `us` have passed; true if it held. The clock is read rarely: it costs 20 ns.
template <typename Done>
bool SpinUntil(int64_t us, Done done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(const Options& options) : pin_(options.pin), spin_us_(options.spin_us) {
  const int threads = options.threads > 0 ? options.threads : static_cast<int>(ProcessCores().size());
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::PinCaller() const {
  if (pin_) RunOnCore(ProcessCores()[0]);
}

void ThreadPool::Run(int64_t tasks, Call call, void* context) {
  call_ = call;
  context_ = context;
  tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  TakeTasks(0);
  const auto done = [this] { return busy_.load(std::memory_order_acquire) == 0; };
  while (!SpinUntil(spin_us_, done)) std::this_thread::yield();
}

void ThreadPool::TakeTasks(int thread) {
  for (int64_t task = next_.fetch_add(1, std::memory_order_relaxed); task < tasks_;
       task = next_.fetch_add(1, std::memory_order_relaxed)) {
    call_(context_, task, thread);
  }
}

void ThreadPool::Work(int thread) {
  const std::vector<int>& cores = ProcessCores();
  if (pin_) RunOnCore(cores[static_cast<size_t>(thread) % cores.size()]);
  uint32_t seen = 0;
  while (true) {
    const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!SpinUntil(spin_us_, changed)) epoch_.wait(seen, std::memory_order_acquire);
    const uint32_t now = epoch_.load(std::memory_order_acquire);
    if (now == seen) continue;
    seen = now;
    if (stop_.load()) return;
    TakeTasks(thread);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace palimpsest
