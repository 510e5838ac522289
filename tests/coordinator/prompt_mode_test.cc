// How prompts are read and what stays, as the planner decides it. Tokens are bytes.
#include "coordinator/prompt_mode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/prompt_plan.h"
#include "proto/base/status.h"
#include "tests/coordinator/byte_tokenizer.h"

namespace palimpsest::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Kind = PolicySpec::Kind;

// The prefix "<start>u:" and the tail "<end>a:" have 3 tokens each.
constexpr char kTemplate[] =
    "{% for m in messages %}{{ '<start>' + m.role[0] + ':' + m.content + '<end>' }}{% endfor %}a:";
constexpr int64_t kPrefix = 3, kTail = 3;
constexpr int64_t kWindow = 1000, kSpan = 200;

PromptPlanner Planner(int64_t window = kWindow) {
  const auto chat_template = ChatTemplate::Parse(kTemplate);
  PALIMPSEST_CHECK(chat_template.ok(), "{}", Message(chat_template.status()));
  auto planner = PromptPlanner::Create(
      ByteTokenizer(), *chat_template, {},
      {.model = "Tiny", .window_tokens = window, .question_bytes = 1 << 20, .span_tokens = kSpan});
  PALIMPSEST_CHECK(planner.ok(), "{}", Message(planner.status()));
  return std::move(*planner);
}

PromptDocument Document(size_t tokens) {
  return {.name = "a", .tokens = std::vector<int32_t>(tokens, 'x'), .known = true};
}

PromptOptions Options(std::string_view policy, std::string_view prefill = "auto", bool visible = false) {
  const auto spec = ParsePolicy(policy);
  PALIMPSEST_CHECK(spec.ok(), "{}", Message(spec.status()));
  return {.prefill = *ParsePrefill(prefill), .policy = *spec, .question_visible = visible};
}

// A question of `question` tokens, the template and "\n\n" with it, about documents of these sizes.
absl::StatusOr<PromptPlan> Plan(const std::vector<size_t>& documents, const PromptOptions& options,
                                size_t question = 10, int64_t window = kWindow) {
  std::vector<PromptDocument> all;
  for (const size_t tokens : documents) all.push_back(Document(tokens));
  const size_t around = static_cast<size_t>(kTail) + (documents.empty() ? 0 : 2);
  return Planner(window).PlanQuestion(std::move(all), std::string(question - around, 'q'), options);
}

// One line, marked as a prompt that is too long or not.
std::string ErrorOf(const absl::StatusOr<PromptPlan>& plan, bool over_window) {
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << plan.status();
  EXPECT_EQ(IsOverWindow(plan.status()), over_window) << plan.status();
  EXPECT_EQ(Message(plan.status()).find('\n'), std::string::npos);
  return Message(plan.status());
}

struct Row {
  std::vector<size_t> documents;
  const char* prefill;
  const char* policy;
  proto::Prefill mode;
  const char* text;    // of the policy, its beginning
  const char* reason;  // a part of it
};

TEST(PromptModeTest, AutoChoosesByDocumentsAndLength) {
  // The prefix, a question of 10 and one token of the answer leave 986 to a document.
  const Row table[] = {
      {{}, "auto", "auto", proto::EXACT, "full", "13 tokens fit the model's window of 1000"},
      {{986}, "auto", "auto", proto::EXACT, "full", "999 tokens fit the model's window of 1000"},
      {{987}, "auto", "auto", proto::ANCHORED, "snapkv:budget=500,", "1000 tokens are more than"},
      {{5000}, "auto", "auto", proto::ANCHORED, "snapkv:", "5013 tokens are more than"},
      {{50, 60}, "auto", "auto", proto::ANCHORED, "full", "2 documents"},
      {{500, 600}, "auto", "auto", proto::ANCHORED, "snapkv:", "2 documents"},
      {{50}, "auto", "snapkv:budget=40", proto::EXACT, "snapkv:budget=40,", "63 tokens fit"},
      {{2000}, "auto", "random:budget=40", proto::ANCHORED, "random:budget=40", "2013 tokens are more than"},
      {{500, 400}, "exact", "auto", proto::EXACT, "full", "asked for"},
      {{50}, "anchored", "auto", proto::ANCHORED, "full", "asked for"},
      {{50}, "auto", "infinipot", proto::POT, "infinipot:pot=4096", "policy infinipot"},
      {{50}, "pot", "auto", proto::POT, "infinipot:pot=", "asked for"},
      {{50}, "pot", "full", proto::POT, "infinipot:pot=", "asked for"},
      {{}, "pot", "snapkv", proto::POT, "infinipot:pot=", "asked for"},
  };
  for (const Row& row : table) {
    const auto plan =
        Plan(row.documents, Options(row.policy, row.prefill), 10, row.mode == proto::POT ? 5000 : kWindow);
    ASSERT_TRUE(plan.ok()) << row.prefill << " " << row.policy << ": " << plan.status();
    EXPECT_EQ(plan->mode.prefill, row.mode) << row.prefill << " " << row.policy;
    EXPECT_EQ(plan->prefill, PrefillName(row.mode));
    EXPECT_THAT(PolicyText(plan->mode.policy), StartsWith(row.text));
    EXPECT_THAT(plan->prefill_reason, HasSubstr(row.reason));
  }
}

