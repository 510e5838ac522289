// "From cache" equals "recomputed" bit for bit, whichever tier the blocks come from; usage and receipt say
// where they came from.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <thread>

#include "storage/envelope.h"
#include "storage/tier/faulty_tier.h"
#include "tests/testing/temporary_folder.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

constexpr int64_t kPrefix = 21, kDocument = 200, kShared = kPrefix + kDocument;  // 1 + 4 groups
constexpr int64_t kHostBytes = 1 << 24;

class CacheTest : public ::testing::TestWithParam<Numerics> {
 protected:
  void Make(int64_t host_bytes, int64_t chunk_tokens = 100) {
    engine_ = MakeTinyEngine(
        model_,
        {.numerics = GetParam(), .chunk_tokens = chunk_tokens, .host_bytes = host_bytes, .tokenizer = false});
  }
  Outcome Ask(std::vector<Segment> segments) { return RunOk(*engine_, MakeRequest(std::move(segments), 5)); }
  int64_t StoredBytes(int64_t rows) const { return engine_->store().shape().group_bytes(rows); }
  int64_t SharedStoredBytes() const {
    return StoredBytes(kPrefix) + 3 * StoredBytes(64) + StoredBytes(kDocument - 192);
  }

  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
  const std::vector<Segment> prompt_ = Prompt(kDocument, 17);
  std::unique_ptr<Engine> engine_;
};

TEST_P(CacheTest, FromTheDeviceIsFromScratch) {
  Make(0);
  const Outcome fresh = Ask(prompt_), again = Ask(prompt_);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_EQ(fresh.usage.cached_tokens(), 0);
  EXPECT_EQ(again.usage.cached_tokens(), kShared);
  EXPECT_EQ(engine_->store().stats().hits_device, 5);
  ExpectAllReturned(*engine_);
}

TEST_P(CacheTest, FromTheHostIsFromScratch) {
  Make(kHostBytes);
  const Outcome fresh = Ask(prompt_);
  ExpectAllReturned(*engine_);
  const Outcome again = Ask(prompt_);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_EQ(again.usage.cached_tokens(), kShared);
  EXPECT_EQ(engine_->store().stats().hits_host, 5);
  EXPECT_EQ(engine_->store().stats().lost, 0);
}

// A slow tier is tried for some blocks; then computing costs less, until its price is old.
TEST_P(CacheTest, WhatCostsMoreToBringThanToComputeIsComputed) {
  FaultyTier* tier = nullptr;
  TinyEngineOptions options{
      .numerics = GetParam(), .chunk_tokens = 100, .host_bytes = kHostBytes, .tokenizer = false};
  options.wrap_host = [&](std::unique_ptr<Tier> inner) {
    auto wrapped = MakeFaultyTier(std::move(inner), {});
    tier = wrapped.get();
    return wrapped;
  };
  engine_ = MakeTinyEngine(model_, options);
  const Outcome fresh = Ask(prompt_);
  ExpectAllReturned(*engine_);
  tier->SetFaults({.slow = 1,
                   .delay = std::chrono::milliseconds(150),
                   .sleep = [](std::chrono::nanoseconds delay) { std::this_thread::sleep_for(delay); }});
  const Outcome slow = Ask(prompt_);
  EXPECT_EQ(slow.usage.cached_tokens(), kShared);
  EXPECT_EQ(slow.receipt.load_price().declined_tokens(), 0);
  ExpectAllReturned(*engine_);
  const Outcome slow_again = Ask(prompt_);  // some of it; then there is a price
  ExpectAllReturned(*engine_);
  tier->SetFaults({});
  const Outcome declined = Ask(prompt_), on_device = Ask(prompt_);
  EXPECT_EQ(declined.usage.cached_tokens(), 0);
  EXPECT_EQ(declined.receipt.load_price().declined_tokens(), kShared);
  EXPECT_GT(declined.receipt.load_price().host_seconds(),
            2 * declined.receipt.load_price().compute_seconds());
  EXPECT_EQ(on_device.usage.cached_tokens(), kShared) << "there it costs nothing";
  for (const Outcome* outcome : {&slow, &slow_again, &declined, &on_device}) {
    EXPECT_EQ(Difference(fresh, *outcome), "");
  }
}

