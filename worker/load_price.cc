#include "worker/load_price.h"

#include <algorithm>

namespace palimpsest {

bool LoadPrices::IsFresh(const Price& price, TimePoint now) {
  constexpr Duration kFresh = std::chrono::seconds(30);
  return price.count > 0 && now - price.measured < kFresh;
}

void LoadPrices::Observe(Level level, int64_t tokens, double seconds, TimePoint now) {
  if (tokens <= 0) return;
  Price& price = prices_[static_cast<size_t>(level)];
  if (!IsFresh(price, now)) price.count = 0;
  price.last[price.count++ % kKept] = {tokens, seconds};
  price.measured = now;
}

double LoadPrices::Of(Level level, TimePoint now) const {
  const Price& price = prices_[static_cast<size_t>(level)];
  if (!IsFresh(price, now) || price.count < kEnough) return 0;
  One all, slowest;
  for (size_t i = 0; i < std::min(price.count, kKept); ++i) {
    all.tokens += price.last[i].tokens;
    all.seconds += price.last[i].seconds;
    if (price.last[i].seconds > slowest.seconds) slowest = price.last[i];
  }
  return (all.seconds - slowest.seconds) / static_cast<double>(all.tokens - slowest.tokens);
}

}  // namespace palimpsest
