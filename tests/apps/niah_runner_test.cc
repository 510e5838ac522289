// Needle runs end to end over a tiny random model: its answers are nonsense, what is counted is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/niah/engine_answerer.h"
#include "apps/niah/report.h"
#include "apps/niah/runner.h"
#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"
#include "tests/testing/tiny_model.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kWindow = 2048;

class NiahRunnerTest : public ::testing::Test {
 protected:
  NiahRunnerTest() {
    config_.data_dir = folder_.path() + "/data";
    config_.model = folder_.path() + "/tiny.gguf";
    config_.threads.count = 2;
    config_.threads.pin = false;
    config_.device.arena_bytes = 64 << 20;
    PALIMPSEST_CHECK(testing::WriteTinyModel({.context = kWindow}, config_.model).ok());
    auto model = Model::Open(config_);
    PALIMPSEST_CHECK(model.ok(), "{}", Message(model.status()));
    model_ = *std::move(model);
  }
  static NiahOptions Options() {
    NiahOptions options;
    options.tasks.push_back(*MakeNiahTask("single_noise", {}));
    options.lengths = {1500, kWindow};
    options.depths_percent = {0, 100};
    options.seeds = 2;
    options.max_tokens = 4;
    return options;
  }

  static NiahPolicy Policy(const std::string& text) {
    const auto spec = ParsePolicy(text);
    PALIMPSEST_CHECK(spec.ok(), "{}", Message(spec.status()));
    return {.text = text, .spec = *spec, .catalyst = ""};
  }

  TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<Model> model_;
};

TEST_F(NiahRunnerTest, EveryCellRunsWithEverySeed) {
  NiahOptions options = Options();
  options.visible = {false, true};
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  EXPECT_EQ(trials->size(), 2u * 2 * 2 * 2) << "lengths, depths, seeds, visibilities";
  for (const NiahTrial& trial : *trials) {
    EXPECT_EQ(trial.policy, "full");
    EXPECT_LE(trial.prompt_tokens + options.max_tokens, trial.length);
    EXPECT_GE(trial.prompt_tokens + options.max_tokens, trial.length - 20) << "a short sentence less";
    EXPECT_EQ(trial.resident_tokens, static_cast<double>(trial.prompt_tokens));
    EXPECT_TRUE(trial.kept_all);
    EXPECT_GT(trial.resident_bytes, 0);
    EXPECT_GE(trial.peak_bytes, trial.resident_bytes);
    EXPECT_LT(trial.peak_bytes, 2 * trial.resident_bytes) << "what other samples left does not count";
    EXPECT_GT(trial.first_token_seconds, 0);
    EXPECT_LE(trial.output_tokens, options.max_tokens);
  }
  EXPECT_EQ(ReportOf(*trials).cells.size(), 8u);
}

TEST_F(NiahRunnerTest, SecondSeedsOfTwoRunsAreTheFirstOfOne) {
  NiahOptions both = Options(), second = Options();
  both.lengths = second.lengths = {1500};
  second.first_seed = 2;
  second.seeds = 1;
  const auto all = RunNiah(*model_, both), part = RunNiah(*model_, second);
  ASSERT_TRUE(all.ok() && part.ok());
  ASSERT_EQ(part->size(), 2u);
  EXPECT_EQ((*part)[0].prompt_tokens, (*all)[1].prompt_tokens);
  EXPECT_EQ((*part)[1].prompt_tokens, (*all)[3].prompt_tokens);
}

// Two of three samples of a seed stand in what the third has read already: half of a text each, at most.
TEST_F(NiahRunnerTest, WhatTextsOfDepthsHaveInCommonIsReadOnce) {
  std::string prose;
  for (int i = 0; i < 1000; ++i)
    prose += fmt::format("Word {} is followed by {} more of them. ", i * 37 % 1000, i);
  NiahOptions options = Options();
  options.tasks.clear();
  options.tasks.push_back(*MakeNiahTask("single_prose", {.prose = prose, .prose_name = "prose.txt"}));
  options.lengths = {kWindow};
  options.depths_percent = {0, 50, 100};
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 6u);
  constexpr int64_t kBlock = 64;
  for (size_t i = 0; i < trials->size(); ++i) {
    const NiahTrial& trial = (*trials)[i];
    EXPECT_EQ(trial.depth_percent, options.depths_percent[i / 2]) << "told depth by depth";
    EXPECT_EQ(trial.seed, i % 2 + 1);
    EXPECT_GT(trial.read_tokens, 1500);
    const int64_t found = trial.read_tokens - trial.read_computed_tokens;
    if (trial.depth_percent < 100) {
      EXPECT_LE(found, 4 * kBlock) << "introduction and template";
    } else {
      EXPECT_NEAR(static_cast<double>(found), static_cast<double>(trial.read_tokens) / 2, 3 * kBlock);
    }
  }
}

