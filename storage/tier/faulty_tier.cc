#include "storage/tier/faulty_tier.h"

#include <array>
#include <mutex>
#include <optional>
#include <string>
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

  absl::Status Put(std::span<const TierItem> items) override {
    MaybeWait();
    {
      const std::string what =
          fmt::format("{} ({} items)", items.empty() ? "nothing" : items[0].key.ToString(), items.size());
      std::lock_guard lock(mu_);
      if (Draw(kPutError, faults_.put_error)) {
        ++counts_.put_errors;
        return Error(absl::StatusCode::kUnavailable, "injected: {} tier failed to store {}", Name(), what);
      }
      if (Draw(kPutFull, faults_.put_full)) {
        ++counts_.put_full;
        return ResourceExhausted("injected: {} tier is full, {} not stored", Name(), what);
      }
      if (Draw(kPutLost, faults_.put_lost)) {
        ++counts_.put_lost;
        return absl::OkStatus();
      }
    }
    return inner_->Put(items);
  }

  absl::StatusOr<TierView> Get(const TierKey& key) override {
    PALIMPSEST_RETURN_IF_ERROR(BeforeGet(key));
    PALIMPSEST_ASSIGN_OR_RETURN(TierView view, inner_->Get(key));
    return AfterGet({key, kWhole, std::move(view)});
  }

  absl::StatusOr<TierView> GetPart(const TierKey& key, uint32_t part) override {
    PALIMPSEST_RETURN_IF_ERROR(BeforeGet(key));
    PALIMPSEST_ASSIGN_OR_RETURN(TierView view, inner_->GetPart(key, part));
    return AfterGet({key, part, std::move(view)});
  }

  std::vector<absl::Status> GetTogether(std::span<const TierKey> keys, const TakeParts& take) override {
    std::vector<absl::Status> answers;
    std::vector<TierKey> asked;
    std::vector<size_t> places;  // of what is asked for among the answers
    for (const TierKey& key : keys) {
      answers.push_back(BeforeGet(key));
      if (!answers.back().ok()) continue;
      places.push_back(answers.size() - 1);
      asked.push_back(key);
    }
    GatheredValues read(asked.size());
    const std::vector<absl::Status> inner = inner_->GetTogether(asked, read.take());
    for (size_t i = 0; i < asked.size(); ++i) {
      answers[places[i]] = inner[i];
      if (!inner[i].ok()) continue;
      const TierView view = AfterGet({asked[i], kWhole, ViewOf(std::move(read[i]))});
      take(places[i], 0, view.bytes.size(), view.bytes);
    }
    return answers;
  }

  void Touch(std::span<const TierKey> keys) override { inner_->Touch(keys); }
  bool Contains(const TierKey& key) const override { return inner_->Contains(key); }
  absl::Status Erase(const TierKey& key) override { return inner_->Erase(key); }
  std::vector<TierEntry> List() const override { return inner_->List(); }
  TierStats Stats() const override { return inner_->Stats(); }

 private:
  static constexpr int64_t kWhole = -1;
  struct Read {
    TierKey key;
    int64_t part = kWhole;
    TierView view;
  };

  absl::Status BeforeGet(const TierKey& key) {
    MaybeWait();
    std::lock_guard lock(mu_);
    if (!Draw(kGetError, faults_.get_error)) return absl::OkStatus();
    ++counts_.get_errors;
    return Error(absl::StatusCode::kUnavailable, "injected: {} tier failed to read {}", Name(),
                 key.ToString());
  }

  TierView AfterGet(const Read& read) {
    std::lock_guard lock(mu_);
    TierView view = read.view;
    std::optional<Read> before;
    if (faults_.get_misplaced > 0) before = read;
    std::swap(before, before_);
    if (before && (before->key != read.key || before->part != read.part) &&
        Draw(kGetMisplaced, faults_.get_misplaced)) {
      ++counts_.get_misplaced;
      return before->view;
    }
    if (Draw(kGetCorrupt, faults_.get_corrupt)) {
      ++counts_.get_corrupt;
      std::vector<uint8_t> copy(view.bytes.begin(), view.bytes.end());
      const uint64_t bit = Next(kWhere) % (8 * copy.size());
      copy[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
      return ViewOf(std::move(copy));
    }
    if (Draw(kGetTruncated, faults_.get_truncated)) {
      ++counts_.get_truncated;
      const auto shorter = view.bytes.first(Next(kWhere) % view.bytes.size());
      return ViewOf({shorter.begin(), shorter.end()});
    }
    return view;
  }

  static TierView ViewOf(std::vector<uint8_t> bytes) {
    const auto owner = std::make_shared<const std::vector<uint8_t>>(std::move(bytes));
    return {owner, *owner};
  }

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
  std::optional<Read> before_;            // kept only while misplacing
};

}  // namespace

std::unique_ptr<FaultyTier> MakeFaultyTier(std::unique_ptr<Tier> inner, const TierFaults& faults) {
  return std::make_unique<FaultyTierImpl>(std::move(inner), faults);
}

}  // namespace palimpsest
