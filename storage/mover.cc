#include "storage/mover.h"

#include <algorithm>
#include <utility>

#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr size_t kTasksMax = 1 << 16;

// Of a value in the open form, once it is in `format`. Index and picks stay as they are; a block with numbers
// that are not finite does too, and is counted as if it did not.
int64_t BytesIn(BlockFormat format, std::span<const uint8_t> value, uint32_t parts) {
  const int64_t as_it_is = static_cast<int64_t>(value.size());
  if (format == BlockFormat::kBf16) return as_it_is;
  const absl::StatusOr<OpenedTile> tile = VerifyTile(value.first(value.size() / parts), nullptr, nullptr);
  if (!tile.ok() || tile->geometry.format != kTileBf16) return as_it_is;
  const size_t payload = TilePayloadBytes(format, tile->geometry.tokens, tile->geometry.head_size);
  return int64_t{parts} * static_cast<int64_t>(kEnvelopeHeaderBytes + payload);
}

}  // namespace

Mover::Mover(const MoverOptions& options, std::unique_ptr<Tier> host, std::unique_ptr<Tier> ssd,
             std::shared_ptr<DataKey> key)
    : options_(options),
      host_(std::move(host)),
      ssd_(std::move(ssd)),
      key_(std::move(key)),
      breaker_(options.breaker_failures, options.breaker_pause) {
  if (ssd_ == nullptr) return;
  readers_ = std::make_unique<ThreadExecutor>(options.readers, kTasksMax);
  writer_ = std::make_unique<ThreadExecutor>(1, kTasksMax);
}

Mover::~Mover() {
  if (writer_ != nullptr) writer_->Shutdown();
  if (readers_ != nullptr) readers_->Shutdown();
}

// ---- in ----

bool Mover::Put(const TierKey& key, std::vector<uint8_t> value, uint32_t parts) {
  const int64_t bytes = static_cast<int64_t>(value.size());
  value.shrink_to_fit();
  const auto shared = std::make_shared<const std::vector<uint8_t>>(std::move(value));
  const std::optional<int64_t> to_host = PutToHost({key, shared, parts});
  const bool below = to_host.has_value();
  const int64_t to_ssd = ssd_ == nullptr ? 0 : BytesIn(options_.ssd_format, *shared, parts);
  std::unique_lock lock(mu_);
  MoverStats::OfLevel& host = stats_.level[static_cast<size_t>(Level::kHost)];
  host.put_bytes += to_host.value_or(0);
  host.written_bytes += to_host.value_or(0);
  if (ssd_ == nullptr || waiting_.contains(key)) return below || waiting_.contains(key);
  if (ssd_->Contains(key)) return true;
  if (bytes > options_.waiting_bytes_max) {  // there will never be room: nothing to wait for
    ++stats_.dropped_full;
    return below;
  }
  const auto room = [&] { return stats_.waiting_bytes + bytes <= options_.waiting_bytes_max; };
  if (!room()) {
    CommitLocked();
    if (!refused_) {
      refused_ = !progress_.wait_for(lock, options_.put_wait, [&] { return room() || refused_; });
      if (refused_) PALIMPSEST_LOG(kWarn, "ssd tier hangs: what finds no room to wait for it is not written");
    }
  }
  if (!room()) {
    ++stats_.dropped_full;
    return below;
  }
  waiting_.emplace(key, std::pair(shared, parts));
  stats_.waiting_bytes += bytes;
  stats_.level[static_cast<size_t>(Level::kSsd)].put_bytes += to_ssd;
  queued_.push_back({key, shared, parts});
  queued_bytes_ += bytes;
  if (queued_bytes_ >= options_.batch_bytes) CommitLocked();
  return true;
}

void Mover::Commit() {
  std::lock_guard lock(mu_);
  CommitLocked();
}

void Mover::CommitLocked() {
  if (queued_.empty()) return;
  auto batch = std::make_shared<Batch>(std::exchange(queued_, {}));
  queued_bytes_ = 0;
  const int tries = options_.tries;
  PALIMPSEST_CHECK(writer_->Run([this, batch, tries] { Write(batch, tries); }).ok(), "the writer is gone");
}

bool Mover::Flush(Duration limit) {
  std::unique_lock lock(mu_);
  CommitLocked();
  return progress_.wait_for(lock, limit, [&] { return waiting_.empty(); });
}

// A value as a tier holds it. Nothing if it was damaged in host memory meanwhile.
std::optional<std::vector<uint8_t>> Mover::Seal(const Waiting& value, BlockFormat format,
                                                DataKey* key) const {
  const size_t stride = value.value->size() / value.parts;
  std::vector<OpenedTile> tiles;
  for (uint32_t part = 0; part < value.parts; ++part) {
    const absl::StatusOr<OpenedTile> opened =
        VerifyTile(std::span(*value.value).subspan(part * stride, stride), nullptr, nullptr);
    if (!opened.ok() || !InPlace(value.key.id, part, *opened)) return std::nullopt;
    tiles.push_back(*opened);
  }
  std::vector<uint8_t> sealed = InTierFormat(&tiles, format);
  if (sealed.empty()) sealed = *value.value;
  const size_t to = sealed.size() / value.parts;
  for (uint32_t part = 0; part < value.parts; ++part) {
    const std::span<uint8_t> tile = std::span(sealed).subspan(part * to, to);
    const bool as_it_was = key == nullptr && to == stride;
    if (!as_it_was) SealTile(value.key.id, tiles[part].geometry, tile, key);
  }
  return sealed;
}

