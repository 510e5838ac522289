#include "worker/sequence.h"

#include <algorithm>
#include <numeric>

#include "proto/base/status.h"

namespace palimpsest {

Sequence::Sequence(TieredStore* store, int64_t groups_max, int64_t residual)
    : store_(store),
      residual_(residual),
      tiles_(static_cast<size_t>(store->shape().tiles())),
      shifts_(static_cast<size_t>(store->shape().tiles())),
      coded_(static_cast<size_t>(store->shape().tiles())) {
  PALIMPSEST_CHECK(residual >= 0 && residual % kTileSlots == 0, "a residual of {} tokens", residual);
  pins_.reserve(static_cast<size_t>(groups_max));
  open_.reserve(static_cast<size_t>(groups_max));
  for (auto& list : tiles_) list.reserve(static_cast<size_t>(groups_max));
  for (auto& list : shifts_) list.reserve(static_cast<size_t>(groups_max));
}

Sequence::~Sequence() {
  for (BlockGroup& group : open_) store_->Discard(std::move(group));
  while (!pins_.empty()) pins_.pop_back();  // of a document the tail is the first to go
  store_->arena().Free(packed_);
  // Whoever has them next multiplies what is in slots that it does not use by zero: codes may read as
  // anything.
  const TilePool pool = store_->arena().pool();
  for (const int32_t tile : coded_tiles_) std::fill_n(pool.k(tile), pool.tile_elements, Bf16{0});
  store_->arena().Free(coded_tiles_);
}

void Sequence::AddTiles(std::span<const int32_t> tiles, int64_t shift) {
  for (size_t i = 0; i < tiles_.size(); ++i) {
    tiles_[i].push_back(tiles[i]);
    shifts_[i].push_back(static_cast<int32_t>(shift));
  }
  shifted_ = shifted_ || shift != 0;
}

void Sequence::AddPinned(TieredStore::Pin pin, int64_t shift) {
  PALIMPSEST_CHECK(pin.group().first_position + shift == next_position_ && open_.empty(),
                   "group at {} moved by {} after {} positions", pin.group().first_position, shift,
                   next_position_);
  AddTiles(pin.group().tiles, shift);
  next_position_ += pin.group().filled;
  pins_.push_back(std::move(pin));
}

absl::Status Sequence::OpenGroup(int64_t rows, bool keep_rest) {
  // Keys turn by their place in the session, so every tile's base is 0.
  PALIMPSEST_ASSIGN_OR_RETURN(BlockGroup group, store_->Open(next_position_, /*base=*/0, rows, keep_rest));
  AddTiles(group.tiles, 0);
  open_.push_back(std::move(group));
  return absl::OkStatus();
}

void Sequence::Extend(int64_t n) {
  PALIMPSEST_CHECK(n <= room(), "{} slots of {}", n, room());
  BlockGroup& group = open_.back();
  group.filled += n;
  next_position_ += n;
  int32_t* counts = store_->arena().pool().counts;
  for (const int32_t tile : group.tiles) counts[tile] = static_cast<int32_t>(group.filled);
}

bool Sequence::SealOldest(const BlockId& id) {
  if (open_.empty() || open_.front().envelope.empty() || open_.front().filled < open_.front().rows)
    return false;
  const size_t after = open_.size();  // groups are the last of each head's tiles
  pins_.push_back(store_->Seal(id, std::move(open_.front())));
  open_.erase(open_.begin());
  // Another session may have sealed the same block meanwhile: its tiles replace ours, which are gone.
  const std::vector<int32_t>& sealed = pins_.back().group().tiles;
  for (size_t i = 0; i < tiles_.size(); ++i) tiles_[i][tiles_[i].size() - after] = sealed[i];
  return true;
}

// Of so many exact tokens, those that go to 2 bits.
int64_t Sequence::SurplusOf(int64_t exact) const {
  return residual_ == 0 ? 0 : std::max<int64_t>(0, exact / residual_ - 1) * residual_;
}

int64_t Sequence::MoreCodedTiles(std::span<const int64_t> in_bits) const {
  const int64_t parts =
      coded_count_ + std::accumulate(in_bits.begin(), in_bits.end(), int64_t{0}) / kTileSlots;
  return DivideUp(parts, kCodedPerTile) - std::ssize(coded_tiles_);
}

absl::Status Sequence::AllocatePacked(std::span<const Packing> heads, std::span<const int64_t> in_bits,
                                      int64_t base, std::vector<std::vector<int32_t>>* tiles) {
  std::vector<int64_t> counts(heads.size());
  int64_t total = MoreCodedTiles(in_bits);
  for (size_t i = 0; i < heads.size(); ++i) {
    counts[i] = DivideUp(std::ssize(heads[i].sources) - in_bits[i], kTileSlots);
    total += counts[i];
  }
  std::vector<int32_t> all(static_cast<size_t>(total));
  PALIMPSEST_RETURN_IF_ERROR(store_->AllocateTiles(all));
  auto next = all.begin();
  for (const int64_t count : counts) {
    tiles->emplace_back(next, next + count);
    next += count;
  }
  coded_tiles_.insert(coded_tiles_.end(), next, all.end());
  packed_.insert(packed_.end(), all.begin(), next);
  for (const int32_t tile : all) store_->arena().pool().bases[tile] = static_cast<int32_t>(base);
  return absl::OkStatus();
}

void Sequence::Encode(std::span<const Packing> heads, std::span<const int64_t> in_bits) {
  std::vector<EncodeHead> encode(heads.size());
  for (size_t i = 0; i < heads.size(); ++i) {
    std::vector<CodedTile>& coded = coded_[i];
    const size_t before = coded.size(), count = static_cast<size_t>(in_bits[i]);
    for (; (coded.size() - before) * kTileSlots < count; ++coded_count_) {
      coded.push_back({.tile = coded_tiles_[static_cast<size_t>(coded_count_ / kCodedPerTile)],
                       .part = static_cast<int32_t>(coded_count_ % kCodedPerTile)});
    }
    encode[i] = {.sources = std::span(heads[i].sources).first(count),
                 .positions = std::span(heads[i].positions).first(count),
                 .tiles = std::span(coded).subspan(before)};
  }
  store_->Encode(encode);
}

void Sequence::Gather(std::span<const Packing> heads, std::span<const int64_t> in_bits,
                      std::span<const std::vector<int32_t>> tiles) {
  std::vector<GatherHead> gather(heads.size());
  for (size_t i = 0; i < heads.size(); ++i) {
    const size_t first = static_cast<size_t>(in_bits[i]);
    gather[i] = {.sources = std::span(heads[i].sources).subspan(first),
                 .positions = std::span(heads[i].positions).subspan(first),
                 .tiles = tiles[i]};
  }
  store_->Gather(gather);
}

absl::Status Sequence::AppendPacked(std::span<const Packing> heads, int64_t base, int64_t next_position) {
  PALIMPSEST_CHECK(open_.empty() && heads.size() == tiles_.size(), "{} heads packed behind {} open groups",
                   heads.size(), open_.size());
  PALIMPSEST_CHECK(residual_ == 0 || (base == 0 && coded_count_ == 0), "2 bits at base {} behind {} tiles",
                   base, coded_count_);
  std::vector<int64_t> in_bits;
  for (const Packing& head : heads) in_bits.push_back(SurplusOf(std::ssize(head.sources)));
  std::vector<std::vector<int32_t>> tiles;
  PALIMPSEST_RETURN_IF_ERROR(AllocatePacked(heads, in_bits, base, &tiles));
  if (residual_ > 0) Encode(heads, in_bits);
  Gather(heads, in_bits, tiles);
  for (size_t i = 0; i < tiles.size(); ++i) {
    tiles_[i].insert(tiles_[i].end(), tiles[i].begin(), tiles[i].end());
    shifts_[i].resize(tiles_[i].size(), 0);
  }
  next_position_ = next_position;
  return absl::OkStatus();
}

absl::Status Sequence::AppendTiles(int64_t tiles_each, int64_t next_position,
                                   std::vector<std::vector<int32_t>>* tiles) {
  PALIMPSEST_CHECK(open_.empty(), "tiles behind {} open groups", open_.size());
  std::vector<int32_t> all(tiles_.size() * static_cast<size_t>(tiles_each));
  PALIMPSEST_RETURN_IF_ERROR(store_->AllocateTiles(all));
  packed_.insert(packed_.end(), all.begin(), all.end());
  for (size_t i = 0; i < tiles_.size(); ++i) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(i) * tiles_each;
    tiles->emplace_back(first, first + tiles_each);
    tiles_[i].insert(tiles_[i].end(), first, first + tiles_each);
    shifts_[i].resize(tiles_[i].size(), 0);
  }
  next_position_ = next_position;
  return absl::OkStatus();
}

