#include "proto/base/rng.h"

#include "proto/base/status.h"

namespace palimpsest {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9,
                     kWeyl1 = 0xBB67AE85;  // golden ratio and sqrt(3) - 1, as fractions of 2^32
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0], product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

uint64_t Rng::At(uint64_t counter) const {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const uint64_t block = counter / 2;
  const std::array<uint32_t, 4> words =
      Philox4x32({low(block), high(block), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
  const size_t half = counter % 2 * 2;
  return words[half] | static_cast<uint64_t>(words[half + 1]) << 32;
}

uint64_t RngSequence::Below(uint64_t bound) {
  PALIMPSEST_CHECK(bound > 0, "a number below 0 was asked for");
  // Numbers under 2^64 mod bound are drawn again: what is left is a whole number of copies of [0, bound).
  const uint64_t threshold = (0 - bound) % bound;
  while (true) {
    const uint64_t number = Next();
    if (number >= threshold) return number % bound;
  }
}

}  // namespace palimpsest