TEST_F(NiahRunnerTest, AnOracleSeesTheNeedleAndAChoiceSomeOfIt) {
  NiahOptions options = Options();
  options.lengths = {1500};
  options.seeds = 1;
  options.turns = 2;
  options.policies = {Policy("random:budget=10%")};
  options.recalls = {*ParseRecall("none"), *ParseRecall("slices:budget=128,whole=0"), *ParseRecall("all")};
  options.oracle = true;
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 2u * 2 * 5) << "depths, turns; full, none, slices, slices by the oracle, all";
  for (const NiahTrial& trial : *trials) {
    if (trial.recall == "none") {
      EXPECT_EQ(trial.needle_seen, -1);
    } else if (trial.recall == "all" || trial.recall.ends_with(",oracle")) {
      EXPECT_EQ(trial.needle_seen, 1) << trial.recall;
    } else {
      EXPECT_GE(trial.needle_seen, 0);
      EXPECT_LT(trial.needle_seen, 1) << "128 of 1,500 tokens were enough in every head";
    }
  }
}

TEST_F(NiahRunnerTest, FullRunsOnceHoweverOftenItIsNamed) {
  NiahOptions options = Options();
  options.lengths = {1500};
  options.seeds = 1;
  options.policies = {Policy("full"), Policy("full")};
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  EXPECT_EQ(trials->size(), 2u);
}

TEST_F(NiahRunnerTest, PoliciesKeepWhatTheirBudgetsSayOfTheSameSamples) {
  NiahOptions options = Options();
  options.lengths = {kWindow};
  options.visible = {false, true};
  for (const char* policy : {"snapkv:budget=50%", "infinipot:pot=60%", "streaming:recent=50%",
                             "random:budget=50%", "random:budget=100%"}) {
    options.policies.push_back(Policy(policy));
  }
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 2u * 2 * 2 * 6) << "depths, seeds, visibilities, policies with full";
  for (const NiahTrial& trial : *trials) {
    const bool keeps_all = trial.policy == "full" || trial.policy == "random:budget=100%";
    EXPECT_EQ(trial.kept_all, keeps_all) << trial.policy;
    const double share = trial.resident_tokens / static_cast<double>(trial.prompt_tokens);
    EXPECT_TRUE(keeps_all || share < 0.8) << trial.policy << " " << share;
  }
  for (const NiahSummary& row : ReportOf(*trials).summary) EXPECT_EQ(row.all.n, 4);
}

TEST_F(NiahRunnerTest, BeyondTheWindowTheOthersGoWithoutFull) {
  NiahOptions options = Options();
  options.lengths = {kWindow, 2 * kWindow};
  options.depths_percent = {50};
  options.seeds = 1;
  options.policies = {Policy("snapkv:budget=256"), Policy("infinipot:pot=1024")};
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 3u + 2u);
  EXPECT_EQ((*trials)[0].policy, "full");
  EXPECT_EQ((*trials)[3].policy, "snapkv:budget=256");
  for (size_t i = 0; i < trials->size(); ++i) EXPECT_EQ((*trials)[i].compared, i < 3) << i;
  EXPECT_GT((*trials)[4].prompt_tokens, kWindow);
}

TEST_F(NiahRunnerTest, TokensThatAreCodedAreNotKeptAsTheyWere) {
  NiahOptions options = Options();
  options.lengths = {1500};
  options.depths_percent = {50};
  options.seeds = 1;
  options.policies = {Policy("full:kv=kivi2")};
  const auto trials = RunNiah(*model_, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 2u);
  EXPECT_GT((*trials)[0].read_peak_bytes, 0);
  EXPECT_TRUE((*trials)[0].kept_all);
  EXPECT_FALSE((*trials)[1].kept_all);
}

// --- the estimate

class DepthsOfReadingsTest : public NiahRunnerTest {
 protected:
  static std::vector<double> Depths(int64_t tokens, const std::vector<std::string>& policies,
                                    PrefillChoice prefill = PrefillChoice::kAuto, int64_t turns = 1) {
    std::vector<NiahPolicy> all;
    for (const std::string& text : policies) all.push_back(Policy(text));
    NiahWork work{.tokens = tokens, .answer_tokens = 8, .reads_first = true, .turns = turns, .policies = {}};
    for (const NiahPolicy& policy : all) work.policies.push_back(&policy);
    return DepthsOfReadings(work, {.prefill = prefill, .window_tokens = 8192, .span_tokens = 2048});
  }
};

