// Threads for handlers, which block: made when needed, kept, never more than `threads_max`. There is no
// queue: what finds no thread is refused at once, so that a refusal comes quickly however much is in work.
//
// Threads: any thread. The destructor waits for what runs: tell it to end first.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace palimpsest::http {

class HandlerPool {
 public:
  explicit HandlerPool(int64_t threads_max) : threads_max_(threads_max) {}
  ~HandlerPool() { Stop(); }
  HandlerPool(const HandlerPool&) = delete;
  HandlerPool& operator=(const HandlerPool&) = delete;

  // False: all threads work, or the pool was stopped.
  bool TryRun(std::function<void()> work);
  int64_t threads_max() const { return threads_max_; }
  int64_t in_work() const;
  void Stop();  // refuses, then waits

 private:
  void Loop();

  const int64_t threads_max_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;         // guarded by mu_, as all below
  std::vector<std::function<void()>> next_;  // at most one for each idle thread
  int64_t in_work_ = 0;                      // taken or about to be
  bool stopped_ = false;
};

}  // namespace palimpsest::http
