// What a token's KV costs when it is brought from a tier, measured: the other side is what computing it
// costs.
//
// A price is of the last few values that were brought, without the slowest of them, so that one hiccup says
// nothing. A tier that is slow is left alone only as long as its price is fresh; then it is tried again: a
// bad hour of a disk is not remembered for good. Threads: one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "proto/base/clock.h"
#include "storage/mover.h"

namespace palimpsest {

class LoadPrices {
 public:
  // A value of `tokens` of that level took `seconds`, waits included.
  void Observe(Level level, int64_t tokens, double seconds, TimePoint now);
  // Seconds of a token; 0 where too little was measured lately.
  double Of(Level level, TimePoint now) const;

 private:
  static constexpr size_t kKept = 16, kEnough = 8;
  struct One {
    int64_t tokens = 0;
    double seconds = 0;
  };
  struct Price {
    std::array<One, kKept> last;  // a ring
    size_t count = 0;             // that were put in it
    TimePoint measured;
  };
  static bool IsFresh(const Price& price, TimePoint now);
  std::array<Price, kLevels> prices_;
};

}  // namespace palimpsest