TEST_F(DepthsOfReadingsTest, ATokenSeesItsSpanOrThePotBeyondTheWindow) {
  EXPECT_THAT(Depths(8000, {"full", "snapkv"}), ElementsAre(4000));
  EXPECT_THAT(Depths(1'000'000, {"snapkv", "random"}), ElementsAre(1024));
  EXPECT_THAT(Depths(8000, {"full", "snapkv", "random"}, PrefillChoice::kAnchored), ElementsAre(4000, 1024));
  EXPECT_THAT(Depths(1'000'000, {"infinipot:pot=4096"}, PrefillChoice::kAuto, /*turns=*/2),
              ElementsAre(1024, 4096, 4096));
  EXPECT_THAT(Depths(3000, {"infinipot:pot=4096"}), ElementsAre(1500, 1500));
}

TEST_F(DepthsOfReadingsTest, WhatPoliciesLookAtInEveryTokenIsReadOnceMoreForAllThatWantIt) {
  EXPECT_THAT(Depths(8000, {"h2o", "lookm", "h2o:heavy=512"}), ElementsAre(4000, 4000));
  EXPECT_THAT(Depths(8000, {"h2o", "roco"}), ElementsAre(4000, 4000, 4000));
  EXPECT_THAT(Depths(8000, {"roco", "h2o"}), ElementsAre(4000, 4000)) << "whose sums are there";
  EXPECT_THAT(Depths(8000, {"expected", "sirllm"}), ElementsAre(4000, 4000, 4000));
  EXPECT_THAT(Depths(8000, {"kvzip:chunk=128"}), ElementsAre(4000, 64)) << "a part that sees itself alone";
  EXPECT_THAT(Depths(8000, {"kvzip:attend=all"}), ElementsAre(4000, 8000)) << "a part behind all of the text";
  EXPECT_THAT(Depths(1'000'000, {"h2o"}), ElementsAre(1024, 1024));
}

// The answers come word for word from what the policy kept when that is all; each turn's prompt holds the
// turns before.
TEST_F(NiahRunnerTest, TurnsAreOneConversation) {
  NiahOptions options = Options();
  options.tasks.clear();
  options.tasks.push_back(*MakeNiahTask("facts_noise", {}));
  options.lengths = {kWindow - 100};  // what this model says takes more tokens when it is read again
  options.seeds = 1;
  options.turns = 3;
  options.policies = {Policy("random:budget=100%"), Policy("snapkv:budget=10%")};
  options.recalls = {{}, *ParseRecall("slices:budget=256")};
  options.ssd_folder = folder_.path() + "/ssd";
  config_.host.store_bytes = 0;
  auto model = Model::Open(config_);
  ASSERT_TRUE(model.ok());
  const auto trials = RunNiah(**model, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 2u * 3 * 5) << "depths, turns, full and two policies with two recalls each";
  for (size_t i = 0; i < trials->size(); ++i) {
    const NiahTrial& trial = (*trials)[i];
    EXPECT_EQ(trial.turn, static_cast<int64_t>(i % 3) + 1);
    EXPECT_EQ(trial.depth_percent,
              NiahDepth({.depth_percent = i < 15 ? 0.0 : 100.0, .turns = 3}, trial.turn - 1));
    EXPECT_LE(trial.prompt_tokens + options.max_tokens, kWindow - 50);
    EXPECT_FALSE(trial.degraded);
    EXPECT_TRUE(trial.turn == 1 || trial.prompt_tokens > (*trials)[i - 1].prompt_tokens + 10);
    EXPECT_TRUE(trial.as_full || !trial.kept_all) << trial.policy;
    const bool recalls = trial.recall != "none" && trial.policy == "snapkv:budget=10%";
    EXPECT_TRUE(recalls ? trial.turn > 1 || trial.recalled_ssd > 0 : trial.recalled_ssd == 0);
  }
}

TEST_F(NiahRunnerTest, LengthBeyondTheWindowIsRefusedBeforeAnythingRuns) {
  NiahOptions options = Options();
  options.lengths = {1500, 3 * kWindow};
  options.prefill = PrefillChoice::kExact;
  const auto trials = RunNiah(*model_, options);
  EXPECT_EQ(trials.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(trials.status()), HasSubstr("2048"));
}

TEST_F(NiahRunnerTest, LengthWithoutRoomForTheQuestionIsRefused) {
  NiahOptions options = Options();
  options.lengths = {64};
  const auto trials = RunNiah(*model_, options);
  EXPECT_EQ(trials.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(trials.status()), HasSubstr("64 tokens"));
}

TEST_F(NiahRunnerTest, CancelledRunSaysSo) {
  CancelToken cancel;
  cancel.Set();
  NiahOptions options = Options();
  options.cancel = &cancel;
  EXPECT_EQ(RunNiah(*model_, options).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace palimpsest
