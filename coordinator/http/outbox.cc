#include "coordinator/http/outbox.h"

#include <algorithm>
#include <utility>

namespace palimpsest::http {

bool Outbox::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    {
      std::unique_lock<std::mutex> lock(mu_);
      // Bounded by the connection, which closes what makes no progress for limits.unsent_seconds.
      room_.wait(lock, [&] { return closed_ || unsent_ < bytes_max_; });
      if (closed_) return false;
      const size_t piece = std::min(bytes.size(), static_cast<size_t>(bytes_max_ - unsent_));
      waiting_.append(bytes.substr(0, piece));
      unsent_ += static_cast<int64_t>(piece);
      bytes.remove_prefix(piece);
    }
    ready_();
  }
  return !closed();
}

void Outbox::AppendNow(std::string_view bytes) {
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (closed_) return;
    waiting_.append(bytes);
    unsent_ += static_cast<int64_t>(bytes.size());
  }
  ready_();
}

std::string Outbox::Take() {
  std::lock_guard<std::mutex> lock(mu_);
  return std::exchange(waiting_, {});
}

void Outbox::Sent(size_t bytes) {
  std::lock_guard<std::mutex> lock(mu_);
  unsent_ -= static_cast<int64_t>(bytes);
  sent_ += static_cast<int64_t>(bytes);
  room_.notify_all();
}

int64_t Outbox::unsent() const {
  std::lock_guard<std::mutex> lock(mu_);
  return closed_ ? 0 : unsent_;
}

int64_t Outbox::sent() const {
  std::lock_guard<std::mutex> lock(mu_);
  return sent_;
}

void Outbox::Close() {
  std::lock_guard<std::mutex> lock(mu_);
  closed_ = true;
  waiting_ = {};
  room_.notify_all();
}

bool Outbox::closed() const {
  std::lock_guard<std::mutex> lock(mu_);
  return closed_;
}

}  // namespace palimpsest::http