// Bytes that it wrote; none: it is not there.
std::optional<int64_t> Mover::PutToHost(const Waiting& value) {
  if (host_ == nullptr) return std::nullopt;
  TierItem item{value.key, value.value, value.parts};
  if (options_.host_format != BlockFormat::kBf16) {
    std::optional<std::vector<uint8_t>> sealed = Seal(value, options_.host_format, nullptr);
    if (!sealed.has_value()) return std::nullopt;
    item.value = std::make_shared<const std::vector<uint8_t>>(*std::move(sealed));
  }
  const bool known = host_->Contains(value.key);
  if (!host_->Put({&item, 1}).ok()) return std::nullopt;
  return known ? 0 : static_cast<int64_t>(item.value->size());
}

void Mover::Write(const std::shared_ptr<Batch>& batch, int tries_left) {
  std::vector<TierItem> items;
  int64_t bytes = 0;
  for (const Waiting& value : *batch) {
    std::optional<std::vector<uint8_t>> sealed = Seal(value, options_.ssd_format, key_.get());
    if (!sealed.has_value()) {
      CountDamaged(value.key, host_.get());
      continue;
    }
    bytes += static_cast<int64_t>(sealed->size());
    items.push_back(
        {value.key, std::make_shared<const std::vector<uint8_t>>(std::move(*sealed)), value.parts});
  }
  const absl::Status status = items.empty() ? absl::OkStatus() : ssd_->Put(items);
  if (!status.ok() && tries_left > 1) {
    {
      std::lock_guard lock(mu_);
      if (!refused_) PALIMPSEST_LOG(kWarn, "ssd tier takes nothing and is tried again: {}", status);
      refused_ = true;
    }
    progress_.notify_all();
    items.clear();
    if (writer_->RunAfter(options_.retry, [this, batch, tries_left] { Write(batch, tries_left - 1); }).ok())
      return;
  }
  if (!status.ok()) PALIMPSEST_LOG(kWarn, "ssd tier did not take {} values: {}", items.size(), status);
  Written(*batch, status.ok(), bytes);
}

void Mover::Written(const Batch& batch, bool stored, int64_t bytes) {
  {
    std::lock_guard lock(mu_);
    refused_ = !stored;
    for (const Waiting& value : batch) {
      waiting_.erase(value.key);
      stats_.waiting_bytes -= static_cast<int64_t>(value.value->size());
    }
    if (stored) {
      stats_.level[static_cast<size_t>(Level::kSsd)].written_bytes += bytes;
    } else {
      stats_.dropped_refused += static_cast<int64_t>(batch.size());
    }
  }
  progress_.notify_all();
}

bool Mover::Contains(const TierKey& key) const {
  if (host_ != nullptr && host_->Contains(key)) return true;
  {
    std::lock_guard lock(mu_);
    if (waiting_.contains(key)) return true;
    // Only for the pause: who asks before each Get must come again, or nobody ever tries the disk anew.
    if (breaker_.Resting(RealClock().Now())) return false;
  }
  return ssd_ != nullptr && ssd_->Contains(key);
}

bool Mover::OnSsd(const TierKey& key) const { return ssd_ != nullptr && ssd_->Contains(key); }

void Mover::Touch(std::span<const TierKey> keys) {
  if (host_ != nullptr) host_->Touch(keys);
  if (ssd_ != nullptr) ssd_->Touch(keys);
}

void Mover::Erase(const TierKey& key) {
  if (host_ != nullptr) host_->Erase(key).IgnoreError();
  if (ssd_ != nullptr) ssd_->Erase(key).IgnoreError();
}

// ---- the disk's health, and counters ----

bool Mover::DiskAllowed() {
  std::lock_guard lock(mu_);
  return breaker_.Allow(RealClock().Now());
}

void Mover::DiskAnswered(const absl::Status& status) {
  std::lock_guard lock(mu_);
  const bool failed =
      status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kDeadlineExceeded;
  const bool was_open = breaker_.open();
  failed ? breaker_.Failed(RealClock().Now()) : breaker_.Succeeded();
  if (breaker_.open() && !was_open) {
    PALIMPSEST_LOG(kWarn, "ssd tier is left alone for {:.0f} s after {} failures in a row, the last: {}",
                   Seconds(options_.breaker_pause), options_.breaker_failures, status);
  }
}

Duration Mover::ReadWait(size_t bytes) const {
  return options_.read_wait + std::chrono::milliseconds(bytes * 1000 / (size_t{64} << 20));
}

void Mover::CountHit(Level level, size_t bytes) {
  std::lock_guard lock(mu_);
  auto& counts = stats_.level[static_cast<size_t>(level)];
  ++counts.hits;
  counts.hit_bytes += static_cast<int64_t>(bytes);
  if (level != Level::kHost) ++stats_.level[static_cast<size_t>(Level::kHost)].misses;
}

void Mover::CountMiss() {
  std::lock_guard lock(mu_);
  for (auto& counts : stats_.level) ++counts.misses;
}

// It would only be found damaged again, so `tier` forgets it.
void Mover::CountDamaged(const TierKey& key, Tier* tier) {
  PALIMPSEST_LOG(kWarn, "{} failed its checks and is dropped; it is computed again if no other tier has it",
                 LogName(key.ToString()));
  if (tier != nullptr) tier->Erase(key).IgnoreError();
  std::lock_guard lock(mu_);
  ++stats_.damaged;
}

MoverStats Mover::stats() const {
  std::lock_guard lock(mu_);
  MoverStats stats = stats_;
  stats.disk_off = breaker_.open();
  return stats;
}

}  // namespace palimpsest
