#include "tests/kernels/attention_world.h"

#include <cmath>
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
  std::vector<std::span<const int32_t>>&heads = heads_.emplace_back(), &shifts = shifts_.emplace_back();
  std::vector<std::span<const CodedTile>>& coded = coded_.emplace_back();
  for (int64_t h = 0; h < shape_.kv_heads; ++h) {
    const Tiles& tiles = tile_lists_.emplace_back(AddTiles(rng, shape, first_position));
    heads.push_back(tiles.ids);
    shifts.push_back(tiles.shifts);
    coded.push_back(coded_lists_.emplace_back(AddCoded(rng, shape.coded_max)));
    most_tiles_ = std::max(most_tiles_, static_cast<int64_t>(heads.back().size() + coded.back().size()));
  }
  // The rows begin anywhere in the first head's tiles: some tiles are seen by all rows, some by none, some in
  // part. Every row sees at least the slot at first_position.
  const int64_t reach = 1 + static_cast<int64_t>(heads.front().size()) * kTileSlots;
  std::vector<int64_t>& positions = row_positions_.emplace_back();
  int64_t position = first_position + Draw(rng, reach);
  for (int64_t t = 0; t < shape.rows; ++t, position += rng.Below(8) == 0 ? 5 : 1)
    positions.push_back(position);
  sequences_.push_back({.first_row = rows_,
                        .rows = shape.rows,
                        .positions = positions.data(),
                        .tiles = heads.data(),
                        .shifts = shape.shifted ? shifts.data() : nullptr,
                        .coded = shape.coded_max > 0 ? coded.data() : nullptr});
  rows_ += shape.rows;
}

AttentionWorld::Tiles AttentionWorld::AddTiles(RngSequence& rng, const SequenceShape& shape,
                                               int64_t first_position) {
  const int64_t tiles = 1 + Draw(rng, shape.tiles_max);
  Tiles list;
  int64_t position = first_position, base = Draw(rng, first_position + 1);
  for (int64_t i = 0; i < tiles; ++i) {
    if (rng.Below(3) == 0) base = Draw(rng, position + 1);  // others continue the run of this base
    const int64_t count = rng.Below(2) == 0 ? kTileSlots : 1 + Draw(rng, kTileSlots);
    list.ids.push_back(AddTile(rng, count, base, &position));
  }
  for (uint64_t empty = rng.Below(3); empty > 0; --empty)
    list.ids.push_back(AddTile(rng, 0, base, &position));
  for (size_t i = 1; shape.dropped && i < list.ids.size(); ++i) {  // rows may see the first tile alone
    const size_t tile = static_cast<size_t>(list.ids[i]);
    if (rng.Below(2) == 0) starts_[tile] = static_cast<int32_t>(Draw(rng, counts_[tile] + 1));
  }
  int64_t shift = 0;
  for (const int32_t tile : list.ids) {
    if (shape.shifted && rng.Below(3) == 0) shift = Draw(rng, 300) - 20;
    Move(tile, -shift);
    list.shifts.push_back(static_cast<int32_t>(shift));
  }
  for (size_t i = list.ids.size(); shape.shuffled && i > 1; --i) {
    const size_t other = rng.Below(i);
    std::swap(list.ids[i - 1], list.ids[other]);
    std::swap(list.shifts[i - 1], list.shifts[other]);
  }
  return list;
}

// Parts of tiles that no list names. Low and step are near enough to each other for a sum to be exact in
// float.
std::vector<CodedTile> AttentionWorld::AddCoded(RngSequence& rng, int64_t most) {
  std::vector<CodedTile> list;
  for (int64_t left = most == 0 ? 0 : Draw(rng, most + 1), part = 0; left > 0; --left, ++part) {
    int64_t position = 0;
    if (part % kCodedPerTile == 0) AddTile(rng, 0, 0, &position);
    const CodedTile tile{.tile = static_cast<int32_t>(counts_.size()) - 1,
                         .part = static_cast<int32_t>(part % kCodedPerTile)};
    CodedRun* const runs = Pool().coded(tile);
    for (int64_t r = 0; r < TileElements(shape_.head_size) / kCodedRunElements; ++r) {
      for (const int side : {0, 1}) {
        runs[r].low[side] = FloatToBf16(-0.1f + RandomFloat(rng, 0.9));
        runs[r].step[side] = FloatToBf16(rng.Below(8) == 0 ? 0 : 0.25f + RandomFloat(rng, 0.24));
      }
      for (uint8_t& code : runs[r].codes) code = static_cast<uint8_t>(rng.Below(256));
    }
    list.push_back(tile);
  }
  return list;
}

