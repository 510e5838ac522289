// Single tiles out of the tiers: what recall asks for.
#include <algorithm>
#include <atomic>
#include <utility>

#include "proto/base/status.h"
#include "storage/mover.h"

namespace palimpsest {

// Tiles that readers fetch together, each taking the next one; shared with them, as the caller may leave
// first.
struct Mover::TileBatch {
  std::vector<TileRequest> requests;  // const while readers have it
  std::atomic<size_t> next{0};        // its size or more: nothing is left to take
  std::mutex mu;                      // guards what follows
  std::condition_variable ended;
  size_t left = 0;
  std::vector<std::optional<FoundTile>> found;
};

std::optional<Mover::FoundTile> Mover::OpenTileOf(const TileRequest& request, const TierView& view,
                                                  Level level) {
  const bool encrypted = level == Level::kSsd && key_ != nullptr;
  auto plain = std::make_shared<std::vector<uint8_t>>();
  const absl::StatusOr<OpenedTile> tile =
      VerifyTile(view.bytes, encrypted ? key_.get() : nullptr, plain.get(),
                 encrypted ? Require::kEncrypted : Require::kAny);
  if (!tile.ok() || !InPlace(request.key.id, request.part, *tile)) {
    CountDamaged(request.key, level == Level::kSsd ? ssd_.get() : host_.get());
    return std::nullopt;
  }
  FoundTile found{.owner = view.owner, .geometry = tile->geometry, .payload = tile->payload, .level = level};
  if (encrypted) found.owner = std::move(plain);
  if (const uint32_t format = DecodedFormat(found.geometry.format); format != found.geometry.format) {
    auto decoded = std::make_shared<std::vector<uint8_t>>(DecodedPayloadBytes(*tile));
    if (!DecodeInto(*tile, *decoded).ok()) {
      CountDamaged(request.key, level == Level::kSsd ? ssd_.get() : host_.get());
      return std::nullopt;
    }
    found.geometry.format = format;
    found.payload = *decoded;
    found.owner = std::move(decoded);
  }
  return found;
}

std::optional<Mover::FoundTile> Mover::WaitingTile(const TileRequest& request) {
  TierView view;
  {
    std::lock_guard lock(mu_);
    const auto waiting = waiting_.find(request.key);
    if (waiting == waiting_.end() || request.part >= waiting->second.second) return std::nullopt;
    const TierValue& value = waiting->second.first;
    const size_t stride = value->size() / waiting->second.second;
    view = {value, std::span(*value).subspan(request.part * stride, stride)};
  }
  return OpenTileOf(request, view, Level::kHost);
}

std::optional<Mover::FoundTile> Mover::CachedTileOf(const TileRequest& request) {
  std::lock_guard lock(mu_);
  const auto found = cache_.find({request.key, request.part});
  if (found == cache_.end()) return std::nullopt;
  cached_.splice(cached_.begin(), cached_, found->second);
  FoundTile tile = found->second->tile;
  tile.level = Level::kHost;
  return tile;
}

void Mover::CacheTile(const TileRequest& request, const FoundTile& tile) {
  std::lock_guard lock(mu_);
  if (cache_.contains({request.key, request.part})) return;
  cached_.push_front({{request.key, request.part}, tile});
  cache_.emplace(cached_.front().key, cached_.begin());
  cached_bytes_ += static_cast<int64_t>(tile.payload.size());
  while (cached_bytes_ > options_.tile_cache_bytes && !cached_.empty()) {
    cached_bytes_ -= static_cast<int64_t>(cached_.back().tile.payload.size());
    cache_.erase(cached_.back().key);
    cached_.pop_back();
  }
}

std::optional<Mover::FoundTile> Mover::ReadTile(const TileRequest& request, Level level) {
  Tier* const tier = level == Level::kHost ? host_.get() : ssd_.get();
  if (tier == nullptr) return std::nullopt;
  const absl::StatusOr<TierView> view = tier->GetPart(request.key, request.part);
  if (level == Level::kSsd) DiskAnswered(view.status());
  if (view.ok()) return OpenTileOf(request, *view, level);
  if (view.status().code() == absl::StatusCode::kDataLoss) CountDamaged(request.key, nullptr);
  return std::nullopt;
}

std::vector<std::optional<Mover::FoundTile>> Mover::GetTiles(std::span<const TileRequest> tiles) {
  std::vector<std::optional<FoundTile>> found(tiles.size());
  auto batch = std::make_shared<TileBatch>();
  std::vector<size_t> missing;
  for (size_t i = 0; i < tiles.size(); ++i) {
    std::optional<FoundTile> tile = CachedTileOf(tiles[i]);
    if (!tile.has_value() && host_ != nullptr && host_->Contains(tiles[i].key)) {
      tile = ReadTile(tiles[i], Level::kHost);
    }
    if (!tile.has_value()) tile = WaitingTile(tiles[i]);
    if (tile.has_value()) {
      CountHit(Level::kHost, tile->payload.size());
      found[i] = *std::move(tile);
    } else if (OnSsd(tiles[i].key) && DiskAllowed()) {
      missing.push_back(i);
      batch->requests.push_back(tiles[i]);
    } else {
      CountMiss();
    }
  }
  if (missing.empty()) return found;
  batch->found.resize(missing.size());
  batch->left = missing.size();
  const auto read = [this, batch] {
    for (size_t i = batch->next++; i < batch->requests.size(); i = batch->next++) {
      std::optional<FoundTile> tile = ReadTile(batch->requests[i], Level::kSsd);
      std::lock_guard lock(batch->mu);
      batch->found[i] = std::move(tile);
      if (--batch->left == 0) batch->ended.notify_all();
    }
  };
  bool started = false;
  for (size_t i = 0; i < std::min(missing.size(), static_cast<size_t>(options_.readers)); ++i)
    started |= readers_->Run(read).ok();
  if (!started) {
    for (size_t i = 0; i < missing.size(); ++i) CountMiss();
    return found;
  }
  constexpr size_t kTileBytes = 32 << 10;
  std::unique_lock lock(batch->mu);
  if (!batch->ended.wait_for(lock, ReadWait(missing.size() * kTileBytes), [&] { return batch->left == 0; })) {
    batch->next = missing.size();
    lock.unlock();
    DiskAnswered(absl::DeadlineExceededError("reads of tiles are late"));
    std::lock_guard counted(mu_);
    stats_.late += static_cast<int64_t>(missing.size());
    return found;
  }
  for (size_t i = 0; i < missing.size(); ++i) {
    std::optional<FoundTile>& tile = batch->found[i];
    if (!tile.has_value()) {
      CountMiss();
      continue;
    }
    CountHit(Level::kSsd, tile->payload.size());
    CacheTile(batch->requests[i], *tile);
    found[missing[i]] = std::move(tile);
  }
  return found;
}

}  // namespace palimpsest
