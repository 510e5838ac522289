// From scores of tokens to slices: which runs of tokens of one layer and KV head are worth bringing back.
//
// A slice is `slice` consecutive tokens of one block; its number is block * (64 / slice) + its place in it.
// It ranks by its best token that is not resident; ties go to the earlier slice.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

namespace palimpsest {

class SliceRanking {
 public:
  // `scores`: (blocks, 64), minus infinity where there is no token; changed: what is resident is struck out.
  // `blocks`: which they are, ascending; empty: all from 0 on.
  // `residents`: places (block * 64 + slot) of tokens that are there already. Writes the numbers of the at
  // most `count` best slices, ascending. `slice`: a multiple of 8. A slice without a finite score is never
  // picked. In three steps, of which the second runs in parts, each once, in any order and at the same time.
  void Begin(std::span<float> scores, std::span<const int32_t> blocks, std::span<const int32_t> residents,
             int64_t slice);
  static constexpr int64_t kPartSlots = 4096;
  int64_t parts() const { return (std::ssize(scores_) + kPartSlots - 1) / kPartSlots; }
  void LookThrough(int64_t part);
  void End(int64_t count, std::vector<int32_t>* picks);
  // After a choice from all blocks: the at most `count` whose best slices are best, ascending.
  void BestBlocks(int64_t slice, int64_t count, std::vector<int32_t>* blocks);

 private:
  void SumUpRuns(size_t run);
  float LeastOfBest(size_t count);
  static void StrikeOut(std::span<float> scores, std::span<const int32_t> blocks,
                        std::span<const int32_t> residents);

  std::span<float> scores_;
  std::span<const int32_t> blocks_;
  size_t width_ = 0;            // of a slice
  std::vector<float> best_;     // of each slice
  std::vector<float> runs_;     // the best of each run of slices
  std::vector<int32_t> order_;  // slices with a score
};

}  // namespace palimpsest