TEST(PromptModeTest, AutoRecallComesWhereSomethingIsDroppedAndHalfOfTheRoomIsLeft) {
  struct Case {
    std::vector<size_t> documents;
    const char* policy;
    bool visible;
    int64_t budget;  // 0: none
    int64_t window = kWindow;
  };
  const Case table[] = {
      {{986}, "auto", false, 0},                // nothing is dropped
      {{987}, "auto", false, 240},              // (1000 - 500 - 10) / 2, in slices of 16
      {{50}, "snapkv:budget=40", false, 464},   // (1000 - 40 - 10) / 2 is 475
      {{50}, "snapkv:budget=90", false, 0},     // with room for all of it
      {{50}, "snapkv:budget=40", true, 0},      // the policy chose for it already
      {{50}, "streaming:recent=20", false, 0},  // its window slides
      {{50}, "infinipot", false, 0},            // positions are gone
      {{}, "snapkv:budget=40", false, 0},       // no documents
      {{987}, "snapkv:budget=960", false, 0},   // (1000 - 960 - 10) / 2 is less than a slice
      {{500, 600}, "random:budget=40", false, 464},
      {{4000}, "snapkv:budget=400", false, 1024, 5000},  // within the window
      {{5000}, "snapkv:budget=400", false, 512, 5000},   // beyond it
  };
  for (const Case& row : table) {
    const bool pot = std::string_view(row.policy) == "infinipot";
    const auto plan =
        Plan(row.documents, Options(row.policy, "auto", row.visible), 10, pot ? 5000 : row.window);
    ASSERT_TRUE(plan.ok()) << row.policy << ": " << plan.status();
    EXPECT_EQ(plan->mode.recall.on(), row.budget > 0) << row.policy;
    EXPECT_NE(plan->mode.recall.kind, RecallSpec::Kind::kAuto);
    EXPECT_LE(plan->mode.recalled, plan->mode.recall.on() ? row.budget : 0) << row.policy;
    if (row.budget > 0) {
      EXPECT_EQ(plan->mode.recall.budget, row.budget) << row.policy;
    }
  }
  PromptOptions none = Options("snapkv:budget=40");
  none.recall = {};
  EXPECT_FALSE(Plan({987}, none)->mode.recall.on());
  const auto ingest = Planner().PlanDocument(Document(2000));
  ASSERT_TRUE(ingest.ok());
  EXPECT_FALSE(ingest->mode.recall.on()) << "nobody asks";
}

TEST(PromptModeTest, AnEndlessPromptIsReadThroughAPotThatTheWindowHolds) {
  const PromptPlanner planner = Planner();
  for (const auto& plan :
       {planner.PlanText(std::string(1000, 'x'), {}), planner.PlanTokens(std::vector<int32_t>(1000, 'x'), {}),
        planner.PlanChat({}, {{"user", std::string(1000, 'x')}}, {})}) {
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->mode.prefill, proto::POT);
    EXPECT_EQ(plan->mode.policy.pot.value, kWindow);
    EXPECT_THAT(plan->prefill_reason, HasSubstr("are more than the model's window of 1000"));
    EXPECT_EQ(plan->sizes.question, 0);
  }
  EXPECT_EQ(planner.PlanText(std::string(999, 'x'), {})->mode.prefill, proto::EXACT);
}