// F9: reads that never return. A request waits for the deadline once, and after a few such the disk is left
// alone; no answer fails or differs, and when the disk is back its blocks are found again.
TEST_P(CacheTest, AHungDiskCostsItsDeadlineAndNothingElse) {
  const TemporaryFolder folder;
  std::atomic<bool> hangs{false};
  FaultyTier* tier = nullptr;
  TinyEngineOptions options{.numerics = GetParam(), .chunk_tokens = 100, .tokenizer = false};
  options.ssd_folder = folder.path() + "/tier";
  options.mover.read_wait = std::chrono::milliseconds(20);
  options.mover.breaker_failures = 3;
  options.mover.breaker_pause = std::chrono::seconds(3);  // a late read that ends well ends it before
  options.wrap_ssd = [&](std::unique_ptr<Tier> inner) {
    auto wrapped =
        MakeFaultyTier(std::move(inner), {.slow = 1, .sleep = [&](std::chrono::nanoseconds) {
                                            while (hangs)
                                              std::this_thread::sleep_for(std::chrono::milliseconds(1));
                                          }});
    tier = wrapped.get();
    return wrapped;
  };
  engine_ = MakeTinyEngine(model_, options);
  const Outcome fresh = Ask(prompt_);
  ASSERT_TRUE(engine_->mover().Flush(std::chrono::seconds(20)));
  engine_.reset();
  engine_ = MakeTinyEngine(model_, options);
  hangs = true;
  int asked = 0;
  for (; asked < 10 && !engine_->mover().stats().disk_off; ++asked) {
    const int64_t late_before = engine_->mover().stats().late;
    const Outcome late = Ask(prompt_);
    EXPECT_EQ(Difference(fresh, late), "");
    EXPECT_LE(engine_->mover().stats().late, late_before + 1) << "the rest is computed, nothing asked again";
    EXPECT_EQ(late.usage.cached_tokens(), 0);
    EXPECT_GT(late.receipt.degraded_size(), 0);
    ExpectAllReturned(*engine_);  // the next one needs the disk again
  }
  EXPECT_LE(engine_->mover().stats().late, 3) << "what was late before it was left alone";
  const int64_t reads = tier->Counts().slow;
  EXPECT_EQ(Difference(fresh, Ask(prompt_)), "");
  EXPECT_EQ(tier->Counts().slow, reads) << "it was left alone";
  ExpectAllReturned(*engine_);
  hangs = false;
  for (int i = 0; i < 500 && engine_->mover().stats().disk_off; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const Outcome back = Ask(prompt_);
    EXPECT_EQ(Difference(fresh, back), "");
    ExpectAllReturned(*engine_);
  }
  const Outcome back = Ask(prompt_);
  EXPECT_EQ(Difference(fresh, back), "");
  // From SSD again, unless its late reads made that dearer than computing, for a while.
  EXPECT_EQ(back.usage.cached_tokens() + back.receipt.load_price().declined_tokens(), kShared);
}

