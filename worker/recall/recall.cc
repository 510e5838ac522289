#include "worker/recall/recall.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "worker/recall/tiles_at_rest.h"

namespace palimpsest {
namespace {

// What may come back: not more than there is, whatever was asked for.
int64_t SlicesOf(const RecallSpec& spec, int64_t blocks) {
  return spec.kind == RecallSpec::Kind::kAll
             ? blocks
             : std::min<int64_t>(spec.budget / spec.slice, blocks * kTileSlots / spec.slice);
}

}  // namespace

// `all` is one slice a block, as many as there are.
Recall::Recall(RecallSetup setup)
    : setup_(std::move(setup)),
      slice_(setup_.spec.kind == RecallSpec::Kind::kAll ? kTileSlots : setup_.spec.slice),
      count_(SlicesOf(setup_.spec, std::ssize(setup_.index->blocks()))),
      watched_(PlacesOf(setup_.watched)),
      heads_(setup_.residents.size()),
      changed_(static_cast<size_t>(setup_.config->kv_heads)) {
  const std::span<const IndexedBlock> blocks = setup_.index->blocks();
  best_.resize(static_cast<size_t>(setup_.config->kv_heads * SlicesOfHead()));
  const bool all = setup_.spec.kind == RecallSpec::Kind::kAll;
  const int64_t places = std::min<int64_t>(all ? count_ : setup_.budgets_kept * count_,
                                           static_cast<int64_t>(blocks.size()) * kTileSlots / slice_);
  for (size_t i = 0; i < heads_.size(); ++i) {
    Head& head = heads_[i];
    head.places = PlacesOf(setup_.residents[i]);
    head.slots = SlotsToRank(head.places);
    head.slice_at.assign(static_cast<size_t>(places), -1);
    head.used.assign(static_cast<size_t>(places), -1);
    head.slab.resize(static_cast<size_t>(places * 2 * slice_ * setup_.config->head_size));
    head.place_of.reserve(static_cast<size_t>(places));
    const size_t tokens = static_cast<size_t>(count_ * slice_);
    head.sources.reserve(tokens);
    head.positions.reserve(tokens);
    head.came.reserve(tokens);
    head.slices.reserve(static_cast<size_t>(count_));
    head.wanted.reserve(static_cast<size_t>(count_));
  }
}

std::vector<int32_t> Recall::PlacesOf(std::span<const int32_t> tokens) const {
  const std::span<const IndexedBlock> blocks = setup_.index->blocks();
  std::vector<int32_t> places;
  size_t b = 0;
  for (const int32_t token : tokens) {
    while (b < blocks.size() && token >= blocks[b].first + blocks[b].rows) ++b;
    if (b == blocks.size()) break;
    if (token < blocks[b].first) continue;
    places.push_back(static_cast<int32_t>(static_cast<int64_t>(b) * kTileSlots + token - blocks[b].first));
  }
  return places;
}

std::vector<uint64_t> Recall::SlotsToRank(std::span<const int32_t> places) const {
  std::vector<uint64_t> slots;
  for (const int32_t count : setup_.index->counts())
    slots.push_back(count >= kTileSlots ? ~uint64_t{0} : (uint64_t{1} << count) - 1);
  const auto strike = [&](int64_t place) {
    slots[static_cast<size_t>(place / kTileSlots)] &= ~(uint64_t{1} << place % kTileSlots);
  };
  for (const int32_t place : places) strike(place);
  for (const int32_t slice : setup_.named) {
    for (int64_t i = 0; i < slice_; ++i) strike(slice * slice_ + i);
  }
  return slots;
}

double Recall::WatchedSeen() const {
  int64_t seen = 0;
  for (const Head& head : heads_) {
    for (const int32_t place : watched_) {
      const bool back =
          std::binary_search(head.slices.begin(), head.slices.end(), static_cast<int32_t>(place / slice_));
      seen += back || std::binary_search(head.places.begin(), head.places.end(), place) ? 1 : 0;
    }
  }
  const size_t all = watched_.size() * heads_.size();
  return all == 0 ? 0 : static_cast<double>(seen) / static_cast<double>(all);
}

void Recall::Choose(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) {
  if (layer == 0) ++turn_;
  if (setup_.spec.kind == RecallSpec::Kind::kAll) {
    if (turn_ == 1) WantAll(layer);
  } else if (setup_.oracle) {
    if (turn_ == 1) WantWatched(layer);
  } else {
    Rank(layer, q, positions);
  }
}

void Recall::BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) {
  const TimePoint start = setup_.clock->Now();
  Choose(layer, q, positions);
  const bool chosen_for_good = setup_.spec.kind == RecallSpec::Kind::kAll || setup_.oracle;
  if (chosen_for_good && turn_ > 1) return;
  for (int64_t h = 0; h < setup_.config->kv_heads; ++h) {
    const Head& head = HeadOf(layer, h);
    changed_[static_cast<size_t>(h)] = head.wanted != head.slices;
  }
  Fetch(layer);
  Pack(layer);
  counts_.seconds += Seconds(setup_.clock->Now() - start);
}