TEST(PromptModeTest, AnyPolicyScoresInThePot) {
  const auto plan = Plan({50}, Options("streaming", "pot"), 10, 5000);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->mode.policy.score, "streaming");
  EXPECT_THAT(plan->catalyst, IsEmpty());
  EXPECT_THAT(ErrorOf(Plan({50}, Options("snapkv:budget=512", "pot"), 10, 5000), false),
              AllOf(HasSubstr("budget=512"), HasSubstr("infinipot:score=snapkv")));
  EXPECT_EQ(Plan({50}, Options("adakv", "pot"), 10, 5000)->mode.policy.score, "adakv");
  // What is repeated is asked for.
  const auto repeats = Plan({50}, Options("infinipot:score=kvzip", "pot"), 10, 5000);
  ASSERT_TRUE(repeats.ok()) << repeats.status();
  EXPECT_THAT(repeats->catalyst, Not(IsEmpty()));
}

// What was merged cannot come back beside what it was merged into, nor be merged a span or a pot at a time.
TEST(PromptModeTest, MergingRefusesRecallAndThePot) {
  for (const char* policy :
       {"lookm", "snapkv:budget=100,merge=values", "h2o:heavy=50,recent=50,merge=averaged"}) {
    const auto plan = Plan({800}, Options(policy));
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_FALSE(plan->mode.recall.on()) << policy;
    PromptOptions recalls = Options(policy);
    recalls.recall = {.kind = RecallSpec::Kind::kSlices};
    EXPECT_THAT(ErrorOf(Plan({800}, recalls), false), HasSubstr("merged into them")) << policy;
  }
  EXPECT_TRUE(Plan({800}, Options("lookm:merge=none"))->mode.recall.on());
  EXPECT_THAT(ErrorOf(Plan({50}, Options("lookm", "pot"), 10, 5000), false),
              AllOf(HasSubstr("merges what it drops"), HasSubstr("infinipot:score=lookm")));
  EXPECT_THAT(ErrorOf(Plan({400, 300}, Options("lookm")), false),
              AllOf(HasSubstr("span by span (2 documents"), HasSubstr("at most 1000 tokens, or merge=none")));
  EXPECT_TRUE(Plan({400, 300}, Options("lookm", "exact")).ok());
  EXPECT_TRUE(Plan({400, 300}, Options("lookm:merge=none")).ok());
  EXPECT_EQ(Plan({50}, Options("h2o", "pot"), 10, 5000)->mode.policy.score, "h2o");
}

// What is in 2 bits neither moves nor gets slices beside it; it goes with every policy that keeps tokens
// where they are.
TEST(PromptModeTest, TwoBitsRefuseRecallThePotAndDocumentsThatAreMoved) {
  PromptOptions recalls = Options("snapkv:budget=100,kv=kivi2");
  EXPECT_FALSE(Plan({800}, recalls)->mode.recall.on());
  EXPECT_TRUE(Plan({800}, Options("snapkv:budget=100"))->mode.recall.on());
  recalls.recall = {.kind = RecallSpec::Kind::kSlices};
  EXPECT_THAT(ErrorOf(Plan({800}, recalls), false),
              AllOf(HasSubstr("policy snapkv and kv=kivi2"), HasSubstr("kv=bf16, or recall none")));
  for (const char* policy : {"full:kv=kivi2", "keydiff:kv=kivi2"}) {
    EXPECT_THAT(ErrorOf(Plan({50}, Options(policy, "pot"), 10, 5000), false),
                AllOf(HasSubstr("kv=kivi2 in a pot"), HasSubstr("prefill exact or anchored")))
        << policy;
    EXPECT_TRUE(Plan({800}, Options(policy)).ok());
  }
  EXPECT_THAT(ErrorOf(Plan({400, 300}, Options("full:kv=kivi2")), false),
              AllOf(HasSubstr("span by span"), HasSubstr("2 documents"),
                    HasSubstr("prefill exact with at most 1000")));
  EXPECT_TRUE(Plan({400, 300}, Options("full:kv=kivi2", "exact")).ok());
  EXPECT_TRUE(Plan({400, 300}, Options("snapkv:budget=100,kv=kivi2")).ok());
}