void Sequence::Repack(std::span<const Packing> heads, int64_t next_position) {
  PALIMPSEST_CHECK(pins_.empty() && heads.size() == tiles_.size() && !shifted_ && residual_ == 0,
                   "repacking with {} pinned groups", pins_.size());
  std::vector<std::vector<int32_t>> kept(heads.size());
  std::vector<int32_t> gone;
  packed_.clear();
  for (size_t i = 0; i < heads.size(); ++i) {
    const size_t n = static_cast<size_t>(DivideUp(static_cast<int64_t>(heads[i].sources.size()), kTileSlots));
    PALIMPSEST_CHECK(n <= tiles_[i].size(), "{} tiles packed into {}", n, tiles_[i].size());
    const auto end = tiles_[i].begin() + static_cast<std::ptrdiff_t>(n);
    kept[i].assign(tiles_[i].begin(), end);
    gone.insert(gone.end(), end, tiles_[i].end());
    packed_.insert(packed_.end(), kept[i].begin(), kept[i].end());
  }
  for (const int32_t tile : packed_) store_->arena().pool().bases[tile] = 0;
  Gather(heads, std::vector<int64_t>(heads.size(), 0), kept);
  store_->arena().Free(gone);
  open_.clear();  // their tiles are packed ones now, or free
  for (size_t i = 0; i < kept.size(); ++i) {
    tiles_[i].assign(kept[i].begin(), kept[i].end());
    shifts_[i].assign(kept[i].size(), 0);
  }
  next_position_ = next_position;
}