// F8 at the start: what stands in the way of the tier keeps nobody from asking, and is no matter once it is
// gone.
TEST_P(CacheTest, ATierThatCannotBeOpenedAtTheStartIsOpenedLater) {
  const TemporaryFolder folder;
  ManualClock clock;
  TinyEngineOptions options{.numerics = GetParam(), .tokenizer = false, .clock = &clock};
  options.ssd_folder = folder.path() + "/tier";
  options.mover.retry = std::chrono::milliseconds(1);
  const std::string own = options.ssd_folder + "/0";  // no folder, for now
  std::filesystem::create_directory(options.ssd_folder);
  std::ofstream(own).put('x');
  engine_ = MakeTinyEngine(model_, options);
  const Outcome without = Ask(prompt_);
  ASSERT_TRUE(engine_->mover().Flush(std::chrono::seconds(20)));
  EXPECT_GT(engine_->mover().stats().dropped_refused, 0);
  ASSERT_GT(without.receipt.degraded_size(), 0);
  EXPECT_NE(without.receipt.degraded(0).find("without the ssd tier for now"), std::string::npos)
      << without.receipt.degraded(0);

  std::filesystem::remove(own);
  clock.Advance(std::chrono::seconds(5));
  const std::vector<Segment> other = Prompt(kDocument, 17, /*seed=*/2);
  const Outcome opening = Ask(other);
  ASSERT_TRUE(engine_->mover().Flush(std::chrono::seconds(20)));
  engine_.reset();
  engine_ = MakeTinyEngine(model_, options);
  const Outcome again = Ask(other);
  EXPECT_EQ(Difference(opening, again), "");
  EXPECT_EQ(again.usage.cached_tokens(), kDocument) << "the prefix was read when nothing took it";
  EXPECT_EQ(again.receipt.degraded_size(), 0);
  engine_.reset();
}