void AttentionWorld::Decode() {
  RngSequence rng{Rng(1)};
  for (size_t s = 0; s < sequences_.size(); ++s) {
    for (size_t h = 0; h < coded_[s].size(); ++h) {
      Tiles& tiles = tile_lists_[s * coded_[s].size() + h];
      std::vector<int32_t> decoded;
      for (const CodedTile coded : coded_[s][h]) {
        int64_t position = 0;
        decoded.push_back(AddTile(rng, kTileSlots, 0, &position));
        std::fill_n(positions_.end() - kTileSlots, kTileSlots, 0);  // every row sees it
        for (int64_t i = 0; i < TileElements(shape_.head_size); ++i) {
          Pool().k(decoded.back())[i] =
              FloatToBf16(static_cast<float>(reference::CodedElement(Pool().coded(coded), i)));
        }
      }
      tiles.ids.insert(tiles.ids.begin(), decoded.begin(), decoded.end());
      heads_[s][h] = tiles.ids;
    }
    sequences_[s].coded = nullptr;
  }
}

// Everything that is not used holds finite numbers and positions that would be seen: only count and position
// may decide.
int32_t AttentionWorld::AddTile(RngSequence& rng, int64_t count, int64_t base, int64_t* position) {
  const int32_t tile = static_cast<int32_t>(counts_.size());
  counts_.push_back(static_cast<int32_t>(count));
  starts_.push_back(0);
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

void AttentionWorld::Move(int32_t tile, int64_t by) {
  bases_[static_cast<size_t>(tile)] += static_cast<int32_t>(by);
  for (int64_t slot = 0; slot < kTileSlots; ++slot) {
    positions_[static_cast<size_t>(tile * kTileSlots + slot)] += static_cast<int32_t>(by);
  }
}

void AttentionWorld::Replace() {
  for (const Tiles& tiles : tile_lists_) {
    for (size_t i = 0; i < tiles.ids.size(); ++i) Move(tiles.ids[i], tiles.shifts[i]);
  }
  for (AttentionSequence& sequence : sequences_) sequence.shifts = nullptr;
}

ScoreKeysArgs AttentionWorld::ScoreArgs(size_t s, RowReduce reduce, std::vector<ScoreHead>* heads) {
  const AttentionSequence& sequence = sequences_[s];
  const int64_t group = shape_.heads / shape_.kv_heads, width = shape_.heads * shape_.head_size;
  for (int64_t h = 0; h < shape_.kv_heads; ++h) {
    heads->push_back({.q = {.data = q_.data() + sequence.first_row * width + h * group * shape_.head_size,
                            .rows = sequence.rows,
                            .columns = group * shape_.head_size,
                            .stride = width},
                      .tiles = sequence.tiles[h],
                      .out = nullptr});
  }
  return {.positions = std::span(sequence.positions, static_cast<size_t>(sequence.rows)),
          .group = group,
          .head_size = shape_.head_size,
          .reduce = reduce,
          .rope = &table_,
          .pool = Pool(),
          .heads = *heads};
}

std::vector<Guarded<float>> AttentionWorld::Score(Backend& backend, size_t s, RowReduce reduce) {
  std::vector<ScoreHead> heads;
  const ScoreKeysArgs args = ScoreArgs(s, reduce, &heads);
  std::vector<Guarded<float>> out;
  for (ScoreHead& head : heads) {
    out.emplace_back(args.group, static_cast<int64_t>(head.tiles.size()) * kTileSlots, 0);
    head.out = out.back().All().data;
  }
  backend.ScoreKeys(args);
  return out;
}

std::vector<reference::ScoreResult> AttentionWorld::ReferenceScores(size_t s, RowReduce reduce) {
  std::vector<ScoreHead> heads;
  const ScoreKeysArgs args = ScoreArgs(s, reduce, &heads);
  std::vector<reference::ScoreResult> results;
  for (const ScoreHead& head : heads) results.push_back(reference::ScoreKeys(args, head, rope_));
  return results;
}

AttentionArgs AttentionWorld::Args(std::span<const AttentionSequence> sequences, Rows<Bf16> out) {
  const int64_t width = shape_.heads * shape_.head_size;
  return {.q = {.data = q_.data(), .rows = rows_, .columns = width, .stride = width},
          .out = out,
          .heads = shape_.heads,
          .kv_heads = shape_.kv_heads,
          .head_size = shape_.head_size,
          .rope = &table_,
          .pool = Pool(),
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

void AttentionWorld::AttendCarried(Backend& backend, size_t s, int64_t tiles, Guarded<Bf16>* out) {
  const AttentionSequence& all = sequences_[s];
  const size_t heads = static_cast<size_t>(shape_.kv_heads);
  int64_t most = 0;
  for (size_t h = 0; h < heads; ++h) most = std::max(most, std::ssize(all.tiles[h]));
  // Garbage before, and a guard behind.
  std::vector<float> state(
      static_cast<size_t>(backend.CarriedFloats(all.rows, shape_.heads, shape_.kv_heads, shape_.head_size)) +
          1,
      NAN);
  state.back() = 7;
  for (int64_t first = 0; first < most; first += tiles) {
    std::vector<std::span<const int32_t>> ids, shifts;
    for (size_t h = 0; h < heads; ++h) {
      const size_t from = static_cast<size_t>(std::min(first, std::ssize(all.tiles[h])));
      const size_t count = std::min(static_cast<size_t>(tiles), all.tiles[h].size() - from);
      ids.push_back(all.tiles[h].subspan(from, count));
      if (all.shifts != nullptr) shifts.push_back(all.shifts[h].subspan(from, count));
    }
    const CarriedAttention carried{.state = state.data(), .first = first == 0, .last = first + tiles >= most};
    AttentionSequence part = all;
    part.tiles = ids.data();
    part.shifts = all.shifts == nullptr ? nullptr : shifts.data();
    part.carried = &carried;
    const Guarded<Bf16> before = *out;
    backend.Attention(Args(std::span(&part, 1), out->All()));
    if (!carried.last) {
      EXPECT_TRUE(out->SameBits(before)) << "written before all tiles were met";
    }
  }
  EXPECT_EQ(state.back(), 7);
}

AttentionWorld::Columns::Columns(int64_t heads, int64_t columns)
    : sums(heads, columns, 3),
      open(heads, columns, 3),
      squares(heads, columns, 3),
      open_squares(heads, columns, 3) {
  for (Guarded<float>* const x : {&sums, &open, &squares, &open_squares}) {
    for (int64_t h = 0; h < heads; ++h) std::fill_n(&(*x)(h, 0), columns, 0.0f);
  }
}

bool AttentionWorld::Columns::SameBits(const Columns& other) const {
  return sums.SameBits(other.sums) && open.SameBits(other.open) && squares.SameBits(other.squares) &&
         open_squares.SameBits(other.open_squares);
}

bool AttentionWorld::Columns::GuardsIntact() const {
  return sums.GuardsIntact() && open.GuardsIntact() && squares.GuardsIntact() && open_squares.GuardsIntact();
}

reference::Matrix AttentionWorld::Columns::Together(const Guarded<float>& a, const Guarded<float>& b) {
  reference::Matrix both = a.Values();
  const reference::Matrix more = b.Values();
  for (size_t i = 0; i < both.data.size(); ++i) both.data[i] += more.data[i];
  return both;
}

void AttentionWorld::AddSums(Backend& backend, size_t s, const std::vector<int64_t>& cuts, bool squares,
                             Columns* columns, Guarded<Bf16>* out) {
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const ColumnSums sums{.sums = &columns->sums(0, 0),
                          .open = &columns->open(0, 0),
                          .squares = squares ? &columns->squares(0, 0) : nullptr,
                          .open_squares = squares ? &columns->open_squares(0, 0) : nullptr,
                          .stride = columns->sums.All().stride,
                          .rows = columns->rows};
    AttentionSequence part = sequences_[s];
    part.first_row += cuts[i];
    part.positions += cuts[i];
    part.rows = cuts[i + 1] - cuts[i];
    part.sums = &sums;
    backend.Attention(Args(std::span(&part, 1), out->All()));
    columns->rows += part.rows;
  }
}

reference::ScoreResult AttentionWorld::ReferenceSums(size_t s, int64_t stride, bool squared) {
  std::vector<ScoreHead> heads;
  const ScoreKeysArgs args = ScoreArgs(s, RowReduce::kSum, &heads);
  const int64_t group = shape_.heads / shape_.kv_heads;
  reference::ScoreResult all{.out = reference::Matrix(shape_.heads, stride)};
  for (size_t h = 0; h < heads.size(); ++h) {
    for (int64_t row = 0; row < static_cast<int64_t>(args.positions.size()); ++row) {  // each by itself
      ScoreKeysArgs one = args;
      one.positions = args.positions.subspan(static_cast<size_t>(row), 1);
      ScoreHead head = heads[h];
      head.q = {heads[h].q.row(row), 1, heads[h].q.columns, heads[h].q.stride};
      const reference::ScoreResult weights = reference::ScoreKeys(one, head, rope_);
      for (int64_t g = 0; g < group; ++g) {
        for (int64_t i = 0; i < weights.out.columns; ++i) {
          const double w = weights.out(g, i);
          all.out(static_cast<int64_t>(h) * group + g, i) += squared ? w * w : w;
        }
      }
      all.score_magnitude = std::max(all.score_magnitude, weights.score_magnitude);
      all.score_ties = std::max(all.score_ties, weights.score_ties);
    }
  }
  return all;
}

// As of scores below. Attention's splits add as many factors again as there are splits, and a factor from the
// maximum that a weight is relative to; where products are of bf16 a weight rounds to it; a square errs
// twice.
reference::Matrix AttentionWorld::SumsBound(const reference::ScoreResult& exact, size_t s,
                                            bool squared) const {
  const double splits = static_cast<double>(most_tiles_) / kSplitTiles + 1;
  reference::Matrix bound = Bound(exact, s);
  for (size_t i = 0; i < bound.data.size(); ++i) {
    const double more = exact.out.data[i] * (0x1p-8 + (2 * splits + 2) * 0x1p-22);
    bound.data[i] = 1.01 * (bound.data[i] + more) * (squared ? 2 : 1);
  }
  return bound;
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

// As the weights above, without splits: a score errs by at most e = (D + 10) 2^-24 S + T, a weight and the
// sum of a row's weights each by e and by N + 2 times 2^-22, the sum also by 6 N + 16 times 2^-24; 1/sum and
// the product round. The sum over R rows rounds R times. What is below 2^-126 may vanish, at each row.
reference::Matrix AttentionWorld::Bound(const reference::ScoreResult& exact, size_t s) const {
  const double tiles = static_cast<double>(most_tiles_), rows = static_cast<double>(sequences_[s].rows);
  const double score =
      (static_cast<double>(shape_.head_size) + 10) * 0x1p-24 * exact.score_magnitude + exact.score_ties;
  const double weight = 2 * std::expm1(score) + 2 * (tiles + 2) * 0x1p-22 + (6 * tiles + 20) * 0x1p-24;
  reference::Matrix bound = exact.out;
  for (double& b : bound.data) b = 1.01 * b * (weight + rows * 0x1p-24) + rows * 0x1p-125;
  return bound;
}

}  // namespace palimpsest
