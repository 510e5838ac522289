// What goes down comes back bit for bit, from whichever tier has it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/tensor.h"
#include "tests/storage/mover_fixture.h"

namespace palimpsest {
namespace {

TEST_F(MoverTest, WhatWasPutIsFoundOnBothTiers) {
  for (const bool encrypt : {true, false}) {
    Make(1 << 20, encrypt);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(Put(i));
    ASSERT_TRUE(mover_->Flush(kLong));
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(mover_->OnSsd(Key(i)));
      ExpectFound(i, Level::kHost);
      ASSERT_TRUE(mover_->host()->Erase(Key(i)).ok());
      EXPECT_EQ(ExpectTiles(i, Level::kSsd), static_cast<int>(kParts));
      EXPECT_EQ(ExpectTiles(i, Level::kHost), static_cast<int>(kParts)) << "kept since";
      ExpectFound(i, Level::kSsd);
      ExpectFound(i, Level::kHost);
    }
    EXPECT_FALSE(mover_->Get(Key(99)).has_value());
    const MoverStats stats = mover_->stats();
    EXPECT_EQ(stats.waiting_bytes, 0);
    EXPECT_EQ(stats.level[1].written_bytes, static_cast<int64_t>(20 * kParts * kTile));
    EXPECT_EQ(stats.damaged + stats.late + stats.dropped_full + stats.dropped_refused, 0);
  }
}

TEST_F(MoverTest, WhatIsOnItsWayIsFound) {
  Make(0);
  EXPECT_TRUE(Put(1));  // not committed: the batch is small
  EXPECT_FALSE(mover_->OnSsd(Key(1)));
  EXPECT_TRUE(mover_->Contains(Key(1)));
  ExpectFound(1, Level::kHost);
  EXPECT_EQ(ExpectTiles(1, Level::kHost), static_cast<int>(kParts));
  const Mover::TileRequest beyond[] = {{Key(1), kParts}, {Key(1), 1u << 30}};
  for (const auto& tile : mover_->GetTiles(beyond)) EXPECT_FALSE(tile.has_value());
  ASSERT_TRUE(mover_->Flush(kLong));
  ExpectFound(1, Level::kSsd);
}

TEST_F(MoverTest, TheDiskHoldsNoPlainText) {
  Make(0);
  Put(1);
  ASSERT_TRUE(mover_->Flush(kLong));
  const auto stored = ssd_->Get(Key(1));
  ASSERT_TRUE(stored.ok());
  const std::vector<uint8_t> payload = Payload(1, 0);
  EXPECT_EQ(std::search(stored->bytes.begin(), stored->bytes.end(), payload.begin(), payload.begin() + 16),
            stored->bytes.end());
}

TEST_F(MoverTest, APlainValueInThePlaceOfAnEncryptedOneIsRefused) {
  Make(0);
  ASSERT_TRUE(ssd_->Put(Key(1), Value(1), kParts).ok());
  EXPECT_FALSE(mover_->Get(Key(1)).has_value());
  EXPECT_EQ(mover_->stats().damaged, 1);
  EXPECT_FALSE(ssd_->Contains(Key(1))) << "forgotten";
}

TEST_F(MoverTest, APrefetchedValueIsTakenOnce) {
  for (const int64_t host_bytes : {0, 1 << 20}) {
    Make(host_bytes);
    for (int i = 0; i < 10; ++i) Put(i);
    ASSERT_TRUE(mover_->Flush(kLong));
    std::vector<TierKey> keys;
    for (int i = 0; i < 10; ++i) {
      if (host_bytes > 0) mover_->host()->Erase(Key(i)).IgnoreError();
      keys.push_back(Key(i));
    }
    keys.push_back(Key(99));
    mover_->Prefetch(keys);
    mover_->Prefetch(keys);
    for (int i = 0; i < 10; ++i) {
      const auto found = mover_->Get(Key(i));
      ASSERT_TRUE(found.has_value());
    }
    EXPECT_EQ(ssd_->Stats().hits, 10);
  }
}

// What was taken counts no longer among those that nobody came for, which are dropped when there are many.
TEST_F(MoverTest, NoMoreIsReadAheadThanIsKept) {
  for (const int readers : {1, 8, 256}) {
    const Mover mover({.readers = readers}, nullptr, MakeHostTier({.capacity_bytes = 1 << 20}), nullptr);
    EXPECT_EQ(mover.ReadAhead(int64_t{1} << 30), 16u);
    EXPECT_EQ(mover.ReadAhead(1), readers == 1 ? 16u : readers == 8 ? 128u : 256u);
  }
}

TEST_F(MoverTest, AValueThatIsPrefetchedAgainIsNotDroppedForTheFirstTime) {
  constexpr int kMany = 256;
  Make(/*host_bytes=*/0);
  std::vector<TierKey> keys;
  for (int i = 0; i < kMany; ++i) {
    Put(i);
    keys.push_back(Key(i));
  }
  ASSERT_TRUE(mover_->Flush(kLong));
  const std::span<const TierKey> first = std::span(keys).first(1);
  mover_->Prefetch(first);
  ASSERT_TRUE(mover_->Get(keys[0]).has_value());
  mover_->Prefetch(first);
  mover_->Prefetch(std::span(keys).subspan(1));
  for (const TierKey& key : keys) ASSERT_TRUE(mover_->Get(key).has_value());
  EXPECT_EQ(ssd_->Stats().hits, kMany + 1);
}

TEST_F(MoverTest, ASecondPutOfAKeyWritesNothing) {
  Make(0);
  EXPECT_TRUE(Put(1));
  EXPECT_TRUE(Put(1));
  ASSERT_TRUE(mover_->Flush(kLong));
  EXPECT_TRUE(Put(1));
  ASSERT_TRUE(mover_->Flush(kLong));
  EXPECT_EQ(ssd_->Stats().puts, 1);
  EXPECT_EQ(ssd_->Stats().known_puts, 0);
}

TEST_F(MoverTest, WithoutADiskHostMemoryIsAll) {
  mover_ =
      std::make_unique<Mover>(MoverOptions{}, MakeHostTier({.capacity_bytes = 1 << 20}), nullptr, nullptr);
  EXPECT_TRUE(Put(1));
  mover_->Commit();
  EXPECT_TRUE(mover_->Flush(Duration::zero()));
  ExpectFound(1, Level::kHost);
  mover_->Prefetch(std::vector<TierKey>{Key(1), Key(2)});
  EXPECT_FALSE(mover_->Get(Key(2)).has_value());
  mover_ = std::make_unique<Mover>(MoverOptions{}, nullptr, nullptr, nullptr);
  EXPECT_FALSE(Put(1));
  EXPECT_FALSE(mover_->Get(Key(1)).has_value());
}

// An index and picks are one tile of a whole model, whatever its layers and heads.
TEST_F(MoverTest, WhatIsNoBlockComesBackToo) {
  Make(0);
  TileGeometry index = Geometry(0);
  index.format = kTileDigests;
  const TierKey key = Key(3, ValueKind::kIndex);
  std::vector<uint8_t> value(kEnvelopeHeaderBytes + 77, 9);
  SealTile(key.id, index, value, nullptr);
  ASSERT_TRUE(mover_->Put(key, value, 1));
  ASSERT_TRUE(mover_->Flush(kLong));
  const auto found = mover_->Get(key);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(std::equal(value.begin(), value.end(), found->value.bytes.begin(), found->value.bytes.end()));
  EXPECT_EQ(mover_->stats().damaged, 0);
}

// K and V that count up: finite, and with a range in every channel.
std::vector<uint8_t> CountingValue(int number, std::vector<float>* numbers) {
  std::vector<uint8_t> value;
  for (uint32_t part = 0; part < kParts; ++part) {
    std::vector<uint8_t> tile(kTile);
    for (size_t i = 0; i < kPayload / 2; ++i) {
      const Bf16 x = FloatToBf16(static_cast<float>((i * 37 + part) % 101) / 8 - 5);
      std::memcpy(tile.data() + kEnvelopeHeaderBytes + 2 * i, &x, 2);
      numbers->push_back(Bf16ToFloat(x));
    }
    SealTile(Key(number).id, Geometry(part), tile, nullptr);
    value.insert(value.end(), tile.begin(), tile.end());
  }
  return value;
}

// The numbers of one tile of a CountingValue, after a way through `format`.
void ExpectNear(std::span<const uint8_t> payload, const std::vector<float>& expected, uint32_t part,
                BlockFormat format) {
  const float step = 12.6f / (format == BlockFormat::kInt8 ? 255 : 15);
  for (size_t i = 0; i < kPayload / 2; ++i) {
    Bf16 x;
    std::memcpy(&x, payload.data() + 2 * i, 2);
    EXPECT_NEAR(Bf16ToFloat(x), expected[part * kPayload / 2 + i], 0.6f * step + 0.04f);
  }
}

// The disk holds fewer bytes; what comes back is bf16 again, whole or tile by tile, and near to what it was.
TEST_F(MoverTest, BlocksInFewerBitsComeBackAsBf16) {
  for (const bool encrypt : {true, false}) {
    for (const BlockFormat format : {BlockFormat::kInt8, BlockFormat::kInt4}) {
      Make(0, encrypt, {.ssd_format = format});
      std::vector<float> expected;
      ASSERT_TRUE(mover_->Put(Key(1), CountingValue(1, &expected), kParts));
      EXPECT_EQ(mover_->stats().level[1].put_bytes,
                static_cast<int64_t>(kParts *
                                     (kEnvelopeHeaderBytes + TilePayloadBytes(format, kTokens, kHeadSize))));
      ASSERT_TRUE(Put(2));  // random bits, some of them no numbers: stays as it is
      ASSERT_TRUE(mover_->Flush(kLong));
      const size_t tile = kEnvelopeHeaderBytes + TilePayloadBytes(format, kTokens, kHeadSize);
      EXPECT_EQ(ssd_->Get(Key(1))->bytes.size(), kParts * tile);
      EXPECT_EQ(mover_->stats().level[1].written_bytes, ssd_->Stats().used_bytes);
      EXPECT_EQ(mover_->stats().level[0].put_bytes, 0) << "there is no host memory";
      ExpectFound(2, Level::kSsd);
      const auto found = mover_->Get(Key(1));
      ASSERT_TRUE(found.has_value());
      ASSERT_EQ(found->value.bytes.size(), kParts * kTile);
      for (uint32_t part = 0; part < kParts; ++part) {
        const auto opened = OpenTile(Key(1).id, Geometry(part),
                                     found->value.bytes.subspan(part * kTile, kTile), nullptr, nullptr);
        ASSERT_TRUE(opened.ok()) << opened.status();
        const std::vector<Mover::TileRequest> request = {{Key(1), part}};
        const auto alone = mover_->GetTiles(request)[0];
        ASSERT_TRUE(alone.has_value());
        EXPECT_EQ(alone->geometry, Geometry(part));
        EXPECT_TRUE(std::equal(alone->payload.begin(), alone->payload.end(), opened->payload.begin(),
                               opened->payload.end()));
        ExpectNear(opened->payload, expected, part, format);
      }
    }
  }
}

// Host memory alone: fewer bytes there, bf16 for who asks; and SSD is written from what was put.
TEST_F(MoverTest, HostMemoryHoldsBlocksInFewerBits) {
  for (const BlockFormat format : {BlockFormat::kInt8, BlockFormat::kInt4}) {
    Make(1 << 20, /*encrypt=*/true, {.host_format = format});
    std::vector<float> expected;
    const std::vector<uint8_t> value = CountingValue(1, &expected);
    ASSERT_TRUE(mover_->Put(Key(1), value, kParts));
    ASSERT_TRUE(mover_->Flush(kLong));
    const size_t tile = kEnvelopeHeaderBytes + TilePayloadBytes(format, kTokens, kHeadSize);
    EXPECT_EQ(mover_->host()->Get(Key(1))->bytes.size(), kParts * tile);
    EXPECT_EQ(mover_->stats().level[0].put_bytes, static_cast<int64_t>(kParts * tile));
    EXPECT_EQ(mover_->stats().level[0].written_bytes, static_cast<int64_t>(kParts * tile));
    EXPECT_EQ(mover_->stats().level[1].put_bytes, static_cast<int64_t>(value.size()));
    ASSERT_TRUE(mover_->Put(Key(1), value, kParts));
    EXPECT_EQ(mover_->stats().level[0].put_bytes, static_cast<int64_t>(kParts * tile)) << "known";
    EXPECT_EQ(mover_->stats().level[1].put_bytes, static_cast<int64_t>(value.size())) << "known";
    const auto near = mover_->Get(Key(1));
    ASSERT_TRUE(near.has_value());
    EXPECT_EQ(near->level, Level::kHost);
    ASSERT_EQ(near->value.bytes.size(), value.size());
    for (uint32_t part = 0; part < kParts; ++part) {
      const auto opened = OpenTile(Key(1).id, Geometry(part), near->value.bytes.subspan(part * kTile, kTile),
                                   nullptr, nullptr);
      ASSERT_TRUE(opened.ok()) << opened.status();
      ExpectNear(opened->payload, expected, part, format);
    }
    ASSERT_TRUE(mover_->host()->Erase(Key(1)).ok());
    const auto far = mover_->Get(Key(1));
    ASSERT_TRUE(far.has_value());
    EXPECT_EQ(far->level, Level::kSsd);
    EXPECT_TRUE(std::equal(value.begin(), value.end(), far->value.bytes.begin(), far->value.bytes.end()));
    EXPECT_EQ(mover_->host()->Get(Key(1))->bytes.size(), kParts * tile);  // it was brought back there
    EXPECT_EQ(mover_->stats().damaged, 0);
  }
}

// Any order of calls from several threads over a disk with every fault: what comes is what was put.
TEST_F(MoverTest, ThreadsSeeWholeValuesOnly) {
  MoverOptions options;
  options.batch_bytes = 4 * kParts * kTile;
  options.retry = std::chrono::milliseconds(1);
  options.tile_cache_bytes = 10 * kPayload;
  options.breaker_pause = std::chrono::milliseconds(1);
  Make(6 * kParts * static_cast<int64_t>(kTile), true, options);
  ssd_->SetFaults({.seed = 3,
                   .put_error = 0.1,
                   .put_lost = 0.1,
                   .get_error = 0.1,
                   .get_corrupt = 0.1,
                   .get_truncated = 0.1,
                   .get_misplaced = 0.1});
  std::atomic<int> whole{0}, tiles{0}, wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      RngSequence rng{Rng(t)};
      for (int call = 0; call < 400; ++call) {
        const int number = static_cast<int>(rng.Below(30));
        switch (rng.Below(5)) {
          case 0:
            Put(number);
            break;
          case 1:
            if (const auto found = mover_->Get(Key(number))) {
              const std::vector<uint8_t> expected = Value(number);
              wrong += !std::equal(found->value.bytes.begin(), found->value.bytes.end(), expected.begin(),
                                   expected.end());
              ++whole;
            }
            break;
          case 2:
            mover_->Prefetch(std::vector<TierKey>{Key(number), Key(number + 1)});
            break;
          case 3:
            tiles += ExpectTiles(number);
            break;
          default:
            mover_->Commit();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(whole, 50);
  EXPECT_GT(tiles, 50);
  EXPECT_TRUE(mover_->Flush(kLong));
  EXPECT_EQ(mover_->stats().waiting_bytes, 0);
}

}  // namespace
}  // namespace palimpsest
