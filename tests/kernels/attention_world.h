// Random caches to attend over: sequences with ragged tiles, gaps, several bases, garbage in unused slots.
#pragma once

#include <deque>
#include <vector>

#include "tests/kernels/backend_fixture.h"

namespace palimpsest {

struct HeadShape {
  int64_t heads, kv_heads, head_size;
};
struct SequenceShape {
  int64_t rows;
  int64_t tiles_max;      // per KV head; each head draws its own number
  bool shuffled = false;  // tiles in any order instead of by position, so some splits begin invisible
};

class AttentionWorld {
 public:
  AttentionWorld(const HeadShape& shape, const std::vector<SequenceShape>& sequences, uint64_t seed);
  // The views below point into this.
  AttentionWorld(const AttentionWorld&) = delete;
  AttentionWorld& operator=(const AttentionWorld&) = delete;

  // All sequences in one call. The result holds a guard after each row.
  Guarded<Bf16> Attend(Backend& backend);
  // Sequence s alone, its rows cut into calls as given: cuts start at 0 and end at its rows.
  void AttendPart(Backend& backend, size_t s, const std::vector<int64_t>& cuts, Guarded<Bf16>* out);
  // The result in float64 with the bound of each element.
  reference::AttentionResult Reference();
  reference::Matrix Bound(const reference::AttentionResult& exact) const;

  Guarded<Bf16> FreshOut() const { return Guarded<Bf16>(rows_, shape_.heads * shape_.head_size, 5); }
  const std::vector<AttentionSequence>& sequences() const { return sequences_; }
  int64_t rows() const { return rows_; }

 private:
  void AddSequence(RngSequence& rng, const SequenceShape& sequence);
  std::vector<int32_t> AddTiles(RngSequence& rng, const SequenceShape& sequence, int64_t first_position);
  int32_t AddTile(RngSequence& rng, int64_t count, int64_t base, int64_t* position);
  AttentionArgs Args(std::span<const AttentionSequence> sequences, Rows<Bf16> out);

  HeadShape shape_;
  reference::Rope rope_;
  RopeTable table_;
  std::vector<Bf16> data_;  // (tiles, tile_elements)
  std::vector<int32_t> counts_, bases_, positions_;
  int64_t rows_ = 0, most_tiles_ = 0;
  std::deque<std::vector<int32_t>> tile_lists_;              // stable addresses
  std::deque<std::vector<std::span<const int32_t>>> heads_;  // by sequence
  std::deque<std::vector<int64_t>> row_positions_;           // by sequence
  std::vector<AttentionSequence> sequences_;
  std::vector<float> q_;  // (rows, heads * head_size)
};

}  // namespace palimpsest
