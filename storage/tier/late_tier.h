// A tier that could not be opened when it was asked for (a full disk, a folder that is not there yet): until
// it can, all of it is missed, and whoever has something to put tries again.
//
// Until   : Put returns why it is not open; at most each `retry` it tries to open first. Stats has no room.
// After   : it is the inner tier.
// Threads : any thread, as far as the inner tier allows; one of them opens, which blocks no other but Puts.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "proto/base/clock.h"
#include "storage/tier.h"

namespace palimpsest {

class LateTier final : public Tier {
 public:
  struct Options {
    std::string name;
    absl::Status why;  // it is not open
    std::function<absl::StatusOr<std::unique_ptr<Tier>>()> open;
    const Clock* clock;
    Duration retry = std::chrono::seconds(5);
  };
  explicit LateTier(Options options);

  // Tries now; OK: it is open.
  absl::Status Open();
  // Nullopt: it is open.
  std::optional<absl::Status> WhyNot() const;

  std::string_view Name() const override { return options_.name; }
  absl::Status Put(std::span<const TierItem> items) override;
  absl::StatusOr<TierView> Get(const TierKey& key) override;
  absl::StatusOr<TierView> GetPart(const TierKey& key, uint32_t part) override;
  std::vector<absl::Status> GetTogether(std::span<const TierKey> keys, const TakeParts& take) override;
  void Touch(std::span<const TierKey> keys) override;
  bool Contains(const TierKey& key) const override;
  absl::Status Erase(const TierKey& key) override;
  std::vector<TierEntry> List() const override;
  TierStats Stats() const override;

 private:
  Tier* inner() const { return open_.load(std::memory_order_acquire); }
  void TryToOpen();  // with opening_ held
  absl::Status Miss(const TierKey& key);

  const Options options_;
  std::mutex opening_;  // one opens at a time; guards tried_ and owned_
  TimePoint tried_;
  std::unique_ptr<Tier> owned_;
  mutable std::mutex why_mutex_;  // held for no longer than a copy takes
  absl::Status why_;
  std::atomic<Tier*> open_{nullptr};
  std::atomic<int64_t> misses_{0}, refused_{0};
};

}  // namespace palimpsest
