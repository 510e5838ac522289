// Keys and values of needles.
#pragma once

#include <string>

#include "proto/base/rng.h"

namespace palimpsest {

// "adjective-noun": 4,096 of them.
std::string RandomKey(RngSequence& random);
// Seven digits, the first not 0: all answers are equally long.
std::string RandomNumber(RngSequence& random);

}  // namespace palimpsest
