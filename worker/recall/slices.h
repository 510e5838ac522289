// Which slices of one layer and KV head are worth bringing back, by the best score in each.
//
// A slice is `slice` consecutive tokens of one block; its number is block * (64 / slice) + its place in it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace palimpsest {

// Space of one choice, kept from one to the next.
struct SliceOrder {
  std::vector<float> runs;      // the best of each run of slices
  std::vector<int32_t> slices;  // that may be among the best
};

// Writes the numbers of the at most `count` best of `best`, one for each slice, ascending; ties go to the
// earlier slice. One of minus infinity is never picked; none is not a number.
void PickSlices(std::span<const float> best, int64_t count, SliceOrder* order, std::vector<int32_t>* picks);

}  // namespace palimpsest
