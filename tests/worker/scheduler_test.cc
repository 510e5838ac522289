// Which rows go into a step: numbers in, numbers out.
#include "worker/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "proto/base/rng.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

StepCandidate Prompt(int64_t id, int64_t rows, double starved_seconds = 0) {
  return {.id = id, .rows = rows, .starved_seconds = starved_seconds};
}
StepCandidate Background(int64_t id, int64_t rows, double starved_seconds = 0) {
  return {.id = id, .background = true, .rows = rows, .starved_seconds = starved_seconds};
}
StepCandidate Decoding(int64_t id) { return {.id = id, .decoding = true}; }

// Ids and rows, in the order of the step.
std::vector<std::pair<int64_t, int64_t>> Pick(Scheduler& scheduler,
                                              const std::vector<StepCandidate>& candidates) {
  std::vector<std::pair<int64_t, int64_t>> picked;
  for (const StepGrant& grant : scheduler.Pick(candidates)) {
    picked.emplace_back(candidates[grant.candidate].id, grant.rows);
  }
  return picked;
}

TEST(SchedulerTest, DecodingComesFirstAndPromptsTakeTheRest) {
  Scheduler scheduler({.rows_max = 100});
  EXPECT_THAT(Pick(scheduler, {Prompt(1, 1000), Decoding(2), Decoding(3)}),
              ElementsAre(Pair(2, 1), Pair(3, 1), Pair(1, 98)));
}

TEST(SchedulerTest, NothingGivesNothing) {
  Scheduler scheduler({});
  EXPECT_TRUE(Pick(scheduler, {}).empty());
}

TEST(SchedulerTest, MoreDecodingSessionsThanRowsTakeTurns) {
  Scheduler scheduler({.rows_max = 3});
  std::vector<StepCandidate> sessions;
  for (int64_t id = 0; id < 8; ++id) sessions.push_back(Decoding(id));
  std::map<int64_t, int> turns;
  for (int step = 0; step < 24; ++step) {
    for (const StepGrant& grant : scheduler.Pick(sessions)) {
      ++turns[sessions[grant.candidate].id];
    }
  }
  for (const auto& [id, count] : turns) EXPECT_EQ(count, 9) << id;  // 24 * 3 / 8
  EXPECT_EQ(turns.size(), 8u);
}

TEST(SchedulerTest, TheOneWithTheLeastLeftGoesFirstAndNoneHasMoreThanItsShare) {
  Scheduler scheduler({.rows_max = 100, .share = 0.5});
  EXPECT_THAT(Pick(scheduler, {Prompt(1, 1000), Prompt(2, 20)}), ElementsAre(Pair(2, 20), Pair(1, 50)));
  EXPECT_THAT(Pick(scheduler, {Prompt(1, 1000), Prompt(2, 70), Prompt(3, 900)}),
              ElementsAre(Pair(2, 50), Pair(3, 50)));
  EXPECT_THAT(Pick(scheduler, {Prompt(1, 1000)}), ElementsAre(Pair(1, 100))) << "alone it has all";
}

TEST(SchedulerTest, WhatStarvedGoesFirstInOrderOfArrival) {
  Scheduler scheduler({.rows_max = 100, .share = 0.5});
  EXPECT_THAT(Pick(scheduler, {Prompt(1, 1000, 3), Prompt(2, 900, 5), Prompt(3, 20, 1)}),
              ElementsAre(Pair(1, 50), Pair(2, 50)));
  EXPECT_THAT(Pick(scheduler, {Background(1, 1000, 3), Prompt(2, 20)}),
              ElementsAre(Pair(1, 50), Pair(2, 20)));
}

// It would wait for as long as more than half of a step's rows decode.
TEST(SchedulerTest, APieceThatIsTakenWholeComesBetweenManyThatDecode) {
  Scheduler scheduler({.rows_max = 64});
  std::vector<StepCandidate> all = {{.id = 1, .rows = 40, .whole = true}};
  for (int64_t id = 2; id < 42; ++id) all.push_back(Decoding(id));
  EXPECT_EQ(Pick(scheduler, all).size(), 40u) << "there is no room for it";
  all[0].starved_seconds = 3;
  const auto picked = Pick(scheduler, all);
  EXPECT_EQ(picked.size(), 33u);
  EXPECT_THAT(picked, ::testing::Contains(Pair(1, 32)));
  all.push_back(Background(50, 1000, 0.6));
  EXPECT_THAT(Pick(scheduler, all), ::testing::Contains(Pair(1, 32))) << "the background waits once more";

  Scheduler narrow({.rows_max = 1});
  EXPECT_THAT(Pick(narrow, {all[0], Decoding(2)}), ElementsAre(Pair(1, 1)));
}