void Recall::WantAll(int64_t layer) {
  for (int64_t h = 0; h < setup_.config->kv_heads; ++h) {
    Head& head = HeadOf(layer, h);
    head.wanted.clear();
    for (int64_t b = 0; b < count_; ++b) {
      if (setup_.index->counts()[static_cast<size_t>(b)] > 0) head.wanted.push_back(static_cast<int32_t>(b));
    }
  }
}

void Recall::WantWatched(int64_t layer) {
  const int64_t slices = SlicesOfHead();
  for (int64_t h = 0; h < setup_.config->kv_heads; ++h) {
    Head& head = HeadOf(layer, h);
    RngSequence chance(Rng(1, static_cast<uint64_t>(layer * setup_.config->kv_heads + h)));
    std::set<int32_t> wanted;
    for (const int32_t place : watched_) wanted.insert(static_cast<int32_t>(place / slice_));
    const size_t most = static_cast<size_t>(std::min(count_, slices));
    while (wanted.size() < most)
      wanted.insert(static_cast<int32_t>(chance.Below(static_cast<uint64_t>(slices))));
    head.wanted.clear();
    for (const int32_t slice : wanted) {
      const int64_t block = slice * slice_ / kTileSlots, first = slice * slice_ % kTileSlots;
      const bool there = first < setup_.index->counts()[static_cast<size_t>(block)];
      if (there && static_cast<int64_t>(head.wanted.size()) < count_) head.wanted.push_back(slice);
    }
  }
}

void Recall::Rank(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) {
  const ModelConfig& config = *setup_.config;
  const int64_t group = config.heads / config.kv_heads, columns = group * config.head_size;
  const int64_t slices = SlicesOfHead();
  rank_positions_.assign(positions.begin(), positions.end());
  if (setup_.rank_position >= 0)
    std::fill(rank_positions_.begin(), rank_positions_.end(), setup_.rank_position);
  std::vector<DigestHead> heads;
  for (int64_t h = 0; h < config.kv_heads; ++h) {
    heads.push_back({.q = {q.data + h * columns, q.rows, columns, q.stride},
                     .tiles = setup_.index->digests(layer * config.kv_heads + h),
                     .slots = HeadOf(layer, h).slots,
                     .out = best_.data() + h * slices});
  }
  setup_.backend->ScoreDigests({.kind = setup_.index->kind(),
                                .group = group,
                                .head_size = config.head_size,
                                .slice = slice_,
                                .positions = rank_positions_,
                                .rope = setup_.rope,
                                .heads = heads});
  setup_.backend->pool().ParallelFor(config.kv_heads, [&](int64_t h, int) {
    Head& head = HeadOf(layer, h);
    PickSlices(std::span(best_).subspan(static_cast<size_t>(h * slices), static_cast<size_t>(slices)),
               count_ - static_cast<int64_t>(setup_.named.size()), &head.order, &head.wanted);
    head.wanted.insert(head.wanted.end(), setup_.named.begin(), setup_.named.end());
    std::sort(head.wanted.begin(), head.wanted.end());
  });
}

