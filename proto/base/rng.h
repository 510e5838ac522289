// Random numbers by counter: the n-th number of a stream is a pure function of (seed, stream, n).
//
// So a decoded token's draw does not depend on which rank, thread or batch made it, a simulation replays from
// one seed, and there is no state to lock or to save. Streams of one seed are independent; give each use a
// stream of its own. Not for keys or nonces: whoever knows the seed knows every number.
//
// Threads: Rng from any thread; RngSequence one at a time.
// Source : Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011: Philox4x32-10.
#pragma once

#include <array>
#include <cstdint>

namespace palimpsest {

// One block of the generator: 128 bits from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  // Block counter / 2 of the stream, its low half for even counters and its high half for odd ones.
  uint64_t At(uint64_t counter) const;
  // In [0, 1): a multiple of 2^-53.
  double UniformAt(uint64_t counter) const { return static_cast<double>(At(counter) >> 11) * 0x1p-53; }

 private:
  uint64_t seed_;    // the key
  uint64_t stream_;  // the upper half of the counter
};

// The same numbers one after the other.
class RngSequence {
 public:
  explicit RngSequence(Rng rng, uint64_t first = 0) : rng_(rng), counter_(first) {}
  uint64_t Next() { return rng_.At(counter_++); }
  double Uniform() { return rng_.UniformAt(counter_++); }
  // In [0, bound), each value equally likely. REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound);
  uint64_t counter() const { return counter_; }  // of the next number

 private:
  Rng rng_;
  uint64_t counter_;
};

}  // namespace palimpsest
