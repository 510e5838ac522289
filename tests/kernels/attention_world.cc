#include "tests/kernels/attention_world.h"

#include <utility>

namespace palimpsest {
namespace {

int64_t Draw(RngSequence& rng, int64_t bound) {
  return static_cast<int64_t>(rng.Below(static_cast<uint64_t>(bound)));
}

// Positions of a world go to about a thousand; half of them come from the table, half are computed.
constexpr int64_t kCachedPositions = 300;

}  // namespace

AttentionWorld::AttentionWorld(const HeadShape& shape, const std::vector<SequenceShape>& sequences,
                               uint64_t seed)
    : shape_(shape),
      rope_{.head_size = shape.head_size, .rope_size = shape.head_size, .theta = 1e4, .factors = {}},
      table_(shape.head_size, rope_.rope_size, rope_.theta, rope_.factors, kCachedPositions) {
  RngSequence rng{Rng(seed)};
  for (const SequenceShape& sequence : sequences) AddSequence(rng, sequence);
  q_ = RandomFloats(rng, rows_ * shape_.heads * shape_.head_size, 4.0);
}

void AttentionWorld::AddSequence(RngSequence& rng, const SequenceShape& shape) {
  const int64_t first_position = Draw(rng, 200);
  std::vector<std::span<const int32_t>>& heads = heads_.emplace_back();
  for (int64_t h = 0; h < shape_.kv_heads; ++h) {
    heads.push_back(tile_lists_.emplace_back(AddTiles(rng, shape, first_position)));
    most_tiles_ = std::max(most_tiles_, static_cast<int64_t>(heads.back().size()));
  }
  // The rows begin anywhere in the first head's tiles: some tiles are seen by all rows, some by none, some in
  // part. Every row sees at least the slot at first_position.
  const int64_t reach = 1 + static_cast<int64_t>(heads.front().size()) * kTileSlots;
  std::vector<int64_t>& positions = row_positions_.emplace_back();
  int64_t position = first_position + Draw(rng, reach);
  for (int64_t t = 0; t < shape.rows; ++t, position += rng.Below(8) == 0 ? 5 : 1)
    positions.push_back(position);
  sequences_.push_back(
      {.first_row = rows_, .rows = shape.rows, .positions = positions.data(), .tiles = heads.data()});
  rows_ += shape.rows;
}

std::vector<int32_t> AttentionWorld::AddTiles(RngSequence& rng, const SequenceShape& shape,
                                              int64_t first_position) {
  const int64_t tiles = 1 + Draw(rng, shape.tiles_max);
  std::vector<int32_t> list;
  int64_t position = first_position, base = Draw(rng, first_position + 1);
  for (int64_t i = 0; i < tiles; ++i) {
    if (rng.Below(3) == 0) base = Draw(rng, position + 1);  // others continue the run of this base
    const int64_t count = rng.Below(2) == 0 ? kTileSlots : 1 + Draw(rng, kTileSlots);
    list.push_back(AddTile(rng, count, base, &position));
  }
  for (uint64_t empty = rng.Below(3); empty > 0; --empty) list.push_back(AddTile(rng, 0, base, &position));
  for (size_t i = list.size(); shape.shuffled && i > 1; --i) std::swap(list[i - 1], list[rng.Below(i)]);
  return list;
}

// Everything that is not used holds finite numbers and positions that would be seen: only count and position
// may decide.
int32_t AttentionWorld::AddTile(RngSequence& rng, int64_t count, int64_t base, int64_t* position) {
  const int32_t tile = static_cast<int32_t>(counts_.size());
  counts_.push_back(static_cast<int32_t>(count));
  bases_.push_back(static_cast<int32_t>(base));
  for (int64_t slot = 0; slot < kTileSlots; ++slot) {
    positions_.push_back(static_cast<int32_t>(slot < count ? *position : base));
    if (slot < count) *position += rng.Below(10) == 0 ? 1 + Draw(rng, 20) : 1;
  }
  for (int64_t i = 0; i < TileElements(shape_.head_size); ++i) {
    data_.push_back(FloatToBf16(RandomFloat(rng, 1.0)));
  }
  return tile;
}

AttentionArgs AttentionWorld::Args(std::span<const AttentionSequence> sequences, Rows<Bf16> out) {
  const int64_t width = shape_.heads * shape_.head_size;
  return {.q = {.data = q_.data(), .rows = rows_, .columns = width, .stride = width},
          .out = out,
          .heads = shape_.heads,
          .kv_heads = shape_.kv_heads,
          .head_size = shape_.head_size,
          .rope = &table_,
          .pool = {.data = data_.data(),
                   .tile_elements = TileElements(shape_.head_size),
                   .counts = counts_.data(),
                   .bases = bases_.data(),
                   .positions = positions_.data()},
          .sequences = sequences};
}

Guarded<Bf16> AttentionWorld::Attend(Backend& backend) {
  Guarded<Bf16> out = FreshOut();
  backend.Attention(Args(sequences_, out.All()));
  return out;
}

void AttentionWorld::AttendPart(Backend& backend, size_t s, const std::vector<int64_t>& cuts,
                                Guarded<Bf16>* out) {
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    AttentionSequence part = sequences_[s];
    part.first_row += cuts[i];
    part.positions += cuts[i];
    part.rows = cuts[i + 1] - cuts[i];
    backend.Attention(Args(std::span(&part, 1), out->All()));
  }
}

reference::AttentionResult AttentionWorld::Reference() {
  return reference::Attention(Args(sequences_, {}), rope_);
}

// With N tiles in at most N/8 + 1 splits, S = score_magnitude and T = score_ties of the row and head:
//   a score     q and k are bf16 with exact products: D additions of 2^-24 S; q's own rounding may fall the
//   other way:
//               T. The scale, one fma (or product and sum) and the differences of running maxima, which
//               telescope to twice the range of the scores: at most 10 * 2^-24 S.
//   a weight p  e^(score): as much relative error, and 2^-22 for exp2 and for each factor of a rescaling or
//   merge, of
//               which there are at most N + splits + 1.
//   l           all positive: at most 6 N + 16 additions and products of 2^-24.
//   o           p rounds to bf16: 2^-8. 64 additions a tile and the rescalings: at most 66 (N + splits) of
//               2^-24, of sum p |v|. A p below 2^-126 may vanish.
//   out         1/l, a product: 2 * 2^-24; rounds to bf16: 2^-8 of itself.
reference::Matrix AttentionWorld::Bound(const reference::AttentionResult& exact) const {
  const double tiles = static_cast<double>(most_tiles_), splits = tiles / kSplitTiles + 1;
  const double sums = 66 * (tiles + splits) * 0x1p-24 + 18 * 0x1p-24;
  reference::Matrix bound(exact.out.rows, exact.out.columns);
  for (int64_t r = 0; r < bound.rows; ++r) {
    for (int64_t c = 0; c < bound.columns; ++c) {
      const int64_t head = c / shape_.head_size;
      const double score =
          (static_cast<double>(shape_.head_size) + 10) * 0x1p-24 * exact.score_magnitude(r, head) +
          exact.score_ties(r, head);
      const double weight = score + (tiles + splits + 2) * 0x1p-22;
      const double out = std::abs(exact.out(r, c));
      const double before = exact.magnitude(r, c) * (0x1p-8 + weight + sums) + out * (weight + sums);
      bound(r, c) = 1.01 * (before + 0x1p-8 * (out + before)) + 1e-30;
    }
  }
  return bound;
}

}  // namespace palimpsest
