#include "storage/tier/faulty_tier.h"

#include <array>
#include <mutex>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

enum Kind {
  kPutError,
  kPutFull,
  kPutLost,
  kGetError,
  kGetCorrupt,
  kGetTruncated,
  kGetMisplaced,
  kSlow,
  kWhere,
  kKinds
};

// splitmix64's mixing: the n-th number of a sequence without state.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class FaultyTierImpl final : public FaultyTier {
 public:
  FaultyTierImpl(std::unique_ptr<Tier> inner, const TierFaults& faults) : inner_(std::move(inner)) {
    SetFaults(faults);
  }

  std::string_view Name() const override { return inner_->Name(); }

  void SetFaults(const TierFaults& faults) override {
    PALIMPSEST_CHECK(faults.slow == 0 || faults.sleep != nullptr, "slow {} without sleep", faults.slow);
    std::lock_guard lock(mu_);
    faults_ = faults;
    drawn_.fill(0);
  }

  TierFaultCounts Counts() const override {
    std::lock_guard lock(mu_);
    return counts_;
  }

  absl::Status Put(const BlockId& id, std::vector<uint8_t> value) override {
    MaybeWait();
    {
      std::lock_guard lock(mu_);
      if (Draw(kPutError, faults_.put_error)) {
        ++counts_.put_errors;
        return Error(absl::StatusCode::kUnavailable, "injected: {} tier failed to store block {}", Name(),
                     id.ToHex());
      }
      if (Draw(kPutFull, faults_.put_full)) {
        ++counts_.put_full;
        return ResourceExhausted("injected: {} tier is full, block {} not stored", Name(), id.ToHex());
      }
      if (Draw(kPutLost, faults_.put_lost)) {
        ++counts_.put_lost;
        return absl::OkStatus();
      }
    }
    return inner_->Put(id, std::move(value));
  }

  absl::StatusOr<TierValue> Get(const BlockId& id) override {
    MaybeWait();
    {
      std::lock_guard lock(mu_);
      if (Draw(kGetError, faults_.get_error)) {
        ++counts_.get_errors;
        return Error(absl::StatusCode::kUnavailable, "injected: {} tier failed to read block {}", Name(),
                     id.ToHex());
      }
    }
    PALIMPSEST_ASSIGN_OR_RETURN(TierValue value, inner_->Get(id));
    std::lock_guard lock(mu_);
    TierValue before = std::exchange(before_, faults_.get_misplaced > 0 ? value : nullptr);
    if (before != nullptr && before != value && Draw(kGetMisplaced, faults_.get_misplaced)) {
      ++counts_.get_misplaced;
      return before;
    }
    if (Draw(kGetCorrupt, faults_.get_corrupt)) {
      ++counts_.get_corrupt;
      std::vector<uint8_t> copy = *value;
      const uint64_t bit = Next(kWhere) % (8 * copy.size());
      copy[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
      return std::make_shared<const std::vector<uint8_t>>(std::move(copy));
    }
    if (Draw(kGetTruncated, faults_.get_truncated)) {
      ++counts_.get_truncated;
      const auto length = static_cast<std::ptrdiff_t>(Next(kWhere) % value->size());
      return std::make_shared<const std::vector<uint8_t>>(value->begin(), value->begin() + length);
    }
    return value;
  }

  bool Contains(const BlockId& id) const override { return inner_->Contains(id); }
  absl::Status Erase(const BlockId& id) override { return inner_->Erase(id); }
  TierStats Stats() const override { return inner_->Stats(); }

 private:
  // Next and Draw are called with mu_ held.
  uint64_t Next(Kind kind) { return Mix(Mix(faults_.seed * kKinds + kind) + drawn_[kind]++); }

  bool Draw(Kind kind, double odds) { return static_cast<double>(Next(kind) >> 11) * 0x1p-53 < odds; }

  void MaybeWait() {
    std::function<void(std::chrono::nanoseconds)> sleep;
    std::chrono::nanoseconds delay{};
    {
      std::lock_guard lock(mu_);
      if (!Draw(kSlow, faults_.slow)) return;
      ++counts_.slow;
      sleep = faults_.sleep;
      delay = faults_.delay;
    }
    sleep(delay);
  }

  const std::unique_ptr<Tier> inner_;
  mutable std::mutex mu_;  // guards what follows
  TierFaults faults_;
  TierFaultCounts counts_;
  std::array<uint64_t, kKinds> drawn_{};  // numbers taken from each kind's sequence
  TierValue before_;                      // kept only while misplacing
};

}  // namespace

std::unique_ptr<FaultyTier> MakeFaultyTier(std::unique_ptr<Tier> inner, const TierFaults& faults) {
  return std::make_unique<FaultyTierImpl>(std::move(inner), faults);
}

}  // namespace palimpsest