// What goes while the answer grows was there for all of the text, and does not come back.
TEST(PromptModeTest, EvictingRefusesRecallSpansAndThePot) {
  for (const char* policy :
       {"h2o:heavy=50,recent=50,decode=evict", "tova:budget=100,decode=evict", "roco:decode=evict"}) {
    const auto plan = Plan({800}, Options(policy));
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_FALSE(plan->mode.recall.on()) << policy;
    PromptOptions recalls = Options(policy);
    recalls.recall = {.kind = RecallSpec::Kind::kSlices};
    EXPECT_THAT(ErrorOf(Plan({800}, recalls), false),
                AllOf(HasSubstr("recall slices"), HasSubstr("decode=evict"), HasSubstr("decode=keep")));
    EXPECT_THAT(ErrorOf(Plan({400, 300}, Options(policy)), false),
                AllOf(HasSubstr("span by span (2 documents"), HasSubstr("or decode=keep")));
    EXPECT_TRUE(Plan({400, 300}, Options(policy, "exact")).ok());
    EXPECT_THAT(ErrorOf(Plan({50}, Options(policy, "pot"), 10, 5000), false), HasSubstr("infinipot:score="));
  }
}

// Behind the prefix: an image's place counts from the documents' first token.
TEST(PromptModeTest, HardTextPriorKeepsWhatIsNoImage) {
  const PromptMode mode = Plan({800}, Options("lookm:text_prior=hard,images=100-600"))->mode;
  EXPECT_EQ(mode.kept, mode.candidates - 500);
  for (const bool visible : {false, true}) {
    const PromptOptions options = Options("lookm:images=100-801", "exact", visible);
    EXPECT_THAT(ErrorOf(Plan({800}, options), false), HasSubstr("0 to 800"));
  }
}

TEST(PromptModeTest, WishesThatExcludeEachOtherAreRefused) {
  for (const char* prefill : {"exact", "anchored"}) {
    EXPECT_THAT(ErrorOf(Plan({50}, Options("infinipot", prefill)), false),
                AllOf(HasSubstr("through its pot"), HasSubstr(prefill), HasSubstr("prefill pot or auto")));
  }
  EXPECT_THAT(ErrorOf(Plan({}, Options("auto", "anchored")), false), HasSubstr("there are 0 documents"));
}

TEST(PromptModeTest, ExactBeyondTheWindowNamesBothNumbersAndTheRemedy) {
  EXPECT_TRUE(Plan({986}, Options("auto", "exact")).ok());
  EXPECT_THAT(ErrorOf(Plan({987}, Options("auto", "exact")), true),
              AllOf(HasSubstr("1000 tokens (987 of the document"), HasSubstr("trained for 1000"),
                    HasSubstr("prefill auto")));
  EXPECT_THAT(ErrorOf(Plan({500, 700}, Options("auto", "exact")), true), HasSubstr("1200 of 2 documents"));
  EXPECT_THAT(ErrorOf(Plan({}, Options("auto", "exact"), 2000), true), HasSubstr("2003 tokens"));
}

TEST(PromptModeTest, FullBeyondTheWindowNamesThePoliciesThatKeepFewer) {
  EXPECT_THAT(ErrorOf(Plan({5000}, Options("full")), true),
              AllOf(HasSubstr("5013 tokens"), HasSubstr("1000"), HasSubstr("snapkv")));
  EXPECT_THAT(ErrorOf(Plan({600, 600}, Options("full", "anchored")), true), HasSubstr("snapkv"));
  EXPECT_THAT(ErrorOf(Plan({}, Options("full"), 2000), true), HasSubstr("infinipot"));
}

TEST(PromptModeTest, SpansAreSegmentsOfTheirDocuments) {
  std::string text;
  while (text.size() < 1500) text += "Some words of a line that is long enough.\n\n";
  const PromptPlanner planner = Planner();
  const auto tokens = planner.TokenizeDocument("a", text);
  ASSERT_TRUE(tokens.ok());
  const auto ask =
      planner.PlanQuestion({{.name = "a", .tokens = *tokens, .known = true}, Document(70)}, "q", {});
  const auto ingest = planner.PlanDocument({.name = "a", .tokens = *tokens});
  ASSERT_TRUE(ask.ok() && ingest.ok()) << ask.status() << ingest.status();
  ASSERT_EQ(ingest->mode.prefill, proto::ANCHORED);
  EXPECT_EQ(PolicyText(ingest->mode.policy), PolicyText(ask->mode.policy));
  std::vector<int32_t> all;
  for (size_t i = 1; i < ingest->segments.size(); ++i) {
    const PromptSegment& span = ingest->segments[i];
    EXPECT_EQ(span.kind, PromptSegment::Kind::kDocument);
    EXPECT_LE(span.tokens.size(), static_cast<size_t>(kSpan));
    EXPECT_LE(span.tokens.size(), static_cast<size_t>(ingest->longest_span));
    EXPECT_EQ(span.tokens, ask->segments[i].tokens) << "a question finds what was ingested";
    EXPECT_TRUE(ask->segments[i].known);
    all.insert(all.end(), span.tokens.begin(), span.tokens.end());
  }
  EXPECT_EQ(all, *tokens);
  ASSERT_EQ(ask->segments.size(), ingest->segments.size() + 2);
  EXPECT_EQ(ask->segments.back().kind, PromptSegment::Kind::kConversation);
  EXPECT_EQ(ingest->tokens, kPrefix + static_cast<int64_t>(tokens->size()));
}

