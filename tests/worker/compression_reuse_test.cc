// What was read once is not read again, and found is the same as read, bit for bit: a document's blocks, its
// spans', the view that a policy left of it. And what never fills a pot was never in one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "storage/tier/faulty_tier.h"
#include "tests/testing/temporary_folder.h"
#include "tests/worker/compression_cases.h"
#include "worker/compression/policy.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

class CompressionReuseTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> Make(int64_t view_bytes = 1 << 24, int64_t host_bytes = 1 << 24) {
    TinyEngineOptions options = CompressionEngine(90);
    options.view_bytes = view_bytes;
    options.host_bytes = host_bytes;
    return MakeTinyEngine(model_, options);
  }
  // The same request without its question and its answer.
  static Request IngestOf(const Request& request) {
    Request ingest = request;
    if (ingest.segments.back().role == Segment::Role::kQuestion) ingest.segments.pop_back();
    ingest.sampling.set_max_tokens(0);
    ingest.top = 0;
    return ingest;
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

class CompressionViewTest : public CompressionReuseTest,
                            public ::testing::WithParamInterface<CompressionCase> {
 protected:
  static bool HasView() {
    const bool slides = GetParam().policy.starts_with("streaming") && GetParam().mode == kExact;
    return !slides && !GetParam().visible && GetParam().policy != "full";
  }
  // Something of every row is wanted: without a view all but the prefix is read again.
  static bool ReadsAll() {
    const auto policy = MakePolicy(*ParsePolicy(GetParam().policy));
    if (policy == nullptr) return GetParam().mode == kPot;
    const PolicyNeeds needs = policy->needs();
    return GetParam().mode == kPot || needs.sums || needs.future > 0 || needs.losses;
  }
  // In a pot cycles that were run by another request are not told.
  static std::string Difference(const Answer& a, const Answer& b) {
    std::string text = testing::Difference(a, b, /*kept=*/false);
    if (text.empty() && GetParam().mode != kPot && a.outcome.kept != b.outcome.kept) text = "what was kept";
    return text;
  }
};

TEST_P(CompressionViewTest, AskedAfterAnIngestIsAskedInOneGo) {
  const Request request = CompressionRequest(GetParam(), 120);
  const Answer whole = AnswerOf(*Make(), request);
  EXPECT_EQ(whole.outcome.usage.cached_tokens(), 0);
  for (const int64_t view_bytes : {0, 1 << 24}) {
    auto engine = Make(view_bytes);
    const Outcome ingest = RunOk(*engine, IngestOf(request));
    EXPECT_EQ(ingest.usage.cached_tokens(), 0);
    EXPECT_EQ(ingest.finish_reason, "stop");
    for (int again = 0; again < 2; ++again) {
      const Answer answer = AnswerOf(*engine, request);
      EXPECT_EQ(Difference(whole, answer), "") << view_bytes << " bytes for views";
      const int64_t cached = answer.outcome.usage.cached_tokens();
      if (HasView() && view_bytes > 0) {
        EXPECT_EQ(cached, 392);
      } else if (ReadsAll() && !(again > 0 && view_bytes > 0 && GetParam().mode == kExact)) {
        EXPECT_LE(cached, GetParam().mode == kPot ? 0 : 21) << "without a view it reads all of it, once";
      } else {
        EXPECT_GT(cached, 250);
        EXPECT_LE(cached, 392);
      }
    }
    ExpectAllReturned(*engine);
  }
}

TEST_P(CompressionViewTest, AnotherQuestionFindsIt) {
  const Request first = CompressionRequest(GetParam(), 30);
  Request second = first;
  second.segments.back().tokens = RandomTokens(90, 4711);
  const Answer alone = AnswerOf(*Make(), second);
  auto engine = Make();
  AnswerOf(*engine, first);
  const Answer answer = AnswerOf(*engine, second);
  EXPECT_EQ(Difference(alone, answer), "");
  if (HasView()) {
    EXPECT_EQ(answer.outcome.usage.cached_tokens(), 392);
  }
}

TEST_P(CompressionViewTest, AnotherPolicyDoesNot) {
  auto engine = Make();
  RunOk(*engine, IngestOf(CompressionRequest(GetParam(), 1)));
  for (const CompressionCase& other : CompressionCases()) {
    if (other.name == GetParam().name || other.mode != GetParam().mode) continue;
    const Request request = CompressionRequest(other, 10);
    EXPECT_EQ(Difference(AnswerOf(*Make(), request), AnswerOf(*engine, request)), "") << other.name;
  }
}

// The blocks of the spans are gone from the device, and the view is too small to be kept.
TEST_P(CompressionViewTest, FromBlocksInTheHostTier) {
  const Request request = CompressionRequest(GetParam(), 60);
  for (const int64_t host_bytes : {int64_t{0}, int64_t{1} << 15, int64_t{1} << 24}) {
    auto engine = Make(0, host_bytes);
    const Answer whole = AnswerOf(*engine, request);
    ExpectAllReturned(*engine);
    const Answer again = AnswerOf(*engine, request);
    EXPECT_EQ(Difference(whole, again), "") << host_bytes << " bytes of host";
    const int64_t cached = again.outcome.usage.cached_tokens();
    if (host_bytes == 0 || GetParam().mode == kPot) {
      EXPECT_EQ(cached, 0);
    } else if (host_bytes == 1 << 24 && !ReadsAll()) {
      EXPECT_GT(cached, 250);
    } else {
      EXPECT_LT(cached, 250);
    }
    ExpectAllReturned(*engine);
  }
}

TEST_P(CompressionViewTest, AnotherTenantFindsNothing) {
  auto engine = Make();
  const Request request = CompressionRequest(GetParam(), 10);
  const Answer first = AnswerOf(*engine, request);
  Request other = request;
  other.cache_domain = CacheDomain{1};
  const Answer second = AnswerOf(*engine, other);
  EXPECT_EQ(Difference(first, second), "");
  EXPECT_EQ(second.outcome.usage.cached_tokens(), 0);
}

// What was seen of every token (sums, losses, queries, scores) is the context's, and found by all.
TEST_P(CompressionViewTest, MeasuredUnderAnotherNameItBeginsWithTheBlocksOfTheContext) {
  const auto policy = MakePolicy(*ParsePolicy(GetParam().policy));
  auto engine = Make();
  Request request = CompressionRequest(GetParam(), 10);
  RunOk(*engine, IngestOf(request));
  std::vector<Answer> answers;
  for (const char* const name : {"a", "b", "a"}) {
    request.measured_as = name;
    engine->store().DropUnpinned();
    answers.push_back(AnswerOf(*engine, request));
    EXPECT_EQ(Difference(answers.front(), answers.back()), "");
  }
  const auto cached = [&](size_t i) { return answers[i].outcome.usage.cached_tokens(); };
  const auto peak = [&](size_t i) { return answers[i].outcome.receipt.device_bytes().peak(); };
  if (!ReadsAll() && (policy == nullptr || policy->needs().repeat == 0)) {
    EXPECT_EQ(cached(1), cached(0));
    EXPECT_EQ(peak(1), peak(0));
  }
  if (HasView()) {
    EXPECT_EQ(cached(2), 392);
  }
}

// A prompt that ends with its context: its last token must run, whatever was kept of it.
TEST_P(CompressionViewTest, AnAnswerWithoutAQuestionAfterAnIngest) {
  if (GetParam().mode == kAnchored) return;  // refused
  Request request = CompressionRequest(GetParam(), 70);
  request.segments.pop_back();
  const Answer whole = AnswerOf(*Make(), request);
  EXPECT_EQ(whole.outcome.tokens.size(), 70u);
  auto engine = Make();
  RunOk(*engine, IngestOf(request));
  EXPECT_EQ(testing::Difference(whole, AnswerOf(*engine, request), GetParam().mode != kPot), "");
}

INSTANTIATE_TEST_SUITE_P(All, CompressionViewTest, ::testing::ValuesIn(CompressionCases()),
                         CompressionCaseName);

// --- scores of a document

// What repeating a text said of it serves every budget.
class ScoresTest : public CompressionReuseTest, public ::testing::WithParamInterface<PrefillMode> {
 protected:
  static Request Of(const std::string& parameters) {
    const std::vector<int64_t> documents =
        GetParam() == kAnchored ? std::vector<int64_t>{150, 90, 131} : std::vector<int64_t>{371};
    return CompressionRequest(GetParam(), "kvzip:chunk=64," + parameters, RolePrompt(documents, 37), 20);
  }
  // The parts of 64 tokens that are repeated take steps of their own.
  static int64_t StepsOf(Engine& engine, const Request& request) {
    const int64_t before = engine.stats().steps;
    RunOk(engine, request);
    return engine.stats().steps - before;
  }
};

TEST_P(ScoresTest, AnotherBudgetRepeatsNothing) {
  std::vector<std::string> all = {"budget=90", "budget=200", "budget=50%"};
  if (GetParam() == kExact) all.push_back("budget=90,merge=values");
  for (const std::string& parameters : all) {
    const Answer alone = AnswerOf(*Make(), Of(parameters));
    auto engine = Make();
    RunOk(*engine, IngestOf(Of("budget=120")));
    EXPECT_EQ(Difference(alone, AnswerOf(*engine, Of(parameters))), "") << parameters;
    ExpectAllReturned(*engine);
  }
  auto engine = Make(), other = Make();
  const int64_t first = StepsOf(*engine, Of("budget=120"));
  EXPECT_LT(StepsOf(*engine, Of("budget=90")), first - 6) << "parts";
  // Whoever repeats it otherwise learns otherwise.
  RunOk(*other, Of("budget=120"));
  for (const char* parameters : {"budget=120,attend=all", "budget=120,chunk=128"}) {
    Request request = Of("budget=120");
    request.policy = *ParsePolicy(fmt::format("kvzip:{}", parameters));
    EXPECT_EQ(Difference(AnswerOf(*Make(), request), AnswerOf(*other, request)), "") << parameters;
  }
  // A question that the policy sees is part of what is repeated.
  Request visible = Of("budget=120");
  visible.question_visible = true;
  EXPECT_EQ(Difference(AnswerOf(*Make(), visible), AnswerOf(*engine, visible)), "");
}

TEST_P(ScoresTest, TheySurviveARestartAndAreMissedWhenDamaged) {
  const Answer alone = AnswerOf(*Make(), Of("budget=90"));
  for (const double corrupt : {0.0, 1.0}) {
    const TemporaryFolder folder;
    TinyEngineOptions options = CompressionEngine(90);
    options.ssd_folder = folder.path() + "/tier";
    options.host_bytes = 0;
    RunOk(*MakeTinyEngine(model_, options), IngestOf(Of("budget=120")));
    options.wrap_ssd = [&](std::unique_ptr<Tier> inner) {
      TierFaults faults;
      faults.get_corrupt = corrupt;
      return MakeFaultyTier(std::move(inner), faults);
    };
    auto engine = MakeTinyEngine(model_, options);
    const int64_t before = engine->stats().steps;
    EXPECT_EQ(Difference(alone, AnswerOf(*engine, Of("budget=90"))), "");
    const int64_t steps = engine->stats().steps - before;
    const int64_t anew = StepsOf(*MakeTinyEngine(model_, CompressionEngine(90)), Of("budget=90"));
    if (corrupt > 0) {
      EXPECT_GE(steps, anew);
    } else {
      EXPECT_LT(steps, anew - 6);
    }
  }
}

TEST_P(ScoresTest, AfterGivingWayTheyAreTakenAsTheyAre) {
  const Answer whole = AnswerOf(*Make(0), Of("budget=90"));
  for (int at = 1; at < 30; at += 3) {
    TinyEngineOptions options = CompressionEngine(40);
    options.arena_groups = 20;
    options.view_bytes = 1 << 24;
    auto engine = MakeTinyEngine(model_, options);
    Request background = Of("budget=90");
    background.background = true;
    background.top = kTinyVocabulary;
    std::vector<Engine::JobId> jobs = {engine->Submit(std::move(background)).value()};
    for (int i = 0; i < at; ++i) engine->Step();
    jobs.push_back(engine->Submit(MakeRequest(Prompt(800, 10, 9), 200)).value());
    const Outcome outcome = std::move(Drain(*engine, jobs)[0]);
    EXPECT_EQ(outcome.tokens, whole.outcome.tokens) << at;
    EXPECT_EQ(outcome.kept, whole.outcome.kept) << at;
    EXPECT_EQ(Difference(AnswerOf(*Make(0), Of("budget=130")), AnswerOf(*engine, Of("budget=130"))), "");
    ExpectAllReturned(*engine);
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, ScoresTest, ::testing::Values(kExact, kAnchored),
                         [](const auto& test) { return test.param == kExact ? "exact" : "anchored"; });

// --- pots of every fill

class PotFillTest : public CompressionReuseTest, public ::testing::WithParamInterface<std::string> {};

// Whatever the context's length, so also where a stretch ends exactly with it.
TEST_P(PotFillTest, AContextOfAnyLengthIsTheSameInOneGo) {
  const std::string policy = "infinipot:pot=64,keep=24," + GetParam();
  for (int64_t document = 36; document < 100; ++document) {
    const Request request = CompressionRequest(kPot, policy, RolePrompt({document}, 5, 3, 5), 30);
    auto engine = Make();
    const Answer whole = AnswerOf(*Make(0), request);
    RunOk(*engine, IngestOf(request));
    EXPECT_EQ(Difference(whole, AnswerOf(*engine, request), false), "") << document;
    ExpectAllReturned(*engine);
  }
}

// The window's tokens of a full pot vote before the question comes: a pot with nobody to vote keeps what is
// first.
TEST_P(PotFillTest, AFullPotAtTheContextsEndIsDistilledByItsOwnTokens) {
  const std::string policy = "infinipot:pot=128,keep=64,alpha=0," + GetParam();
  const int64_t probe = GetParam() == "score=cap" ? kCatalystTokens : 0;
  const int64_t full = 128 - probe + 2 * (128 - 64 - probe);
  Request request = CompressionRequest(kPot, policy, RolePrompt({full}, 5, 3, 0), 3);
  const Answer whole = AnswerOf(*Make(), request);
  ASSERT_GE(whole.outcome.cycles.size(), 3u);
  // The same tokens with more behind them in the context: there the third cycle is an ordinary one.
  request.segments[0].tokens.push_back(17);
  const Answer more = AnswerOf(*Make(), request);
  EXPECT_EQ(whole.outcome.cycles[2], more.outcome.cycles[2]);
}

INSTANTIATE_TEST_SUITE_P(Scores, PotFillTest,
                         ::testing::Values("score=cap", "score=snapkv", "score=random", "score=streaming"),
                         [](const auto& test) { return test.param.substr(6); });

TEST_F(CompressionReuseTest, APotThatNeverFillsIsDense) {
  for (const int64_t left : {0, 1, 40}) {
    // 200 with the catalyst: prompt and answer leave `left` of them.
    const int64_t document = 200 - kCatalystTokens - left - 21 - 10 - 30;
    const Request pot = CompressionRequest(kPot, "infinipot:pot=200,keep=80", RolePrompt({document}, 10), 30);
    const Answer dense =
        AnswerOf(*Make(), CompressionRequest(kExact, "full", RolePrompt({document}, 10), 30));
    const Answer answer = AnswerOf(*Make(), pot);
    EXPECT_EQ(Difference(dense, answer), "") << left;
    EXPECT_TRUE(answer.outcome.cycles.empty());
    EXPECT_TRUE(answer.outcome.kept.empty());
  }
}

// The prompt fits, only the answer does not: dense up to there.
TEST_F(CompressionReuseTest, APotIsDenseUntilItsFirstCycle) {
  const Request pot = CompressionRequest(kPot, "infinipot:pot=200,keep=80", RolePrompt({120}, 10), 100);
  const Answer dense = AnswerOf(*Make(), CompressionRequest(kExact, "full", RolePrompt({120}, 10), 100));
  const Answer answer = AnswerOf(*Make(), pot);
  EXPECT_EQ(LogitsOf(dense.outcome), LogitsOf(answer.outcome));
  // 193 of context, question and answer are in the pot without a cycle; so 42 rows of the answer saw it all.
  for (size_t i = 0; i < 43; ++i) {
    EXPECT_EQ(dense.outcome.tokens[i], answer.outcome.tokens[i]) << i;
    EXPECT_EQ(dense.log_probabilities[i], answer.log_probabilities[i]) << i;
  }
  EXPECT_GE(answer.outcome.cycles.size(), 1u);
}

TEST_F(CompressionReuseTest, EqualSpansOfDifferentDocumentsAreShared) {
  const std::string policy = "snapkv:budget=60,window=16";
  std::vector<Segment> first = RolePrompt({64, 100, 70}, 12), second = RolePrompt({130, 10, 30}, 12, 2);
  second[2] = first[2];  // its second span is the other's second
  const Request request = CompressionRequest(kAnchored, policy, second, 20);
  const Answer alone = AnswerOf(*Make(0), request);
  auto engine = Make(0);
  AnswerOf(*engine, CompressionRequest(kAnchored, policy, first, 20));
  const Answer shared = AnswerOf(*engine, request);
  EXPECT_EQ(Difference(alone, shared), "");
  EXPECT_EQ(shared.outcome.usage.cached_tokens(), 21 + 64) << "the prefix, and the first block of the span";
  // With nothing that looks at it, the whole of it.
  const Request lots = CompressionRequest(kAnchored, "random:budget=60", second, 20);
  EXPECT_EQ(AnswerOf(*engine, lots).outcome.usage.cached_tokens(), 21 + 130 + 100 + 30);
}

// A text that comes twice is one span twice: its blocks once, its tokens in both places.
TEST_F(CompressionReuseTest, OneSpanTwiceInOnePrompt) {
  for (const char* policy : {"full", "random:budget=60", "snapkv:budget=60,window=16"}) {
    std::vector<Segment> segments = RolePrompt({100, 100}, 12);
    segments[2] = segments[1];
    auto engine = Make(0);
    const Answer answer = AnswerOf(*engine, CompressionRequest(kAnchored, policy, segments, 20));
    const Answer again = AnswerOf(*engine, CompressionRequest(kAnchored, policy, segments, 20));
    EXPECT_EQ(Difference(answer, again), "");
    EXPECT_GE(answer.outcome.usage.cached_tokens(), 64);
    ExpectAllReturned(*engine);
  }
}

}  // namespace
}  // namespace palimpsest::testing