int64_t Sequence::ExactTokens(size_t head) const {
  const TilePool pool = store_->arena().pool();
  int64_t tokens = 0;
  for (size_t i = pins_.size(); i < tiles_[head].size(); ++i) {
    const int32_t tile = tiles_[head][i];
    tokens += pool.counts[tile] - pool.starts[tile];
  }
  return tokens;
}

absl::Status Sequence::EncodeOldest() {
  bool any = false;
  for (size_t i = 0; i < tiles_.size(); ++i) any = any || SurplusOf(ExactTokens(i)) > 0;
  if (!any) return absl::OkStatus();
  std::vector<int64_t> in_bits;
  for (size_t i = 0; i < tiles_.size(); ++i) in_bits.push_back(SurplusOf(ExactTokens(i)));
  std::vector<int32_t> more(static_cast<size_t>(MoreCodedTiles(in_bits)));
  PALIMPSEST_RETURN_IF_ERROR(store_->AllocateTiles(more));
  coded_tiles_.insert(coded_tiles_.end(), more.begin(), more.end());
  AbsorbFull();
  std::vector<Packing> heads;
  for (size_t i = 0; i < tiles_.size(); ++i) heads.push_back(OldestOf(i, in_bits[i]));
  Encode(heads, in_bits);
  for (size_t i = 0; i < tiles_.size(); ++i) DropOldest(i, in_bits[i]);
  return absl::OkStatus();
}

Sequence::Packing Sequence::OldestOf(size_t head, int64_t count) const {
  const TilePool pool = store_->arena().pool();
  Packing oldest;
  for (size_t i = pins_.size(); std::ssize(oldest.sources) < count; ++i) {
    const int32_t tile = tiles_[head][i];
    PALIMPSEST_CHECK(pool.bases[tile] == 0, "a tile of base {} to 2 bits", pool.bases[tile]);
    for (int32_t slot = pool.starts[tile]; slot < pool.counts[tile] && std::ssize(oldest.sources) < count;
         ++slot) {
      oldest.sources.push_back({.tile = tile, .slot = slot});
      oldest.positions.push_back(pool.positions[tile * kTileSlots + slot]);
    }
  }
  return oldest;
}

// Tiles of which nothing is left go; of the last one, which may be read on, the first slots. None is of the
// group that is being filled: as many tokens as it holds stay.
void Sequence::DropOldest(size_t head, int64_t count) {
  const TilePool pool = store_->arena().pool();
  std::vector<int32_t>& list = tiles_[head];
  while (count > 0) {
    const int32_t tile = list[pins_.size()];
    const int32_t in_tile = pool.counts[tile] - pool.starts[tile];
    if (in_tile > count) {
      pool.starts[tile] += static_cast<int32_t>(count);
      return;
    }
    count -= in_tile;
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(pins_.size()));
    shifts_[head].resize(list.size());
    FreePacked(tile);
  }
}

