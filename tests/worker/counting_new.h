// Counts of global operator new and delete, for a program that links counting_new.cc: no other may.
#pragma once

#include <atomic>
#include <cstdint>

namespace palimpsest::testing {

extern std::atomic<int64_t> allocations, frees;

}  // namespace palimpsest::testing
