// No allocation per token in steady decode: global operator new and delete are counted in this program.
//
// A step of decoding allocates nothing, whatever its sessions sample or stop at, except
//   - one vector for each session that opens a group (every 64 tokens): the ids of its tiles;
//   - the backend's room for partial results, when a session passes a multiple of 8 groups (512 tokens): it
//     grows to the largest step seen and stays (workspace_bytes);
//   - a string for a token's text beyond 15 bytes (what std::string holds in itself), and the answer's text
//     when it passes 8 bytes a token (worker/engine.cc reserves so much): not met by this vocabulary.
#include <gtest/gtest.h>

#include "tests/worker/counting_new.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {
namespace {

class AllocationTest : public ::testing::TestWithParam<Numerics> {
 protected:
  AllocationTest() {
    TinyEngineOptions options;
    options.numerics = GetParam();
    engine_ = MakeTinyEngine(TinyModel({}), options);
  }
  // Steps until every session decodes, and once more: buffers have seen their largest step.
  void WarmUp(size_t sessions) {
    while (started_ < sessions) engine_->Step();
    engine_->Step();
  }
  void Submit(Request request) {
    request.on_text = [this](std::string_view text, int32_t) { streamed_ += std::ssize(text); };
    request.on_prefill = [this](int64_t done, int64_t total) { started_ += done == total; };
    ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  }

  std::unique_ptr<Engine> engine_;
  size_t started_ = 0, sessions_ = 0;
  int64_t streamed_ = 0;
};

TEST_P(AllocationTest, TheCounterCounts) {
  const int64_t before = allocations, freed = frees;
  std::vector<int>* volatile some = new std::vector<int>(100);  // volatile: not to be optimised away
  delete some;
  const int64_t after = allocations, freed_after = frees;
  EXPECT_EQ(after - before, 2);
  EXPECT_EQ(freed_after - freed, 2);
}

// 100 tokens of the question leave 28 slots: boundaries at answers of 28 and 92 tokens.
TEST_P(AllocationTest, ADecodeStepAllocatesOnlyToOpenAGroup) {
  Request request = MakeRequest({{.tokens = RandomTokens(100, 1)}}, 200);
  request.sampling.set_top_k(50);
  request.sampling.set_top_p(0.95);
  request.sampling.set_min_p(0.01);
  request.sampling.set_repetition_penalty(1.1);
  request.sampling.add_stop("a stop string that never comes");
  request.sampling.add_stop("\n\n\n\n");
  Submit(std::move(request));
  WarmUp(1);
  int64_t steps = 0, steps_that_allocate = 0;
  const int64_t workspace = engine_->backend().workspace_bytes(), freed = frees;
  for (; steps < 190; ++steps) {
    const int64_t before = allocations, tiles = engine_->store().arena().used_tiles();
    ASSERT_TRUE(engine_->Step());
    const bool opened = engine_->store().arena().used_tiles() > tiles;
    EXPECT_EQ(allocations - before, opened ? 1 : 0) << "step " << steps;
    steps_that_allocate += allocations - before > 0;
  }
  EXPECT_EQ(steps_that_allocate, 3) << "190 tokens open three groups";
  EXPECT_EQ(frees - freed, 0);
  EXPECT_EQ(engine_->backend().workspace_bytes(), workspace);
  EXPECT_GT(streamed_, 100) << "text was streamed meanwhile";
}

// Also where a token goes for each that is new: who goes is chosen in room that was taken before.
TEST_P(AllocationTest, AnEvictingDecodeStepAllocatesNothing) {
  for (const char* policy : {"h2o:heavy=40,recent=20,decode=evict", "tova:budget=60,decode=evict",
                             "roco:budget=60,volatile=20,decode=evict"}) {
    Request request = MakeRequest({{.tokens = RandomTokens(100, 1)}}, 200);
    request.policy = *ParsePolicy(policy);
    Submit(std::move(request));
    WarmUp(++sessions_);
    for (int i = 0; i < 3; ++i) engine_->Step();  // the first that goes
    const int64_t workspace = engine_->backend().workspace_bytes(), freed = frees;
    const int64_t tiles = engine_->store().arena().used_tiles();
    for (int64_t step = 0; step < 180; ++step) {
      const int64_t before = allocations;
      ASSERT_TRUE(engine_->Step());
      EXPECT_EQ(allocations - before, 0) << policy << ", step " << step;
    }
    EXPECT_EQ(frees - freed, 0);
    EXPECT_EQ(engine_->backend().workspace_bytes(), workspace);
    EXPECT_EQ(engine_->store().arena().used_tiles(), tiles);
    while (engine_->Step()) {
    }
  }
}

TEST_P(AllocationTest, ManySessionsInAStepAllocateOnlyToOpenGroups) {
  constexpr int64_t kSessions = 12;
  for (int64_t i = 0; i < kSessions; ++i) {
    Submit(MakeRequest(Prompt(30 + i, 4 + 3 * i, static_cast<uint64_t>(i)), 150));
  }
  WarmUp(kSessions);
  const int64_t workspace = engine_->backend().workspace_bytes();
  for (int64_t step = 0; step < 120; ++step) {
    const int64_t before = allocations, tiles = engine_->store().arena().used_tiles();
    ASSERT_TRUE(engine_->Step());
    const int64_t opened = (engine_->store().arena().used_tiles() - tiles) / engine_->store().shape().tiles();
    EXPECT_EQ(allocations - before, opened) << "step " << step;
  }
  EXPECT_EQ(engine_->backend().workspace_bytes(), workspace);
}

INSTANTIATE_TEST_SUITE_P(Classes, AllocationTest, ::testing::ValuesIn(AvailableNumerics()), NumericsName);

}  // namespace
}  // namespace palimpsest::testing
