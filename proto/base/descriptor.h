// An open file that closes itself; of open's own result, so it may be none (negative).
//
// Threads: one at a time.
#pragma once

#include <unistd.h>

namespace palimpsest {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace palimpsest