// What is written together is a part of the tier, however small that is: of a document that it cannot hold
// some blocks stay.
TEST_P(CacheTest, ASmallSsdKeepsSomeBlocksOfALongDocument) {
  constexpr int64_t kSsdBytes = 64 << 10, kLong = 600;
  const TemporaryFolder folder;
  EngineOptions options;
  options.backend = {.isa = GetParam().isa, .threads = {.threads = 2, .pin = false, .spin_us = 20}};
  options.weights = GetParam().format;
  options.ssd = {.folder = folder.path() + "/tier", .bytes = kSsdBytes, .key_file = folder.path() + "/key"};
  auto engine = Engine::Create(model_, /*tokenizer=*/nullptr, options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_GT((*engine)->store().shape().group_bytes(kLong), 2 * kSsdBytes);
  const Outcome ingest = RunOk(**engine, MakeIngest(Prompt(kLong, 0)));
  EXPECT_EQ(ingest.receipt.degraded_size(), 0);
  const MoverStats stats = (*engine)->mover().stats();
  EXPECT_EQ(stats.dropped_refused + stats.dropped_full, 0);
  const TierStats ssd = (*engine)->mover().ssd()->Stats();
  EXPECT_GT(ssd.used_bytes, kSsdBytes / 2);
  EXPECT_LE(ssd.used_bytes, kSsdBytes);
}

TEST_P(CacheTest, ComputedAgainIsFromScratch) {
  Make(0);
  std::vector<Segment> known = prompt_;
  known[1].known = true;
  const Outcome fresh = Ask(prompt_);
  ExpectAllReturned(*engine_);
  const Outcome again = Ask(known);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_EQ(again.usage.cached_tokens(), 0);
  EXPECT_EQ(fresh.receipt.recomputed_tokens(), 0) << "nobody knew it";
  EXPECT_EQ(again.receipt.recomputed_tokens(), kDocument);
  EXPECT_EQ(engine_->store().stats().lost, 5);
  EXPECT_EQ(Ask(known).receipt.recomputed_tokens(), 0) << "now it is there";
}

// The host holds three of five groups, and of those not the first; what it has to give is used.
TEST_P(CacheTest, AHostThatIsTooSmallIsAMiss) {
  Make(1);
  Make(3 * StoredBytes(64));
  const Outcome fresh = Ask(prompt_);
  EXPECT_GT(engine_->host_tier()->Stats().evictions, 0);
  ExpectAllReturned(*engine_);
  EXPECT_GT(engine_->store().stats().lost, 0);
  const Outcome again = Ask(prompt_);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_EQ(again.usage.cached_tokens(), kTileSlots);
}

// What is left of it can be begun with: of 4 groups of the document, the last of 8 tokens, 2 go for
// another's.
TEST_P(CacheTest, OfADocumentTheTailGoesFirst) {
  Make(1);
  Make(SharedStoredBytes() + 2 * StoredBytes(64));
  const Outcome fresh = Ask(prompt_);
  Ask(Prompt(3 * kTileSlots, 17, 2, 0));
  engine_->store().DropUnpinned();
  const Outcome again = Ask(prompt_);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_EQ(again.usage.cached_tokens(), kPrefix + 2 * kTileSlots);
  ExpectAllReturned(*engine_);
}

// The same of what is on the device alone.
TEST_P(CacheTest, OnTheDeviceTheTailGoesFirstToo) {
  TinyEngineOptions options{.numerics = GetParam(), .chunk_tokens = 100, .tokenizer = false};
  options.arena_groups = 9;
  engine_ = MakeTinyEngine(model_, options);
  const Outcome fresh = Ask(prompt_);
  Ask(Prompt(4 * kTileSlots, 17, 2, 0));
  const Outcome again = Ask(prompt_);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_GE(again.usage.cached_tokens(), kPrefix + kTileSlots);
  EXPECT_LT(again.usage.cached_tokens(), kShared);
}

TEST_P(CacheTest, ADocumentWithTheSameBeginningSharesItsBlocks) {
  std::vector<Segment> other = prompt_;
  other[1].tokens[130] ^= 1;  // in the third block
  Make(0);
  const Outcome fresh = Ask(other);
  Make(kHostBytes);
  Ask(prompt_);
  const Outcome shared = Ask(other);
  EXPECT_EQ(Difference(fresh, shared), "");
  EXPECT_EQ(shared.usage.cached_tokens(), kPrefix + 128);
  // Another prefix: nothing is the same, although the document is.
  other[0].tokens[3] ^= 1;
  EXPECT_EQ(Ask(other).usage.cached_tokens(), 0);
}

TEST_P(CacheTest, AnIngestLeavesWhatAnAskFinds) {
  Make(kHostBytes);
  const Outcome fresh = Ask(prompt_);
  Make(kHostBytes);
  const std::vector<Segment> shared(prompt_.begin(), prompt_.begin() + 2);
  const Outcome ingest = RunOk(*engine_, MakeIngest(shared));
  EXPECT_EQ(ingest.blocks, 2 * 4) << "of the document, in two layers";
  EXPECT_EQ(ingest.finish_reason, "stop");
  EXPECT_TRUE(ingest.tokens.empty());
  EXPECT_EQ(Difference(fresh, Ask(prompt_)), "");
  const Outcome again = RunOk(*engine_, MakeIngest(shared));
  EXPECT_EQ(again.usage.cached_tokens(), kShared);
  EXPECT_EQ(again.receipt.resident_tokens(), kShared);
}

// Logits come from running the last token, so its block is never taken from a tier.
TEST_P(CacheTest, ThePromptsLastBlockIsRunForItsLogits) {
  Make(kHostBytes);
  const std::vector<Segment> shared(prompt_.begin(), prompt_.begin() + 2);
  const Outcome fresh = Ask(shared), again = Ask(shared);
  EXPECT_EQ(Difference(fresh, again), "");
  EXPECT_EQ(again.usage.cached_tokens(), kPrefix + 192);
  EXPECT_EQ(engine_->store().stats().device_groups, 5) << "sealed once more, it is the same group";
}

// The second finds what the first has sealed so far, or seals the same blocks a moment later.
TEST_P(CacheTest, RequestsForOneDocumentAtOnceShareItsBlocks) {
  Make(0, 37);
  const Outcome alone = Ask(prompt_);
  for (const int steps_between : {0, 1, 3, 5}) {
    Make(kHostBytes, 37);
    std::vector<Engine::JobId> jobs;
    for (int i = 0; i < 3; ++i) {
      jobs.push_back(engine_->Submit(MakeRequest(prompt_, 5)).value());
      for (int step = 0; step < steps_between; ++step) engine_->Step();
    }
    int64_t spilled = 0;
    for (const Outcome& outcome : Drain(*engine_, jobs)) {
      EXPECT_EQ(Difference(alone, outcome), "");
      spilled += outcome.receipt.spilled_bytes().host();
    }
    EXPECT_EQ(engine_->store().stats().device_groups, 5);
    EXPECT_EQ(spilled, SharedStoredBytes()) << "each block is stored, and told, once";
    ExpectAllReturned(*engine_);
  }
}

TEST_P(CacheTest, TheReceiptTellsWhatWasKept) {
  Make(kHostBytes);
  const Outcome fresh = Ask(prompt_), again = Ask(prompt_);
  const int64_t tiles = engine_->store().shape().tiles(), tile_bytes = engine_->store().arena().tile_bytes();
  for (const Outcome* outcome : {&fresh, &again}) {
    const proto::Receipt& receipt = outcome->receipt;
    EXPECT_EQ(outcome->usage.prompt_tokens(), kShared + 17);
    EXPECT_EQ(outcome->usage.completion_tokens(), 5);
    EXPECT_EQ(outcome->finish_reason, "length");
    EXPECT_EQ(outcome->blocks, 2 * 4);
    EXPECT_EQ(receipt.policy(), "full");
    EXPECT_EQ(receipt.recall(), "none");
    EXPECT_EQ(receipt.prefill(), "exact");
    EXPECT_EQ(receipt.prompt_tokens(), kShared + 17);
    EXPECT_EQ(receipt.resident_tokens(), kShared + 17);
    EXPECT_EQ(receipt.device_bytes().resident(), 6 * tiles * tile_bytes);
    EXPECT_EQ(receipt.device_bytes().peak(), 6 * tiles * tile_bytes);
    EXPECT_EQ(receipt.workers(), 1);
    EXPECT_EQ(receipt.recomputed_tokens(), 0);
    EXPECT_GT(receipt.seconds().first_token(), 0);
    EXPECT_GT(receipt.tokens_per_second().decode(), 0);
  }
  EXPECT_EQ(fresh.receipt.spilled_bytes().host(), SharedStoredBytes());
  EXPECT_EQ(again.receipt.spilled_bytes().host(), 0);
}

// What others do meanwhile is not on a request's bill, but the arena's peak is everyone's.
TEST_P(CacheTest, TheReceiptOfOneOfSeveralIsItsOwn) {
  Make(kHostBytes);
  std::vector<Engine::JobId> jobs;
  for (const uint64_t seed : {1, 2, 3}) {
    jobs.push_back(engine_->Submit(MakeRequest(Prompt(kDocument, 17, seed), 60)).value());
  }
  const std::vector<Outcome> outcomes = Drain(*engine_, jobs);
  const int64_t group_bytes = engine_->store().shape().tiles() * engine_->store().arena().tile_bytes();
  for (size_t i = 0; i < 3; ++i) {
    const proto::Receipt& receipt = outcomes[i].receipt;
    EXPECT_EQ(receipt.spilled_bytes().host(), SharedStoredBytes() - (i == 0 ? 0 : StoredBytes(kPrefix)));
    EXPECT_EQ(receipt.device_bytes().resident(), 6 * group_bytes);
    EXPECT_EQ(receipt.device_bytes().peak(),
              (1 + 3 * 4 + 3 * 2) * group_bytes);  // prefix once; answers open one
  }
}

// A clock that stands still must not make rates of nothing.
TEST_P(CacheTest, ATimeOfZeroGivesNoRate) {
  const ManualClock clock;
  engine_ = MakeTinyEngine(model_, {.numerics = GetParam(), .tokenizer = false, .clock = &clock});
  const Outcome outcome = Ask(prompt_);
  EXPECT_EQ(outcome.receipt.tokens_per_second().prefill(), 0);
  EXPECT_EQ(outcome.receipt.tokens_per_second().decode(), 0);
}

INSTANTIATE_TEST_SUITE_P(Classes, CacheTest, ::testing::ValuesIn(AvailableNumerics()), NumericsName);

}  // namespace
}  // namespace palimpsest::testing
