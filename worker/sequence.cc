#include "worker/sequence.h"

#include "proto/base/status.h"

namespace palimpsest {

Sequence::Sequence(TieredStore* store, int64_t groups_max)
    : store_(store), tiles_(static_cast<size_t>(store->shape().tiles())) {
  pins_.reserve(static_cast<size_t>(groups_max));
  open_.reserve(static_cast<size_t>(groups_max));
  for (auto& list : tiles_) list.reserve(static_cast<size_t>(groups_max));
}

Sequence::~Sequence() {
  for (BlockGroup& group : open_) store_->Discard(std::move(group));
}

void Sequence::AddTiles(const BlockGroup& group) {
  for (size_t i = 0; i < tiles_.size(); ++i) tiles_[i].push_back(group.tiles[i]);
}

void Sequence::AddPinned(TieredStore::Pin pin) {
  PALIMPSEST_CHECK(pin.group().first_position == length_ && open_.empty(), "group at {} after {} tokens",
                   pin.group().first_position, length_);
  AddTiles(pin.group());
  length_ += pin.group().filled;
  pins_.push_back(std::move(pin));
}

absl::Status Sequence::OpenGroup(int64_t rows, bool keep_rest) {
  // Exact prefill: keys turn by their place in the session, so every tile's base is 0.
  PALIMPSEST_ASSIGN_OR_RETURN(BlockGroup group, store_->Open(length_, /*base=*/0, rows, keep_rest));
  AddTiles(group);
  open_.push_back(std::move(group));
  return absl::OkStatus();
}

void Sequence::Extend(int64_t n) {
  PALIMPSEST_CHECK(n <= room(), "{} slots of {}", n, room());
  BlockGroup& group = open_.back();
  group.filled += n;
  length_ += n;
  int32_t* counts = store_->arena().pool().counts;
  for (const int32_t tile : group.tiles) counts[tile] = static_cast<int32_t>(group.filled);
}

bool Sequence::SealOldest(const BlockId& id) {
  if (open_.empty() || open_.front().envelope.empty() || open_.front().filled < open_.front().rows)
    return false;
  const size_t ordinal = tiles_.front().size() - open_.size();  // every head has the same groups here
  pins_.push_back(store_->Seal(id, std::move(open_.front())));
  open_.erase(open_.begin());
  // Another session may have sealed the same block meanwhile: its tiles replace ours, which are gone.
  const std::vector<int32_t>& sealed = pins_.back().group().tiles;
  for (size_t i = 0; i < tiles_.size(); ++i) tiles_[i][ordinal] = sealed[i];
  return true;
}

Sequence::Place Sequence::PlaceOf(int64_t position) {
  for (size_t i = open_.size(); i-- > 0;) {
    if (position >= open_[i].first_position) return {&open_[i], position - open_[i].first_position};
  }
  PALIMPSEST_CHECK(false, "position {} is not in an open group", position);
}

int64_t Sequence::resident_tiles() const {
  int64_t tiles = 0;
  for (const auto& list : tiles_) tiles += static_cast<int64_t>(list.size());
  return tiles;
}

}  // namespace palimpsest