void Sequence::FreePacked(int32_t tile) {
  store_->arena().Free(std::span(&tile, 1));
  std::erase(packed_, tile);
}

void Sequence::BeginProbe(std::span<const size_t> seen) {
  probe_open_ = static_cast<int64_t>(open_.size());
  probe_position_ = next_position_;
  if (seen.empty()) return;
  all_tiles_.swap(tiles_);
  all_shifts_.swap(shifts_);
  tiles_.resize(all_tiles_.size());
  shifts_.resize(all_tiles_.size());
  for (size_t i = 0; i < all_tiles_.size(); ++i) {
    for (const size_t place : seen) {
      tiles_[i].push_back(all_tiles_[i][place]);
      shifts_[i].push_back(all_shifts_[i][place]);
    }
  }
}

void Sequence::EndProbe() {
  const size_t open = static_cast<size_t>(probe_open_), gone = open_.size() - open;
  for (size_t i = open; i < open_.size(); ++i) store_->Discard(std::move(open_[i]));
  open_.resize(open);
  for (size_t i = 0; i < tiles_.size(); ++i) {
    tiles_[i].resize(tiles_[i].size() - gone);
    shifts_[i].resize(tiles_[i].size());
  }
  if (!all_tiles_.empty()) {
    tiles_.swap(all_tiles_);
    shifts_.swap(all_shifts_);
    all_tiles_.clear();
    all_shifts_.clear();
  }
  next_position_ = probe_position_;
  probe_open_ = -1;
}

// Groups that are full and that nobody will seal become packed tiles, which may go one by one.
void Sequence::AbsorbFull() {
  while (!open_.empty() && open_.front().envelope.empty() && open_.front().filled == open_.front().rows) {
    packed_.insert(packed_.end(), open_.front().tiles.begin(), open_.front().tiles.end());
    open_.erase(open_.begin());
  }
}

void Sequence::SlideWindow(size_t first_tile) {
  AbsorbFull();
  const TilePool pool = store_->arena().pool();
  for (auto& list : tiles_) {
    for (size_t i = 0; i < first_tile; ++i) {
      ++pool.bases[list[i]];
      for (int32_t slot = 0; slot < pool.counts[list[i]]; ++slot)
        ++pool.positions[list[i] * kTileSlots + slot];
    }
    const int32_t tile = list[first_tile];
    if (++pool.starts[tile] < pool.counts[tile]) continue;
    if (first_tile + open_.size() >= list.size()) continue;  // more comes into it
    FreePacked(tile);
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(first_tile));
  }
  for (size_t i = 0; i < tiles_.size(); ++i) shifts_[i].resize(tiles_[i].size());
}

// PlaceOf counts slots from the group's first position, which moves along.
void Sequence::TakeBack() {
  PALIMPSEST_CHECK(!open_.empty() && open_.back().filled > 0 && open_.back().envelope.empty(),
                   "{} open groups, and none whose newest token may go", open_.size());
  BlockGroup& group = open_.back();
  const TilePool pool = store_->arena().pool();
  ++group.first_position;
  const int64_t slot = --group.filled;
  for (const int32_t tile : group.tiles) {
    pool.counts[tile] = static_cast<int32_t>(slot);
    pool.positions[tile * kTileSlots + slot] = static_cast<int32_t>(next_position_);
  }
}

Sequence::Place Sequence::PlaceOf(int64_t position) {
  for (size_t i = open_.size(); i-- > 0;) {
    if (position >= open_[i].first_position) return {&open_[i], position - open_[i].first_position};
  }
  PALIMPSEST_CHECK(false, "position {} is not in an open group", position);
}

int64_t Sequence::resident_tiles() const {
  int64_t tiles = std::ssize(coded_tiles_);
  for (const auto& list : tiles_) tiles += static_cast<int64_t>(list.size());
  return tiles;
}

int64_t Sequence::resident_tokens() const {
  const TilePool pool = store_->arena().pool();
  int64_t tokens = coded_count_ * kTileSlots;
  for (const auto& list : tiles_) {
    for (const int32_t tile : list) tokens += pool.counts[tile] - pool.starts[tile];
  }
  return tokens;
}

}  // namespace palimpsest
