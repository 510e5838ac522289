#include "storage/tier/late_tier.h"

#include <utility>

#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest {

LateTier::LateTier(Options options)
    : options_(std::move(options)), tried_(options_.clock->Now()), why_(options_.why) {
  PALIMPSEST_CHECK(!why_.ok(), "tier {} is not open, for no reason", options_.name);
}

absl::Status LateTier::Open() {
  const std::lock_guard opening(opening_);
  TryToOpen();
  return WhyNot().value_or(absl::OkStatus());
}

void LateTier::TryToOpen() {
  if (inner() != nullptr) return;
  absl::StatusOr<std::unique_ptr<Tier>> opened = options_.open();
  tried_ = options_.clock->Now();
  if (!opened.ok()) {
    const std::lock_guard lock(why_mutex_);
    why_ = opened.status();
    return;
  }
  PALIMPSEST_LOG(kInfo, "tier {} is open now", LogName(options_.name));
  owned_ = *std::move(opened);
  open_.store(owned_.get(), std::memory_order_release);
}

std::optional<absl::Status> LateTier::WhyNot() const {
  if (inner() != nullptr) return std::nullopt;
  const std::lock_guard lock(why_mutex_);
  return why_;
}

absl::Status LateTier::Put(std::span<const TierItem> items) {
  if (inner() == nullptr) {
    PALIMPSEST_RETURN_IF_ERROR(CheckTierItems(Name(), items));
    const std::lock_guard opening(opening_);
    if (options_.clock->Now() >= AddSaturated(tried_, options_.retry)) TryToOpen();
    if (std::optional<absl::Status> why = WhyNot(); why.has_value()) {
      refused_ += std::ssize(items);
      return *std::move(why);
    }
  }
  return inner()->Put(items);
}

absl::Status LateTier::Miss(const TierKey& key) {
  ++misses_;
  return NotFound("{} is not in the {} tier, which is not open", key.ToString(), Name());
}

absl::StatusOr<TierView> LateTier::Get(const TierKey& key) {
  Tier* const tier = inner();
  if (tier == nullptr) return Miss(key);
  return tier->Get(key);
}

absl::StatusOr<TierView> LateTier::GetPart(const TierKey& key, uint32_t part) {
  Tier* const tier = inner();
  if (tier == nullptr) return Miss(key);
  return tier->GetPart(key, part);
}

std::vector<absl::Status> LateTier::GetTogether(std::span<const TierKey> keys, const TakeParts& take) {
  if (Tier* const tier = inner(); tier != nullptr) return tier->GetTogether(keys, take);
  std::vector<absl::Status> missed;
  missed.reserve(keys.size());
  for (const TierKey& key : keys) missed.push_back(Miss(key));
  return missed;
}

void LateTier::Touch(std::span<const TierKey> keys) {
  if (Tier* const tier = inner(); tier != nullptr) tier->Touch(keys);
}

bool LateTier::Contains(const TierKey& key) const {
  const Tier* const tier = inner();
  return tier != nullptr && tier->Contains(key);
}

absl::Status LateTier::Erase(const TierKey& key) {
  Tier* const tier = inner();
  return tier == nullptr ? absl::OkStatus() : tier->Erase(key);
}

std::vector<TierEntry> LateTier::List() const {
  const Tier* const tier = inner();
  return tier == nullptr ? std::vector<TierEntry>() : tier->List();
}

TierStats LateTier::Stats() const {
  const Tier* const tier = inner();
  TierStats stats = tier == nullptr ? TierStats() : tier->Stats();
  stats.misses += misses_;
  stats.refused_puts += refused_;
  return stats;
}

}  // namespace palimpsest