TEST(PromptModeTest, ADocumentThatFitsIsIngestedWhole) {
  const auto plan = Planner().PlanDocument(Document(993));  // with prefix, tail and one token
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->mode.prefill, proto::EXACT);
  EXPECT_EQ(plan->mode.policy.kind, Kind::kFull);
  EXPECT_EQ(Planner().PlanDocument(Document(994))->mode.prefill, proto::ANCHORED);
}

TEST(PromptModeTest, SmallWindowsHaveSmallSpans) {
  const auto plan = Planner(/*window=*/300).PlanDocument(Document(2000));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->longest_span, (300 - kPrefix) / 2);
}

TEST(PromptModeTest, WhatStaysMustFitTheWindowWithTheQuestion) {
  EXPECT_TRUE(Plan({5000}, Options("snapkv:budget=500"), 499).ok());
  EXPECT_THAT(
      ErrorOf(Plan({5000}, Options("snapkv:budget=500"), 500), true),
      AllOf(HasSubstr("keeps 500 tokens"), HasSubstr("500 of the question"), HasSubstr("at most 499")));
  // Of heads that share, the largest may have twice the budget.
  EXPECT_TRUE(Plan({5000}, Options("adakv:budget=250"), 499).ok());
  EXPECT_THAT(ErrorOf(Plan({5000}, Options("adakv:budget=251"), 499), true),
              AllOf(HasSubstr("keeps 502 tokens of its largest head"), HasSubstr("at most 250")));
  // A question that is seen is read beside each span.
  EXPECT_TRUE(Plan({5000}, Options("snapkv:budget=100"), 797).ok());
  EXPECT_TRUE(Plan({5000}, Options("snapkv:budget=100", "auto", /*visible=*/true), 796).ok());
  EXPECT_THAT(ErrorOf(Plan({5000}, Options("snapkv:budget=100", "auto", /*visible=*/true), 797), true),
              AllOf(HasSubstr("the question has 797 tokens"), HasSubstr("a span of the document of 200"),
                    HasSubstr("to 796")));
  EXPECT_THAT(ErrorOf(Plan({5000}, {}, 1000), true), HasSubstr("the question has 1003 tokens"));
}

TEST(PromptModeTest, APolicyChoosesFromPrefixAndDocumentsAndFromAQuestionInView) {
  const auto candidates = [](const char* prefill, bool visible, std::vector<size_t> documents = {100}) {
    return Plan(documents, Options("snapkv:budget=50%", prefill, visible))->mode;
  };
  EXPECT_EQ(candidates("exact", false).candidates, kPrefix + 100);
  EXPECT_EQ(candidates("exact", false).kept, 51);
  EXPECT_EQ(candidates("exact", true).candidates, kPrefix + 110);
  EXPECT_EQ(candidates("anchored", true).candidates, kPrefix + 100);
  EXPECT_EQ(Plan({}, Options("snapkv:budget=50%"), 100)->mode.candidates, kPrefix + 100);
}

TEST(PromptModeTest, PoliciesThatDoNotFitTheirTextAreRefused) {
  EXPECT_THAT(ErrorOf(Plan({900}, Options("snapkv:budget=1%")), false), HasSubstr("budget=1%"));
  EXPECT_THAT(ErrorOf(Plan({50}, Options("infinipot:pot=64,keep=32"), 10, 5000), false),
              HasSubstr("a catalyst of 74 tokens does not fit a pot of 64"));
  EXPECT_THAT(ErrorOf(Plan({50}, Options("infinipot:pot=2000")), true),
              AllOf(HasSubstr("pot of 2000"), HasSubstr("trained for 1000")));
  EXPECT_THAT(ErrorOf(Plan({50}, Options("infinipot:pot=800"), 400), true),
              AllOf(HasSubstr("the question has 400 tokens"), HasSubstr("room for 399")));
}

