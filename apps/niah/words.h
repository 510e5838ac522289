// Keys and values of needles.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/rng.h"

namespace palimpsest {

// "adjective-noun": 4,096 of them.
std::string RandomKey(RngSequence& random);
// The first digit is not 0: all answers are equally long.
std::string RandomDigits(RngSequence& random, int64_t digits);
// Seven digits.
std::string RandomNumber(RngSequence& random);
// Of version 4, in lower case.
std::string RandomUuid(RngSequence& random);
std::string RandomLetters(RngSequence& random, int64_t letters, char first);  // `first`: 'a' or 'A'

// Words that all differ, none a part of another: the keys, and with one more adjective in front beyond those.
// `number` < 266,240.
std::string WordOf(uint64_t number);

// Each order is equally likely.
template <typename T>
void Shuffle(std::vector<T>& values, RngSequence& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.Below(i)]);
}
// `count` of the numbers below `bound`, all different, in random order. REQUIRES: count <= bound.
std::vector<uint64_t> RandomNumbersBelow(uint64_t bound, uint64_t count, RngSequence& random);

}  // namespace palimpsest
