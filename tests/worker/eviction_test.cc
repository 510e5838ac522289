// Which token goes for a new one, by figures worked out by hand, and where the new one lies then.
#include "worker/compression/eviction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "proto/base/status.h"
#include "worker/compression/slots.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kSize = 16;

class EvictionTest : public ::testing::Test {
 protected:
  // One layer; of each KV head `group` query heads. `held` tokens are there, packed, and then the question.
  void Begin(const char* policy, int64_t kv_heads, int64_t group, int64_t held, int64_t question = 0,
             int64_t skip = 0) {
    shape_ = {.layers = 1, .kv_heads = kv_heads, .head_size = kSize};
    config_.layers = 1;
    config_.kv_heads = kv_heads;
    config_.heads = kv_heads * group;
    config_.head_size = kSize;
    sequence_ = nullptr;  // it lives in the store
    store_ = std::make_unique<TieredStore>(shape_, &arena_, backend_.get(), &rope_, &mover_);
    sequence_ = std::make_unique<Sequence>(store_.get(), 20);
    std::vector<Bf16> rest;
    for (int64_t i = 0; i < held * kSize; ++i) rest.push_back(Number(i / kSize, i % kSize));
    Sequence::Packing packing;
    for (int64_t i = 0; i < held; ++i) {
      packing.sources.push_back({.key = rest.data() + i * kSize, .value = rest.data() + i * kSize});
      packing.positions.push_back(static_cast<int32_t>(i));
    }
    ASSERT_TRUE(
        sequence_
            ->AppendPacked(std::vector<Sequence::Packing>(static_cast<size_t>(kv_heads), packing), 0, held)
            .ok());
    spec_ = *ParsePolicy(policy);
    policy_ = MakePolicy(spec_);
    next_ = packed_ = static_cast<int32_t>(held);
    sums_.Begin(1, config_.heads, 0, 4, policy_->needs().squares);
    for (int64_t i = 0; i < question; ++i) Read();
    std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(kv_heads));
    for (auto& head : tokens) {
      head.resize(static_cast<size_t>(held + question - skip));
      std::iota(head.begin(), head.end(), static_cast<int32_t>(skip));
    }
    eviction_ = std::make_unique<Eviction>(Eviction::Setup{.config = &config_,
                                                           .policy = policy_.get(),
                                                           .threads = &backend_->pool(),
                                                           .pool = arena_.pool(),
                                                           .skip = skip,
                                                           .held_max = held + question - skip,
                                                           .question_first = held,
                                                           .question_end = held + question},
                                           *sequence_, std::move(tokens));
  }
  // The next token is there: its value tells which it is.
  void Read() {
    if (sequence_->room() == 0) {
      ASSERT_TRUE(sequence_->OpenGroup(kTileSlots, /*keep_rest=*/false).ok());
    }
    sequence_->Extend(1);
    const auto [group, slot] = sequence_->PlaceOf(next_);
    for (const int32_t tile : group->tiles) {
      for (int64_t d = 0; d < kSize; ++d) {
        arena_.pool().k(tile)[d / 2 * 2 * kTileSlots + slot * 2 + d % 2] = Number(next_, d);
        arena_.pool().v(tile, kSize)[slot / 2 * 128 + slot % 2 + d * 2] = Number(next_, d);
      }
    }
    ++next_;
  }
  // In two dimensions, since bf16 counts to 256.
  static Bf16 Number(int64_t n, int64_t d) {
    return FloatToBf16(static_cast<float>(d % 2 == 0 ? n % 100 : n / 100));
  }
  // What all queries said of the tokens that are held, in their order, the newest last.
  void Say(int64_t query_head, const std::vector<float>& sums, bool squares = false) {
    const std::vector<int32_t> places = Places(query_head * config_.kv_heads / config_.heads);
    ASSERT_EQ(places.size(), sums.size());
    sums_.SetAt(0, query_head, squares, places, sums.data());
  }
  // Of the tokens of a head in the order of their text: by their positions.
  std::vector<int32_t> Places(int64_t head) const {
    std::vector<std::pair<int32_t, int32_t>> all;
    const auto tiles = sequence_->tiles(0, head);
    for (size_t i = 0; i < tiles.size(); ++i) {
      for (int32_t slot = 0; slot < arena_.pool().counts[tiles[i]]; ++slot) {
        all.emplace_back(arena_.pool().positions[tiles[i] * kTileSlots + slot],
                         static_cast<int32_t>(i) * static_cast<int32_t>(kTileSlots) + slot);
      }
    }
    std::sort(all.begin(), all.end());
    std::vector<int32_t> places;
    for (const auto& [position, place] : all) places.push_back(place);
    return places;
  }
  // A token of the answer; true if one went.
  bool Answer() { return eviction_->Add(next_ - 1, *sequence_, sums_); }
  // Tokens that a head's slots hold, by their values; what was read here says it by its keys, too.
  std::vector<int32_t> Held(int64_t head) const {
    const auto tiles = sequence_->tiles(0, head);
    int64_t count = 0;
    for (const int32_t tile : tiles) count += arena_.pool().counts[tile];
    const HeadSlots slots{
        .pool = arena_.pool(), .tiles = tiles, .skip = 0, .count = count, .head_size = kSize};
    std::vector<float> values(static_cast<size_t>(count * kSize)), keys = values;
    ReadValues(slots, values.data());
    ReadKeys(slots, keys.data());
    std::vector<int32_t> held;
    for (int64_t i = 0; i < count; ++i) {
      const float *const value = values.data() + i * kSize, *const key = keys.data() + i * kSize;
      held.push_back(static_cast<int32_t>(100 * value[7] + value[6]));
      if (held.back() >= packed_) {
        EXPECT_EQ(100 * key[7] + key[6], 100 * value[7] + value[6]);
      }
    }
    std::sort(held.begin(), held.end());
    return held;
  }

  KvShape shape_;
  ModelConfig config_;
  const std::unique_ptr<Backend> backend_ =
      MakeBackend({.isa = "portable", .threads = {.threads = 2, .pin = false}}).value();
  const RopeTable rope_{16, 16, 10000, {}, 8};
  TileArena arena_{64 * TileArena(1, 16).tile_bytes(), 16};
  Mover mover_{{}, nullptr, nullptr, nullptr};  // no tier below
  std::unique_ptr<TieredStore> store_;
  std::unique_ptr<Sequence> sequence_;
  PolicySpec spec_;
  std::unique_ptr<CompressionPolicy> policy_;
  AttentionSums sums_;
  std::unique_ptr<Eviction> eviction_;
  int32_t next_ = 0, packed_ = 0;  // the next token; the first that was not packed
};

