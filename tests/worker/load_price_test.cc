#include "worker/load_price.h"

#include <gtest/gtest.h>

namespace palimpsest {
namespace {

void Observe(LoadPrices& prices, int times, double seconds, TimePoint now) {
  for (int i = 0; i < times; ++i) prices.Observe(Level::kSsd, 64, seconds, now);
}

TEST(LoadPricesTest, WhatWasNotMeasuredEnoughHasNone) {
  LoadPrices prices;
  const TimePoint now;
  EXPECT_EQ(prices.Of(Level::kSsd, now), 0);
  prices.Observe(Level::kSsd, 0, 5, now);
  Observe(prices, 7, 0.64, now);
  EXPECT_EQ(prices.Of(Level::kSsd, now), 0);
  Observe(prices, 1, 0.64, now);
  EXPECT_DOUBLE_EQ(prices.Of(Level::kSsd, now), 0.01);
  EXPECT_EQ(prices.Of(Level::kHost, now), 0) << "levels are apart";
}

TEST(LoadPricesTest, OneHiccupSaysNothingAndManySay) {
  LoadPrices prices;
  const TimePoint now;
  Observe(prices, 20, 0.64, now);
  Observe(prices, 1, 2, now);
  EXPECT_DOUBLE_EQ(prices.Of(Level::kSsd, now), 0.01);
  Observe(prices, 15, 6.4, now);
  EXPECT_GT(prices.Of(Level::kSsd, now), 0.09);
  Observe(prices, 16, 0.64, now);
  EXPECT_DOUBLE_EQ(prices.Of(Level::kSsd, now), 0.01) << "what is long ago";
}

TEST(LoadPricesTest, ABadHourIsForgotten) {
  LoadPrices prices;
  TimePoint now;
  Observe(prices, 16, 640, now);
  now += std::chrono::seconds(29);
  EXPECT_EQ(prices.Of(Level::kSsd, now), 10);
  now += std::chrono::seconds(1);
  EXPECT_EQ(prices.Of(Level::kSsd, now), 0);
  Observe(prices, 8, 0.64, now);
  EXPECT_DOUBLE_EQ(prices.Of(Level::kSsd, now), 0.01) << "as if it had never been slow";
}

}  // namespace
}  // namespace palimpsest