// What is wanted and did not come before, from the tiers; wanted slices that do not come are struck out.
void Recall::Fetch(int64_t layer) {
  const int64_t per_block = kTileSlots / slice_, kv_heads = setup_.config->kv_heads;
  const int64_t slice_bytes = 2 * slice_ * setup_.config->head_size * static_cast<int64_t>(sizeof(Bf16));
  struct Missing {
    int64_t head;
    int32_t slice;
    size_t request;
  };
  std::vector<Missing> missing;
  std::vector<Mover::TileRequest> requests;
  for (int64_t h = 0; h < kv_heads; ++h) {
    if (!changed_[static_cast<size_t>(h)]) continue;
    Head& head = HeadOf(layer, h);
    int64_t last_block = -1;
    for (const int32_t slice : head.wanted) {
      if (const auto place = head.place_of.find(slice); place != head.place_of.end()) {
        if (std::exchange(head.used[static_cast<size_t>(place->second)], turn_) != turn_) {
          ++counts_.device.slices;
          counts_.device.bytes += slice_bytes;
        }
        continue;
      }
      const int64_t block = slice / per_block;
      if (block != last_block) {
        requests.push_back({setup_.index->blocks()[static_cast<size_t>(block)].id,
                            static_cast<uint32_t>(layer * kv_heads + h)});
        last_block = block;
      }
      missing.push_back({h, slice, requests.size() - 1});
    }
  }
  if (requests.empty()) return;
  const std::vector<std::optional<Mover::FoundTile>> tiles =
      GetTiles(setup_.store->mover(), setup_.backend->pool(), requests);
  size_t counted = requests.size();  // the request whose bytes were counted last
  for (const Missing& m : missing) {
    Head& head = HeadOf(layer, m.head);
    const std::optional<Mover::FoundTile>& tile = tiles[m.request];
    const int64_t rows = setup_.index->blocks()[static_cast<size_t>(m.slice / per_block)].rows;
    if (!tile.has_value() || !IsAtRest(*tile, rows, setup_.config->head_size)) {
      std::erase(head.wanted, m.slice);
      ++counts_.missing_slices;
      continue;
    }
    const int32_t place = TakePlace(head);
    Copy(*tile, m.slice, head, place);
    head.place_of.emplace(m.slice, place);
    head.slice_at[static_cast<size_t>(place)] = m.slice;
    head.used[static_cast<size_t>(place)] = turn_;
    RecallCounts::OfTier& from = counts_.Of(tile->level);
    ++from.slices;
    if (std::exchange(counted, m.request) != m.request)
      from.bytes += static_cast<int64_t>(tile->payload.size());
  }
}

// A free place of the slab, or that of the slice that was wanted longest ago.
int32_t Recall::TakePlace(Head& head) {
  const auto oldest = std::min_element(head.used.begin(), head.used.end());
  const size_t place = static_cast<size_t>(oldest - head.used.begin());
  if (head.slice_at[place] >= 0) head.place_of.erase(head.slice_at[place]);
  return static_cast<int32_t>(place);
}

void Recall::Copy(const Mover::FoundTile& tile, int32_t slice, Head& head, int32_t place) const {
  const int64_t d = setup_.config->head_size, rows = tile.geometry.tokens;
  const int64_t first = slice % (kTileSlots / slice_) * slice_, count = std::min(slice_, rows - first);
  const uint8_t* const keys = tile.payload.data() + first * d * 2;
  Bf16* const to = head.slab.data() + int64_t{place} * 2 * slice_ * d;
  std::memcpy(to, keys, static_cast<size_t>(count * d * 2));
  std::memcpy(to + slice_ * d, keys + rows * d * 2, static_cast<size_t>(count * d * 2));
}

// Where a head's choice is another than before, its tiles are filled anew in the order of the document.
void Recall::Pack(int64_t layer) {
  setup_.backend->pool().ParallelFor(setup_.config->kv_heads, [&](int64_t h, int) {
    if (changed_[static_cast<size_t>(h)]) PackHead(HeadOf(layer, h));
  });
  std::vector<GatherHead> heads;
  for (int64_t h = 0; h < setup_.config->kv_heads; ++h) {
    if (!changed_[static_cast<size_t>(h)]) continue;
    const Head& head = HeadOf(layer, h);
    heads.push_back({.sources = head.sources,
                     .positions = head.positions,
                     .tiles = setup_.tiles[static_cast<size_t>(layer * setup_.config->kv_heads + h)]});
  }
  if (!heads.empty()) setup_.store->Gather(heads);
}

void Recall::PackHead(Head& head) {
  const int64_t per_block = kTileSlots / slice_, d = setup_.config->head_size;
  std::swap(head.slices, head.wanted);
  head.sources.clear();
  head.positions.clear();
  head.came.clear();
  auto resident = head.places.begin();
  for (const int32_t slice : head.slices) {
    const IndexedBlock& block = setup_.index->blocks()[static_cast<size_t>(slice / per_block)];
    const int64_t first = slice % per_block * slice_, place = slice / per_block * kTileSlots + first;
    const Bf16* const keys = head.slab.data() + int64_t{head.place_of.at(slice)} * 2 * slice_ * d;
    resident = std::lower_bound(resident, head.places.end(), static_cast<int32_t>(place));
    for (int64_t i = 0; i < std::min(slice_, block.rows - first); ++i) {
      if (resident != head.places.end() && *resident == place + i) {
        ++resident;
        continue;
      }
      const int64_t position = setup_.first_position < 0
                                   ? block.position + first + i
                                   : setup_.first_position + static_cast<int64_t>(head.positions.size());
      head.sources.push_back({.key = keys + i * d, .value = keys + (slice_ + i) * d});
      head.positions.push_back(static_cast<int32_t>(position));
      head.came.push_back(static_cast<int32_t>(place + i));
    }
  }
}

}  // namespace palimpsest