// The sums of [1], [.5 .5], [.2 .3 .5], [.1 .2 .3 .4]: token 2 is worth the least of those that may go. By
// the mean it is token 1; whoever forgets that the newest stays lets go of it.
TEST_F(EvictionTest, HeavyHitters) {
  for (const bool mean : {false, true}) {
    Begin(mean ? "h2o:heavy=2,recent=1,normalize=queries,decode=evict" : "h2o:heavy=2,recent=1,decode=evict",
          1, 1, 3);
    Read();
    Say(0, {1.8f, 1.0f, 0.8f, 0.4f});
    EXPECT_TRUE(Answer());
    EXPECT_THAT(eviction_->tokens(0), ElementsAre(0, mean ? 2 : 1, 3));
    EXPECT_THAT(Held(0), ElementsAre(0, mean ? 2 : 1, 3));
  }
}

// What was said of a token goes with it, and that of the new one is its own: sums go on. LOOK-M's public code
// never compacts what was said, so that from the second eviction on it is of other tokens.
TEST_F(EvictionTest, SumsGoOnWithTheirTokens) {
  Begin("h2o:heavy=2,recent=1,decode=evict", 1, 1, 3);
  Read();
  Say(0, {1.8f, 1.0f, 0.8f, 0.4f});
  Answer();
  Read();
  const ColumnSums sums = sums_.Of(0, 4);
  const std::vector<int32_t> places = Places(0);
  const float said[] = {0.1f, 0.1f, 0.7f, 0.1f};  // now 1.9, 1.1, 1.1, 0.1
  for (size_t i = 0; i < 4; ++i) sums.sums[places[i]] += said[i];
  EXPECT_TRUE(Answer());
  EXPECT_THAT(eviction_->tokens(0), ElementsAre(0, 1, 4)) << "of equal ones the later goes";
  EXPECT_THAT(Held(0), ElementsAre(0, 1, 4));
}

