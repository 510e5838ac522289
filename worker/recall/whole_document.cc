#include "worker/recall/whole_document.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "proto/base/status.h"
#include "worker/recall/tiles_at_rest.h"

namespace palimpsest {
namespace {

// Whole splits, if there is room for one.
size_t Together(size_t tiles) {
  constexpr size_t kSplit = static_cast<size_t>(kSplitTiles);
  return tiles < kSplit ? tiles : tiles / kSplit * kSplit;
}

}  // namespace

WholeDocument::WholeDocument(Setup setup)
    : setup_(std::move(setup)), together_(Together(setup_.tiles.front().size())) {
  PALIMPSEST_CHECK(together_ > 0, "no room for {} blocks", setup_.blocks.size());
}

void WholeDocument::BeforeAttention(int64_t layer, Rows<const float> q, std::span<const int64_t> positions) {
  if (!chooses_) {
    const TimePoint start = setup_.clock->Now();
    Fetch(layer);
    counts_.seconds += Seconds(setup_.clock->Now() - start);
  }
  if (!chooses_) return;
  found_.clear();
  setup_.chooser->BeforeAttention(layer, q, positions);
}

// One layer, whole.
void WholeDocument::Fetch(int64_t layer) {
  const int64_t kv_heads = setup_.config->kv_heads;
  std::vector<Mover::TileRequest> requests;
  for (const IndexedBlock& block : setup_.blocks) {
    for (int64_t h = 0; h < kv_heads; ++h)
      requests.push_back({block.id, static_cast<uint32_t>(layer * kv_heads + h)});
  }
  std::vector<std::optional<Mover::FoundTile>> tiles =
      GetTiles(setup_.store->mover(), setup_.backend->pool(), requests);
  for (size_t i = 0; i < tiles.size(); ++i) {
    std::optional<Mover::FoundTile>& tile = tiles[i];
    const int64_t rows = setup_.blocks[i / static_cast<size_t>(kv_heads)].rows;
    const int64_t slices = DivideUp(rows, setup_.slice);
    if (!tile.has_value() || !IsAtRest(*tile, rows, setup_.config->head_size)) {
      counts_.missing_slices += slices;
      chooses_ = true;
      continue;
    }
    RecallCounts::OfTier& from = counts_.Of(tile->level);
    from.slices += slices;
    from.bytes += std::ssize(tile->payload);
    found_.push_back(*std::move(tile));
  }
}

bool WholeDocument::Attend(int64_t layer, const AttentionArgs& args) {
  if (chooses_) return false;
  const AttentionSequence& rows = args.sequences.front();
  PALIMPSEST_CHECK(rows.shifts == nullptr && rows.sums == nullptr && rows.coded == nullptr,
                   "{} rows of a question over tiles that are not as they were sealed", rows.rows);
  state_.Reserve(setup_.backend->CarriedFloats(rows.rows, args.heads, args.kv_heads, args.head_size));
  const size_t blocks = setup_.blocks.size();
  for (size_t first = 0; first < blocks; first += together_) {
    const size_t count = std::min(together_, blocks - first);
    const TimePoint start = setup_.clock->Now();
    Fill(layer, first, count);
    counts_.seconds += Seconds(setup_.clock->Now() - start);
    AttendTo(layer, args, count,
             {.state = state_.data(), .first = first == 0, .last = first + count == blocks});
  }
  Empty(layer);
  found_.clear();
  return true;
}

// The first tiles of the room, and behind the last of the document the question's own.
void WholeDocument::AttendTo(int64_t layer, const AttentionArgs& args, size_t count,
                             const CarriedAttention& carried) {
  AttentionSequence rows = args.sequences.front();
  std::vector<std::vector<int32_t>> lists(static_cast<size_t>(args.kv_heads));
  std::vector<std::span<const int32_t>> tiles;
  for (int64_t h = 0; h < args.kv_heads; ++h) {
    const std::span<const int32_t> room = TilesOf(layer, h).first(count), own = rows.tiles[h];
    std::vector<int32_t>& list = lists[static_cast<size_t>(h)];
    list.assign(room.begin(), room.end());
    if (carried.last) {
      const auto question = own.subspan(setup_.behind[static_cast<size_t>(layer * args.kv_heads + h)]);
      list.insert(list.end(), question.begin(), question.end());
    }
    tiles.emplace_back(list);
  }
  rows.tiles = tiles.data();
  rows.carried = &carried;
  AttentionArgs part = args;
  part.sequences = std::span(&rows, 1);
  setup_.backend->Attention(part);
}

void WholeDocument::Fill(int64_t layer, size_t first, size_t count) {
  const int64_t d = setup_.config->head_size;
  const size_t heads = static_cast<size_t>(setup_.config->kv_heads);
  std::vector<std::vector<KvSource>> sources(count * heads);
  std::vector<std::vector<int32_t>> positions(count);
  std::vector<GatherHead> gather;
  for (size_t i = 0; i < count; ++i) {
    const IndexedBlock& block = setup_.blocks[first + i];
    positions[i].resize(static_cast<size_t>(block.rows));
    std::iota(positions[i].begin(), positions[i].end(), static_cast<int32_t>(block.position));
    for (size_t h = 0; h < heads; ++h) {
      const Mover::FoundTile& tile = found_[(first + i) * heads + h];
      const auto* const keys = reinterpret_cast<const Bf16*>(tile.payload.data());
      std::vector<KvSource>& from = sources[i * heads + h];
      for (int64_t t = 0; t < block.rows; ++t)
        from.push_back({.key = keys + t * d, .value = keys + (block.rows + t) * d});
      gather.push_back({.sources = from,
                        .positions = positions[i],
                        .tiles = TilesOf(layer, static_cast<int64_t>(h)).subspan(i, 1)});
    }
  }
  setup_.store->Gather(gather);
}

void WholeDocument::Empty(int64_t layer) {
  std::vector<GatherHead> none;
  for (int64_t h = 0; h < setup_.config->kv_heads; ++h)
    none.push_back({.sources = {}, .positions = {}, .tiles = TilesOf(layer, h)});
  setup_.store->Gather(none);
}

}  // namespace palimpsest
