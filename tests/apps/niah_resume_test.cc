// Runs that are interrupted, killed or answered in part: what was finished is not done again, and the result
// is that of one run. An answerer that counts words stands for the model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>

#include "apps/niah/report.h"
#include "apps/niah/runner.h"
#include "proto/base/status.h"
#include "tests/testing/temporary_folder.h"

namespace palimpsest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Knows every answer under full, and under others that of even seeds. Sets `cancel` before answer number
// `cancel_at`, and fails at number `fails_at`.
class FakeAnswerer final : public NiahAnswerer {
 public:
  std::string name() const override { return "fake"; }
  std::string numerics() const override { return "exact"; }
  absl::StatusOr<int64_t> CountTokens(const NiahSample& sample) override {
    if (++counted == cancel_at_count) cancel.Set();
    std::istringstream words(sample.context);
    return std::distance(std::istream_iterator<std::string>(words), {}) +
           static_cast<int64_t>(sample.turns.size()) * sample.answer_tokens;
  }
  absl::Status Check(const NiahSample&, const NiahPolicy&, bool) override { return absl::OkStatus(); }
  std::optional<int64_t> LongestFor(const NiahPolicy&) const override { return longest; }
  bool FindsBlocks(const NiahPolicy& policy) const override { return policy.full(); }
  bool FindsOf(const NiahPolicy& earlier, const NiahPolicy& policy, int64_t, bool) const override {
    return shared && !earlier.full() && !policy.full();
  }
  absl::StatusOr<NiahReading> Read(const NiahSample&) override {
    ++reads;
    return NiahReading{.tokens = 10, .computed_tokens = 9};
  }
  absl::StatusOr<NiahTrial> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                const NiahPolicy& policy, bool visible) override {
    if (sample.answer_tokens == 1) again.push_back(fmt::format("{} {}", answers.size(), visible));
    ++asked;
    if (asked == cancel_at) {
      cancel.Set();
      return cancel.Check();
    }
    if (asked >= fails_from && asked < fails_until) {
      return Error(absl::StatusCode::kUnavailable, "connection refused");
    }
    NiahTrial trial;
    trial.answer = sample.turns[answers.size()].references[0];
    if (!policy.full() && sample.context.size() % 2 == 1) trial.answer = "no \xff idea";
    trial.prompt_tokens = static_cast<int64_t>(sample.context.size());
    trial.output_tokens = 7;
    trial.resident_tokens = 1.0 / 3 + static_cast<double>(sample.context.size()) / 7;
    trial.needle_seen = 0.1 + static_cast<double>(answers.size()) / 7;
    trial.first_token_seconds = 0.1 * static_cast<double>(sample.context.size() % 10);
    return trial;
  }
  bool fails_alone() const override { return alone; }
  absl::StatusOr<std::optional<double>> Estimate(std::span<const NiahWork> work) override {
    estimated = 0;
    for (const NiahWork& one : work) estimated += one.answers();
    return std::optional<double>(125.0);
  }

  CancelToken cancel;
  int64_t asked = 0, reads = 0, cancel_at = -1, fails_from = -1, fails_until = -1, estimated = 0;
  int64_t counted = 0, cancel_at_count = -1;
  std::optional<int64_t> longest;
  bool alone = false;
  bool shared = false;             // whether a policy finds what another one left
  std::vector<std::string> again;  // questions that were asked for a token
};

class NiahResumeTest : public ::testing::Test {
 protected:
  static NiahOptions Options(FakeAnswerer& answerer) {
    NiahOptions options;
    options.tasks.push_back(*MakeNiahTask("facts_noise", {}));
    options.tasks.push_back(*MakeNiahTask("vt", {}));
    options.lengths = {512, 700};
    options.depths_percent = {0, 33.3};
    options.seeds = 3;
    options.turns = 2;
    options.policies = {
        {.text = "snapkv:budget=50%", .spec = *ParsePolicy("snapkv:budget=50%"), .catalyst = ""}};
    options.visible = {false, true};
    options.cancel = &answerer.cancel;
    return options;
  }
  // Full and a policy, each with the question hidden and then visible.
  static NiahOptions OneText(FakeAnswerer& answerer, NiahState* state) {
    NiahOptions options = Options(answerer);
    options.tasks.pop_back();
    options.lengths = {512};
    options.depths_percent = {0};
    options.seeds = 1;
    options.state = state;
    return options;
  }
  static constexpr int64_t kAnswers = 2 * 2 * 2 * 3 * 2 * 2 * 2;