TEST(SchedulerTest, TheBackgroundPausesBesideQuestionsButGetsAnEighthNowAndThen) {
  Scheduler scheduler({.rows_max = 160});
  EXPECT_THAT(Pick(scheduler, {Background(1, 10), Prompt(2, 1000)}), ElementsAre(Pair(2, 160)));
  EXPECT_THAT(Pick(scheduler, {Background(1, 1000), Prompt(2, 5)}), ElementsAre(Pair(2, 5)))
      << "a short step is what the question waits for";
  EXPECT_THAT(Pick(scheduler, {Background(1, 10, 0.6), Prompt(2, 1000)}),
              ElementsAre(Pair(2, 140), Pair(1, 10)));
  EXPECT_THAT(Pick(scheduler, {Background(1, 1000, 0.6), Prompt(2, 1000)}),
              ElementsAre(Pair(2, 140), Pair(1, 20)));
  EXPECT_THAT(Pick(scheduler, {Background(1, 1000), Decoding(2)}), ElementsAre(Pair(2, 1), Pair(1, 159)));
  EXPECT_THAT(Pick(scheduler, {Background(1, 1000)}), ElementsAre(Pair(1, 160)));
}

TEST(SchedulerTest, FewRowsAreNeverNone) {
  for (int64_t rows = 1; rows <= 4; ++rows) {
    Scheduler scheduler({.rows_max = rows, .share = 0.01});
    EXPECT_FALSE(Pick(scheduler, {Prompt(1, 9), Prompt(2, 9), Background(3, 9)}).empty());
    EXPECT_FALSE(Pick(scheduler, {Background(3, 9), Background(4, 9)}).empty());
  }
}

// A machine on which a row takes a millisecond, and as much again for each 1,000 tokens before it.
double SecondsOf(int64_t rows, int64_t depth) {
  return 1e-3 * static_cast<double>(rows) *
         (1 + (static_cast<double>(depth) + static_cast<double>(rows) / 2) / 1000);
}

TEST(SchedulerTest, StepsAreCutToTheTimeTheyMayTake) {
  Scheduler scheduler({.rows_max = 512, .step_seconds = 0.1, .attention_depth = 1000});
  for (const int64_t depth : {0, 1000, 2000}) {
    int64_t rows = 0;
    for (int step = 0; step < 20; ++step) {
      const std::vector<StepCandidate> one = {{.id = 1, .rows = 5000, .depth = depth}};
      rows = Pick(scheduler, one)[0].second;
      scheduler.Observe(SecondsOf(rows, depth));
    }
    EXPECT_GT(SecondsOf(rows, depth), 0.06) << depth;
    EXPECT_LT(SecondsOf(rows, depth), 0.12) << depth;
  }
  EXPECT_NEAR(scheduler.seconds_per_row(), 1e-3, 1e-4);
}

TEST(SchedulerTest, ASlowMachineStillGetsOn) {
  Scheduler scheduler({.rows_max = 512, .step_seconds = 0.01});
  for (int step = 0; step < 10; ++step) {
    const auto picked = Pick(scheduler, {Prompt(1, 5000), Decoding(2)});
    EXPECT_GE(picked[1].second, Scheduler::kRowsMin);
    scheduler.Observe(10);
  }
  EXPECT_EQ(Pick(scheduler, {Prompt(1, 5000)})[0].second, Scheduler::kRowsMin);
}

TEST(SchedulerTest, SmallStepsTellNothingAboutARow) {
  Scheduler scheduler({.step_seconds = 0.1});
  Pick(scheduler, {Decoding(1), Prompt(2, 5)});
  scheduler.Observe(1);
  EXPECT_EQ(scheduler.seconds_per_row(), 0);
}

// Whatever comes and goes: never more rows than there are, never one twice, all that decode or their turn,
// and every prompt ends while others keep coming.
TEST(SchedulerTest, NobodyStarvesWhateverComes) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RngSequence rng{Rng(seed)};
    Scheduler scheduler({.rows_max = 64, .share = 0.5, .step_seconds = seed % 2 == 0 ? 0.05 : 0});
    std::vector<StepCandidate> all = {Prompt(0, 3000), Background(1, 3000)};
    int64_t next_id = 2, steps = 0;
    const auto left = [&](int64_t id) {
      for (const StepCandidate& c : all) {
        if (c.id == id) return true;
      }
      return false;
    };
    for (; (left(0) || left(1)) && steps < 20000; ++steps) {
      for (uint64_t i = rng.Below(3); i > 0; --i) {  // about as much as there is room for
        all.push_back(rng.Below(8) == 0 ? Background(next_id, 1 + static_cast<int64_t>(rng.Below(60)))
                                        : Prompt(next_id, 1 + static_cast<int64_t>(rng.Below(60))));
        ++next_id;
      }
      int64_t rows = 0;
      for (StepCandidate& c : all) c.starved_seconds += 0.05;
      for (const StepGrant& grant : scheduler.Pick(all)) {
        StepCandidate& c = all[grant.candidate];
        ASSERT_LE(grant.rows, c.rows);
        ASSERT_GE(grant.rows, 1);
        rows += grant.rows;
        c.rows -= grant.rows;
        c.depth += grant.rows;
        c.starved_seconds = 0;
      }
      ASSERT_LE(rows, 64);
      std::erase_if(all, [](const StepCandidate& c) { return c.rows == 0; });
      scheduler.Observe(static_cast<double>(rows) * 1e-3);
    }
    EXPECT_FALSE(left(0)) << "seed " << seed;
    EXPECT_FALSE(left(1)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace palimpsest
