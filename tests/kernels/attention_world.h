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
  bool dropped = false;   // the first slots of some tiles were dropped
  bool shifted = false;   // tiles stand elsewhere than they say, some at negative bases
  int64_t coded_max = 0;  // tiles in 2 bits per KV head; each head draws its own number
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
  // Sequence s alone, its rows in one call for each so many tiles of every head.
  void AttendCarried(Backend& backend, size_t s, int64_t tiles, Guarded<Bf16>* out);
  // How much the rows of sequence s attend to its keys: by KV head, (group, tiles * 64).
  std::vector<Guarded<float>> Score(Backend& backend, size_t s, RowReduce reduce);
  std::vector<reference::ScoreResult> ReferenceScores(size_t s, RowReduce reduce);
  reference::Matrix Bound(const reference::ScoreResult& exact, size_t s) const;
  // What attention adds up, (heads, most_tiles * 64), each row with a guard.
  struct Columns {
    Columns(int64_t heads, int64_t columns);
    // The whole and the open blocks together.
    reference::Matrix Sums() const { return Together(sums, open); }
    reference::Matrix Squares() const { return Together(squares, open_squares); }
    bool SameBits(const Columns& other) const;
    bool GuardsIntact() const;
    static reference::Matrix Together(const Guarded<float>& a, const Guarded<float>& b);
    Guarded<float> sums, open, squares, open_squares;
    int64_t rows = 0;
  };
  Columns NoColumns() const { return {shape_.heads, most_tiles_ * kTileSlots}; }
  // How much all rows of sequence s attend to its keys, their rows cut into calls as given; what they attend
  // to goes to `out`.
  void AddSums(Backend& backend, size_t s, const std::vector<int64_t>& cuts, bool squares, Columns* columns,
               Guarded<Bf16>* out);
  // Of the same, or of squared weights: (heads, stride), with the bound of each element.
  reference::ScoreResult ReferenceSums(size_t s, int64_t stride, bool squared);
  reference::Matrix SumsBound(const reference::ScoreResult& exact, size_t s, bool squared) const;
  // Moves each tile to where it is shifted to, and shifts none.
  void Replace();
  // Puts in the place of each tile in 2 bits the one that it comes back as.
  void Decode();

  // The result in float64 with the bound of each element.
  reference::AttentionResult Reference();
  reference::Matrix Bound(const reference::AttentionResult& exact) const;

  Guarded<Bf16> FreshOut() const { return Guarded<Bf16>(rows_, shape_.heads * shape_.head_size, 5); }
  const std::vector<AttentionSequence>& sequences() const { return sequences_; }
  int64_t rows() const { return rows_; }

 private:
  struct Tiles {
    std::vector<int32_t> ids, shifts;
  };
  void AddSequence(RngSequence& rng, const SequenceShape& sequence);
  Tiles AddTiles(RngSequence& rng, const SequenceShape& sequence, int64_t first_position);
  std::vector<CodedTile> AddCoded(RngSequence& rng, int64_t most);
  void Move(int32_t tile, int64_t by);
  int32_t AddTile(RngSequence& rng, int64_t count, int64_t base, int64_t* position);
  AttentionArgs Args(std::span<const AttentionSequence> sequences, Rows<Bf16> out);
  ScoreKeysArgs ScoreArgs(size_t s, RowReduce reduce, std::vector<ScoreHead>* heads);
  TilePool Pool() {
    return {.data = data_.data(),
            .tile_elements = TileElements(shape_.head_size),
            .counts = counts_.data(),
            .starts = starts_.data(),
            .bases = bases_.data(),
            .positions = positions_.data()};
  }

  HeadShape shape_;
  reference::Rope rope_;
  RopeTable table_;
  std::vector<Bf16> data_;  // (tiles, tile_elements)
  std::vector<int32_t> counts_, starts_, bases_, positions_;
  int64_t rows_ = 0, most_tiles_ = 0;
  std::deque<Tiles> tile_lists_;                                      // stable addresses
  std::deque<std::vector<std::span<const int32_t>>> heads_, shifts_;  // by sequence
  std::deque<std::vector<CodedTile>> coded_lists_;                    // stable addresses
  std::deque<std::vector<std::span<const CodedTile>>> coded_;         // by sequence
  std::deque<std::vector<int64_t>> row_positions_;                    // by sequence
  std::vector<AttentionSequence> sequences_;
  std::vector<float> q_;  // (rows, heads * head_size)
};

}  // namespace palimpsest