// Heads [.5 .1 .2 .2] and [.1 .4 .3 .2]: their means are .3 .25 .25 .2, and all heads of the layer agree.
TEST_F(EvictionTest, LeastAttendedByTheNewest) {
  for (const bool free : {true, false}) {
    Begin(free ? "tova:budget=3,last=free,decode=evict" : "tova:budget=3,decode=evict", 2, 1, 3);
    Read();
    Say(0, {0.5f, 0.1f, 0.2f, 0.2f});
    Say(1, {0.1f, 0.4f, 0.3f, 0.2f});
    EXPECT_TRUE(Answer());
    for (const size_t head : {0, 1}) {
      EXPECT_THAT(eviction_->tokens(head), ElementsAre(0, 1, free ? 2 : 3));
      EXPECT_THAT(Held(static_cast<int64_t>(head)), ElementsAre(0, 1, free ? 2 : 3));
    }
  }
}

// Means .4 .2 .1 .3 of four queries each, but token 2 varied: it stays, and token 1 is the least of the rest.
TEST_F(EvictionTest, TheVolatileStay) {
  Begin("roco:budget=4,volatile=2,sink=0,recent=1,decode=evict", 1, 1, 4);
  Read();
  Say(0, {2.0f, 0.8f, 0.3f, 0.6f, 0.5f});                        // seen by 5, 4, 3, 2, 1
  Say(0, {0.8f, 0.16f, 0.09f, 0.18f, 0.25f}, /*squares=*/true);  // mean squares .16 .04 .03 .09 .25
  EXPECT_TRUE(Answer());
  EXPECT_THAT(eviction_->tokens(0), ElementsAre(0, 2, 3, 4));
}

TEST_F(EvictionTest, PrefixAndQuestionStay) {
  Begin("h2o:heavy=3,recent=1,decode=evict", 1, 1, 4, /*question=*/2, /*skip=*/2);
  Read();
  Say(0, {0.0f, 0.0f, 3.0f, 2.0f, 1.0f, 0.5f, 0.1f});
  EXPECT_TRUE(Answer());
  EXPECT_THAT(eviction_->tokens(0), ElementsAre(2, 4, 5, 6));
  EXPECT_THAT(Held(0), ElementsAre(0, 1, 2, 4, 5, 6));
}

// Each head lets go of its own, 300 times: no tile more, each token where it is looked for.
TEST_F(EvictionTest, NoAnswerTakesATile) {
  Begin("h2o:heavy=90,recent=10,decode=evict", 2, 2, 100);
  int64_t used = 0;
  for (int step = 0; step < 300; ++step) {
    Read();
    if (step == 0) used = arena_.used_tiles();
    for (int64_t head = 0; head < 4; ++head) {
      std::vector<float> said;
      for (const int32_t token : eviction_->tokens(static_cast<size_t>(head / 2)))
        said.push_back(static_cast<float>((token * (7 + head / 2 * 6)) % 101));
      said.push_back(0);
      Say(head, said);
    }
    ASSERT_TRUE(Answer());
    for (int64_t head = 0; head < 2; ++head)
      ASSERT_EQ(Held(head), eviction_->tokens(static_cast<size_t>(head)));
  }
  EXPECT_NE(eviction_->tokens(0), eviction_->tokens(1));
  EXPECT_EQ(arena_.used_tiles(), used);
  EXPECT_EQ(sequence_->next_position(), 400);
}

}  // namespace
}  // namespace palimpsest