TEST(PromptModeTest, AQuestionThatThePolicySeesMustFitItsBudget) {
  const auto plan = [](const char* policy, bool visible) {
    return Plan({300}, Options(policy, "exact", visible), 100);
  };
  EXPECT_THAT(ErrorOf(plan("snapkv:budget=103", true), false),
              AllOf(HasSubstr("policy snapkv: a budget of 103 tokens"), HasSubstr("give more than 103")));
  EXPECT_TRUE(plan("snapkv:budget=104", true).ok());
  EXPECT_TRUE(plan("snapkv:budget=103", false).ok());
}

TEST(CatalystTest, IsTheDefaultTextOrWhatWasGiven) {
  const std::vector<int32_t> by_default = Plan({50}, Options("infinipot:pot=900"))->catalyst;
  EXPECT_EQ(ByteTokenizer()->Decode(by_default, true),
            "\n\nSummarize the previous context highlighting the most important parts.<end>a:");
  PromptOptions options = Options("infinipot:pot=900,catalyst=@q.txt");
  options.catalyst = "Well<end>";
  EXPECT_EQ(ByteTokenizer()->Decode(Plan({50}, options)->catalyst, true), "Well<end><end>a:");
  EXPECT_EQ(Plan({50}, options)->catalyst.size(), 9 + 3u) << "special tokens in it are text";
  options.catalyst = " ";
  EXPECT_THAT(ErrorOf(Plan({50}, options), false), HasSubstr("the catalyst's text is empty"));
  options.catalyst = "\xff";
  EXPECT_THAT(ErrorOf(Plan({50}, options), false), HasSubstr("the catalyst: "));
  EXPECT_THAT(Plan({50}, Options("infinipot:pot=900,catalyst_ids=1/2/3"))->catalyst, ElementsAre(1, 2, 3));
  EXPECT_THAT(ErrorOf(Plan({50}, Options("infinipot:pot=900,catalyst_ids=1/300")), false),
              AllOf(HasSubstr("token 1 of the catalyst has the id 300"), HasSubstr("0 to 257")));
  EXPECT_THAT(Plan({50}, Options("snapkv:budget=40"))->catalyst, IsEmpty());
  EXPECT_THAT(Plan({50}, Options("infinipot:pot=900,score=snapkv"))->catalyst, IsEmpty());
}

TEST(CatalystTest, IsTheQuestionWhereThePolicyMaySeeIt) {
  for (const char* policy : {"infinipot:pot=900,catalyst=question", "infinipot:pot=900"}) {
    const auto plan = Plan({50}, Options(policy, "auto", /*visible=*/true));
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->catalyst, plan->segments.back().tokens);
    EXPECT_EQ(plan->mode.policy.catalyst, PolicySpec::Catalyst::kQuestion);
    EXPECT_TRUE(plan->question_visible);
  }
  const auto given = Plan({50}, Options("infinipot:pot=900,catalyst_ids=1/2", "auto", /*visible=*/true));
  EXPECT_THAT(given->catalyst, ElementsAre(1, 2));
  EXPECT_THAT(ErrorOf(Plan({50}, Options("infinipot:pot=900,catalyst=question")), false),
              HasSubstr("needs the question; add --question visible"));
  EXPECT_THAT(ErrorOf(Plan({}, Options("infinipot:pot=900,catalyst=question", "auto", true)), false),
              HasSubstr("0 documents"));
  EXPECT_EQ(Plan({}, Options("infinipot:pot=900", "auto", true))->mode.policy.catalyst,
            PolicySpec::Catalyst::kDefault);
}

TEST(PromptModeTest, NamesAreChecked) {
  for (const char* name : {"auto", "exact", "anchored", "pot"})
    EXPECT_EQ(PrefillName(*ParsePrefill(name)), name);
  EXPECT_THAT(Message(ParsePrefill("exakt").status()), HasSubstr("did you mean exact?"));
  EXPECT_FALSE(*ParseQuestionVisible("hidden"));
  EXPECT_TRUE(*ParseQuestionVisible("visible"));
  EXPECT_THAT(Message(ParseQuestionVisible("hiden").status()), HasSubstr("did you mean hidden?"));
}

}  // namespace
}  // namespace palimpsest::testing