  std::string path() const { return folder_.path() + "/deep/state.jsonl"; }
  std::unique_ptr<NiahState> State(const std::string& lengths = "512,700") const {
    auto state = NiahState::Open(path(), {{"lengths", lengths}, {"task", "a"}}, "now");
    PALIMPSEST_CHECK(state.ok(), "{}", Message(state.status()));
    return *std::move(state);
  }
  static std::string Whole() {
    FakeAnswerer answerer;
    const auto trials = RunNiah(answerer, Options(answerer));
    PALIMPSEST_CHECK(trials.ok(), "{}", Message(trials.status()));
    return ReportJson(ReportOf(*trials), {});
  }
  std::string Text() const {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Write(const std::string& text) const {
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << text;
  }

  TemporaryFolder folder_;
};

TEST_F(NiahResumeTest, InterruptedAgainAndAgainItGivesTheSameReport) {
  int64_t asked = 0;
  for (int runs = 1;; ++runs) {
    ASSERT_LT(runs, 100);
    FakeAnswerer answerer;
    answerer.cancel_at = 19 + runs;  // half of them in the middle of a conversation, which runs again
    const auto state = State();
    NiahOptions options = Options(answerer);
    options.state = state.get();
    const auto trials = RunNiah(answerer, options);
    asked += answerer.asked;
    if (!trials.ok()) {
      EXPECT_EQ(trials.status().code(), absl::StatusCode::kCancelled);
      continue;
    }
    EXPECT_TRUE(ReportJson(ReportOf(*trials), {}) == Whole());
    EXPECT_GT(runs, 4);
    EXPECT_LE(asked, kAnswers + 2 * (runs - 1)) << "a finished conversation is not asked again";
    break;
  }
}

TEST_F(NiahResumeTest, MakingASampleIsInterruptedToo) {
  for (const int64_t at : {1, 3, 8}) {
    FakeAnswerer answerer;
    answerer.cancel_at_count = at;
    EXPECT_EQ(RunNiah(answerer, Options(answerer)).status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(answerer.counted, at);
    EXPECT_EQ(answerer.asked, 0);
  }
}

TEST_F(NiahResumeTest, ALengthThatNothingReadsIsRefusedBeforeASampleIsMade) {
  FakeAnswerer answerer;
  answerer.longest = 699;
  const absl::Status status = RunNiah(answerer, Options(answerer)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("length 700"), HasSubstr("for 699 tokens")));
  EXPECT_EQ(answerer.counted, 0);
  answerer.longest = 700;
  EXPECT_TRUE(RunNiah(answerer, Options(answerer)).ok());
}

TEST_F(NiahResumeTest, FinishedRunAsksAndReadsNothing) {
  for (int runs = 0; runs < 2; ++runs) {
    FakeAnswerer answerer;
    const auto state = State();
    NiahOptions options = Options(answerer);
    options.state = state.get();
    std::string said;
    options.progress.write = [&](std::string_view text) { said += text; };
    const auto trials = RunNiah(answerer, options);
    ASSERT_TRUE(trials.ok()) << trials.status();
    EXPECT_EQ(answerer.asked, runs == 0 ? kAnswers : 0);
    EXPECT_EQ(answerer.reads, runs == 0 ? 2 * 2 * 2 * 3 : 0);
    EXPECT_TRUE(ReportJson(ReportOf(*trials), {}) == Whole());
    if (runs == 0) {
      EXPECT_THAT(said, HasSubstr("niah: 192 answers to 24 texts; about 2 min 5 s\n"));
      EXPECT_EQ(answerer.estimated, kAnswers);
    } else {
      EXPECT_THAT(said, HasSubstr("192 of 192 answers are in " + path()));
    }
  }
}

TEST_F(NiahResumeTest, KilledWhereverItWasItGivesTheSameReport) {
  const std::string whole = Whole();
  {
    FakeAnswerer answerer;
    const auto state = State();
    NiahOptions options = Options(answerer);
    options.state = state.get();
    ASSERT_TRUE(RunNiah(answerer, options).ok());
  }
  const std::string text = Text();
  for (size_t cut = 0; cut < text.size(); cut += text.size() / 23) {
    Write(text.substr(0, cut));
    FakeAnswerer answerer;
    const auto state = State();
    NiahOptions options = Options(answerer);
    options.state = state.get();
    const auto trials = RunNiah(answerer, options);
    ASSERT_TRUE(trials.ok()) << trials.status();
    EXPECT_TRUE(ReportJson(ReportOf(*trials), {}) == whole) << cut;
    EXPECT_EQ(state->damaged_lines(), 0u) << "a torn line is the last one";
  }
}

// Three of the four are finished.
TEST_F(NiahResumeTest, WhatAFinishedConversationLeftIsThereForThoseStillToCome) {
  for (const bool shared : {false, true}) {
    std::remove(path().c_str());
    for (int runs = 0; runs < 2; ++runs) {
      FakeAnswerer answerer;
      answerer.shared = shared;
      if (runs == 0) answerer.cancel_at = 7;
      const auto state = State();
      const NiahOptions options = OneText(answerer, state.get());
      const auto trials = RunNiah(answerer, options);
      ASSERT_EQ(trials.ok(), runs == 1);
      if (runs == 0) continue;
      const std::vector<std::string> left = {"0 false"};  // the policy's first turn, question hidden
      EXPECT_EQ(answerer.again, shared ? left : std::vector<std::string>());
      EXPECT_EQ(answerer.asked, shared ? 3 : 2);
      EXPECT_EQ(trials->size(), 8u);
    }
  }
}

TEST_F(NiahResumeTest, DamagedLinesRunAgain) {
  {
    FakeAnswerer answerer;
    const auto state = State();
    NiahOptions options = Options(answerer);
    options.state = state.get();
    ASSERT_TRUE(RunNiah(answerer, options).ok());
  }
  std::string text = Text();
  const size_t score = text.find("\"score\":\"1\"");
  ASSERT_NE(score, std::string::npos);
  text[score + 9] = '0';  // a right answer made wrong by hand
  Write(text);
  FakeAnswerer answerer;
  const auto state = State();
  EXPECT_EQ(state->damaged_lines(), 1u);
  NiahOptions options = Options(answerer);
  options.state = state.get();
  const auto trials = RunNiah(answerer, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  EXPECT_EQ(answerer.asked, 2) << "turns of one conversation";
  EXPECT_TRUE(ReportJson(ReportOf(*trials), {}) == Whole());
}

// The first of two that share something runs again: nobody leaves for it what it left itself.
TEST_F(NiahResumeTest, WhatIsAskedAgainIsForLaterConversations) {
  for (int runs = 0; runs < 2; ++runs) {
    FakeAnswerer answerer;
    answerer.shared = true;
    const auto state = State();
    const NiahOptions options = OneText(answerer, state.get());
    ASSERT_TRUE(RunNiah(answerer, options).ok());
    EXPECT_TRUE(answerer.again.empty());
    EXPECT_EQ(answerer.asked, runs == 0 ? 8 : 2);
    if (runs == 1) break;
    std::string text = Text();
    const size_t line = text.find("snapkv:budget=50%");
    ASSERT_NE(line, std::string::npos);
    text[line] = 'S';
    Write(text);
  }
}

TEST_F(NiahResumeTest, OtherSettingsAreRefusedWithTheDifference) {
  State();
  const auto state = NiahState::Open(path(), {{"lengths", "512"}, {"task", "a"}, {"more", "x"}}, "later");
  EXPECT_EQ(state.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(state.status()),
              AllOf(HasSubstr("lengths: 512,700 there, 512 here"), HasSubstr("more: nothing there, x here"),
                    HasSubstr(path()), Not(HasSubstr("task"))));
}

TEST_F(NiahResumeTest, StateKeepsWhenTheRunBegan) {
  State();
  const auto state = NiahState::Open(path(), {{"lengths", "512,700"}, {"task", "a"}}, "later");
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ((*state)->started(), "now");
}

TEST_F(NiahResumeTest, TwoRunsDoNotShareAFile) {
  const auto first = State();
  const auto second = NiahState::Open(path(), {{"lengths", "512,700"}, {"task", "a"}}, "now");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(second.status()), HasSubstr("goes on now"));
}

TEST_F(NiahResumeTest, AnyOtherFileIsRefusedAndStaysAsItIs) {
  State();
  for (const std::string& text :
       {std::string("prose\nmore prose\n"), std::string("{}\n"), std::string("no end")}) {
    Write(text);
    const auto state = NiahState::Open(path(), {{"lengths", "512,700"}, {"task", "a"}}, "now");
    EXPECT_EQ(state.status().code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_EQ(Text(), text);
  }
}

TEST_F(NiahResumeTest, AnswersThatFailAloneAreHolesAndRunAgain) {
  {
    FakeAnswerer answerer;
    answerer.alone = true;
    answerer.fails_from = 21;
    answerer.fails_until = 30;
    const auto state = State();
    NiahOptions options = Options(answerer);
    options.state = state.get();
    const auto trials = RunNiah(answerer, options);
    ASSERT_TRUE(trials.ok()) << trials.status();
    EXPECT_EQ(trials->size(), static_cast<size_t>(kAnswers)) << "the run went on";
    const auto failed = std::count_if(trials->begin(), trials->end(), [](const NiahTrial& trial) {
      return trial.failed == "connection refused";
    });
    EXPECT_EQ(failed, 2 * 9) << "a conversation whose first question failed has no second one";
    int64_t n = 0, holes = 0;
    for (const NiahCell& cell : ReportOf(*trials).cells) {
      n += cell.n;
      holes += cell.failed;
    }
    EXPECT_EQ(n, kAnswers - 18);
    EXPECT_EQ(holes, 18);
  }
  FakeAnswerer answerer;
  const auto state = State();
  NiahOptions options = Options(answerer);
  options.state = state.get();
  const auto trials = RunNiah(answerer, options);
  ASSERT_TRUE(trials.ok()) << trials.status();
  EXPECT_EQ(answerer.asked, 9 * 2) << "the conversations that had holes";
  EXPECT_TRUE(ReportJson(ReportOf(*trials), {}) == Whole());
}

TEST_F(NiahResumeTest, ErrorOfAnEngineEndsTheRunWithTheSamplesName) {
  FakeAnswerer answerer;
  answerer.fails_from = 1;
  answerer.fails_until = 2;
  const auto trials = RunNiah(answerer, Options(answerer));
  EXPECT_THAT(Message(trials.status()),
              HasSubstr("facts_noise, 512 tokens, depth 0 %, seed 1: connection refused"));
}

TEST(NiahTrialTest, AllOfATrialComesBackToTheLastBit) {
  NiahTrial trial{.task = "a", .depth_percent = 100.0 / 3, .seed = ~uint64_t{0}, .answer = "cut \xe2\x82"};
  trial.score = 0.1 + 0.2;
  trial.first_token_seconds = 1e-17;
  const auto object = TrialToJson(trial);
  const auto back = TrialFromJson(boost::json::parse(boost::json::serialize(object)).as_object());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->answer, trial.answer);
  EXPECT_EQ(back->seed, trial.seed);
  EXPECT_EQ(back->depth_percent, trial.depth_percent);
  EXPECT_EQ(back->score, trial.score);
  EXPECT_EQ(back->first_token_seconds, trial.first_token_seconds);
  auto broken = object;
  broken.erase("score");
  EXPECT_THAT(Message(TrialFromJson(broken).status()), HasSubstr("score"));
}

}  // namespace
}  // namespace palimpsest
