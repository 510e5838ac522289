#include "storage/value_memory.h"

#include <algorithm>
#include <utility>

namespace palimpsest {

std::vector<uint8_t> ValueMemory::Take(size_t bytes) {
  {
    std::lock_guard lock(mu_);
    const auto fits = std::find_if(kept_.rbegin(), kept_.rend(), [bytes](const std::vector<uint8_t>& kept) {
      return kept.size() == bytes;
    });
    if (fits != kept_.rend()) {
      std::vector<uint8_t> value = std::move(*fits);
      kept_.erase(std::next(fits).base());
      kept_bytes_ -= bytes;
      return value;
    }
  }
  return std::vector<uint8_t>(bytes);
}

TierValue ValueMemory::Share(std::vector<uint8_t> value) {
  auto* const shared = new std::vector<uint8_t>(std::move(value));
  return {shared, [memory = weak_from_this()](std::vector<uint8_t>* done) {
            if (const auto kept = memory.lock()) kept->GiveBack(std::move(*done));
            delete done;
          }};
}

size_t ValueMemory::kept_bytes() const {
  std::lock_guard lock(mu_);
  return kept_bytes_;
}

void ValueMemory::GiveBack(std::vector<uint8_t> value) {
  std::vector<std::vector<uint8_t>> freed;  // outside the lock
  std::lock_guard lock(mu_);
  kept_bytes_ += value.size();
  kept_.push_back(std::move(value));
  while (kept_bytes_ > kKeptBytes) {
    kept_bytes_ -= kept_.front().size();
    freed.push_back(std::move(kept_.front()));
    kept_.pop_front();
  }
}

}  // namespace palimpsest
