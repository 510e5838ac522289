// Whole values out of the tiers: what a restore asks for.
#include <algorithm>
#include <utility>

#include "proto/base/status.h"
#include "storage/mover.h"

namespace palimpsest {
namespace {

constexpr size_t kPrefetchedMax = 256;     // values that nobody came for
constexpr size_t kTypicalBytes = 4 << 20;  // of a value

}  // namespace

std::optional<Mover::Found> Mover::Get(const TierKey& key) {
  // First what is on its way from SSD, though host memory may have it by now. If that fails, it has perhaps.
  const std::shared_ptr<Reading> begun = TakeReading(key);
  if (begun != nullptr) {
    bool late = false;
    if (std::optional<Found> found = Await(*begun, &late); found.has_value() || late) return found;
  }
  if (host_ != nullptr) {
    if (std::optional<TierView> value = GetFromHost(key)) {
      CountHit(Level::kHost, value->bytes.size());
      return Found{*std::move(value), Level::kHost};
    }
  }
  if (const TierValue value = WaitingValue(key)) {
    CountHit(Level::kHost, value->size());
    return Found{{value, *value}, Level::kHost};
  }
  if (begun == nullptr && ssd_ != nullptr && ssd_->Contains(key)) {
    if (const Readings started = StartReading({&key, 1}); !started.empty()) {
      bool late = false;
      if (std::optional<Found> found = Await(*started[0], &late); found.has_value() || late) return found;
    }
  }
  CountMiss();
  return std::nullopt;
}

// Nothing: it failed, or it did not come in time, which is counted.
std::optional<Mover::Found> Mover::Await(Reading& reading, bool* late) {
  std::unique_lock lock(reading.mu);
  *late =
      !reading.ended.wait_for(lock, ReadWait(reading.together * kTypicalBytes), [&] { return reading.done; });
  const TierValue value = *late ? nullptr : reading.value;
  lock.unlock();
  if (*late) {
    DiskAnswered(absl::DeadlineExceededError("a read is late"));
    std::lock_guard counted(mu_);
    ++stats_.late;
    ++stats_.level[static_cast<size_t>(Level::kSsd)].misses;
  }
  if (value == nullptr) return std::nullopt;
  CountHit(Level::kSsd, value->size());
  return Found{{value, *value}, Level::kSsd};
}

// What came from SSD was checked when it was read, and lay in host memory since: also that may be damaged
// only there.
std::optional<Mover::Found> Mover::GetIntact(
    const TierKey& key, const std::function<bool(std::span<const uint8_t> value)>& opens) {
  std::optional<Found> found = Get(key);
  if (!found.has_value() || opens(found->value.bytes)) return found;
  CountDamaged(key, host_.get());
  found = Get(key);
  if (!found.has_value() || opens(found->value.bytes)) return found;
  CountDamaged(key, nullptr);
  Erase(key);
  return std::nullopt;
}

// In the open form.
std::optional<TierView> Mover::GetFromHost(const TierKey& key) {
  absl::StatusOr<TierView> value = host_->Get(key);
  if (!value.ok()) {
    if (value.status().code() == absl::StatusCode::kDataLoss) CountDamaged(key, nullptr);
    return std::nullopt;
  }
  if (options_.host_format == BlockFormat::kBf16) return *std::move(value);
  ValueOpener opener(key.id, nullptr, memory_);
  opener.Take(0, value->bytes.size(), value->bytes);
  const TierValue open = std::move(opener).Finish();
  if (open == nullptr) {
    CountDamaged(key, host_.get());
    return std::nullopt;
  }
  return TierView{open, *open};
}

// What Prefetch began, once; null: nothing.
std::shared_ptr<Mover::Reading> Mover::TakeReading(const TierKey& key) {
  std::lock_guard lock(mu_);
  const auto found = reading_.find(key);
  if (found == reading_.end()) return nullptr;
  std::shared_ptr<Reading> reading = std::move(found->second);
  reading_.erase(found);
  std::erase(prefetched_, key);  // else a later reading of the same value is dropped in its stead
  return reading;
}

TierValue Mover::WaitingValue(const TierKey& key) const {
  std::lock_guard lock(mu_);
  const auto waiting = waiting_.find(key);
  return waiting == waiting_.end() ? nullptr : waiting->second.first;
}

// In one pass over what lies together. Empty: the disk is left alone.
Mover::Readings Mover::StartReading(std::span<const TierKey> keys) {
  if (!DiskAllowed()) return {};
  Readings readings;
  for (size_t i = 0; i < keys.size(); ++i) {
    readings.push_back(std::make_shared<Reading>());
    readings.back()->together = keys.size();
  }
  const absl::Status started =
      readers_->Run([this, keys = std::vector<TierKey>(keys.begin(), keys.end()), readings] {
        std::vector<ValueOpener> openers;
        openers.reserve(keys.size());
        for (const TierKey& key : keys) openers.emplace_back(key.id, key_.get(), memory_);
        const std::vector<absl::Status> read = ssd_->GetTogether(
            keys, [&](size_t i, uint64_t offset, uint64_t total, std::span<const uint8_t> bytes) {
              openers[i].Take(offset, total, bytes);
            });
        for (size_t i = 0; i < keys.size(); ++i) {
          TierValue value = Opened(keys[i], read[i], std::move(openers[i]));
          std::lock_guard lock(readings[i]->mu);
          readings[i]->value = std::move(value);
          readings[i]->done = true;
          readings[i]->ended.notify_all();
        }
      });
  return started.ok() ? readings : Readings();
}

// Of a value that was read: what a caller gets, and host memory too; null: a miss.
TierValue Mover::Opened(const TierKey& key, const absl::Status& read, ValueOpener opener) {
  DiskAnswered(read);
  if (!read.ok()) {
    if (read.code() == absl::StatusCode::kDataLoss) CountDamaged(key, nullptr);
    return nullptr;
  }
  const uint32_t parts = opener.parts();
  TierValue value = std::move(opener).Finish();
  if (value == nullptr) {
    CountDamaged(key, ssd_.get());
  } else {
    PutToHost({key, value, parts});
  }
  return value;
}

// Is it only on SSD, and nobody has begun to read it?
bool Mover::MayPrefetch(const TierKey& key) const {
  {
    std::lock_guard lock(mu_);
    if (reading_.contains(key) || waiting_.contains(key)) return false;
  }
  return (host_ == nullptr || !host_->Contains(key)) && ssd_->Contains(key);
}

size_t Mover::ReadAhead(int64_t value_bytes) const {
  constexpr int64_t kBytesMax = int64_t{192} << 20;
  const size_t most = std::min(2 * kReadTogether * static_cast<size_t>(options_.readers), kPrefetchedMax);
  return std::clamp(static_cast<size_t>(kBytesMax / value_bytes), 2 * kReadTogether, most);
}

void Mover::Prefetch(std::span<const TierKey> keys) {
  if (ssd_ == nullptr) return;
  std::vector<TierKey> wanted;
  for (const TierKey& key : keys) {
    if (MayPrefetch(key)) wanted.push_back(key);
  }
  for (size_t first = 0; first < wanted.size(); first += kReadTogether) {
    const auto some = std::span(wanted).subspan(first, std::min(kReadTogether, wanted.size() - first));
    Readings readings = StartReading(some);
    std::lock_guard lock(mu_);
    for (size_t i = 0; i < readings.size(); ++i) {
      if (reading_.emplace(some[i], std::move(readings[i])).second) prefetched_.push_back(some[i]);
    }
    while (prefetched_.size() > kPrefetchedMax) {
      reading_.erase(prefetched_.front());
      prefetched_.pop_front();
    }
  }
}

}  // namespace palimpsest
