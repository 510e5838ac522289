// What waits to be sent to one client: handlers put in and wait for room, the I/O thread takes out. Bounded,
// so that a slow client holds `bytes_max` and no more.
//
// Threads: Append from one handler at a time; the rest from the I/O thread; Close from any.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace palimpsest::http {

class Outbox {
 public:
  // `ready` is called, outside of the lock and from any thread, when there is something to take.
  Outbox(int64_t bytes_max, std::function<void()> ready) : bytes_max_(bytes_max), ready_(std::move(ready)) {}

  // Waits for room, piece by piece. False once closed.
  bool Append(std::string_view bytes);
  // Without waiting: answers of the server itself, which are short.
  void AppendNow(std::string_view bytes);

  // Everything that waits; "" if nothing does.
  std::string Take();
  void Sent(size_t bytes);  // so many of what was taken are with the kernel
  int64_t unsent() const;   // waiting or taken
  int64_t sent() const;     // so far
  void Close();             // frees what waits; Append returns false
  bool closed() const;

 private:
  const int64_t bytes_max_;
  const std::function<void()> ready_;
  mutable std::mutex mu_;
  std::condition_variable room_;
  std::string waiting_;  // guarded by mu_, as all below
  int64_t unsent_ = 0, sent_ = 0;
  bool closed_ = false;
};

}  // namespace palimpsest::http
