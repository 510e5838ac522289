#include "coordinator/http/handler_pool.h"

#include <system_error>
#include <utility>

namespace palimpsest::http {

bool HandlerPool::TryRun(std::function<void()> work) {
  std::lock_guard<std::mutex> lock(mu_);
  if (stopped_ || in_work_ >= threads_max_) return false;
  if (in_work_ == static_cast<int64_t>(threads_.size())) {
    try {
      threads_.emplace_back([this] { Loop(); });
    } catch (const std::system_error&) {
      return false;  // the machine gives no more threads: the same as a full pool
    }
  }
  ++in_work_;
  next_.push_back(std::move(work));
  changed_.notify_one();
  return true;
}

int64_t HandlerPool::in_work() const {
  std::lock_guard<std::mutex> lock(mu_);
  return in_work_;
}

void HandlerPool::Stop() {
  std::vector<std::thread> threads;
  {
    std::lock_guard<std::mutex> lock(mu_);
    stopped_ = true;
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void HandlerPool::Loop() {
  std::unique_lock<std::mutex> lock(mu_);
  for (;;) {
    changed_.wait(lock, [&] { return stopped_ || !next_.empty(); });
    if (next_.empty()) return;
    {
      const std::function<void()> work = std::move(next_.back());
      next_.pop_back();
      lock.unlock();
      work();
    }
    lock.lock();
    --in_work_;
  }
}

}  // namespace palimpsest::http
