// What cannot be compressed as asked is refused by Submit, before any work, in one line that names the number
// and the range.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/base/status.h"
#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;
using ::testing::HasSubstr;

class CompressionErrorsTest : public ::testing::Test {
 protected:
  CompressionErrorsTest() {
    TinyEngineOptions options = CompressionEngine(64);
    engine_ = MakeTinyEngine(TinyModel({.context = 512}), options);
  }
  void ExpectRefused(const Request& request, const std::vector<std::string>& parts) {
    const absl::Status status = engine_->Submit(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    for (const std::string& part : parts) EXPECT_THAT(Message(status), HasSubstr(part));
    EXPECT_EQ(Message(status).find('\n'), std::string::npos);
    EXPECT_FALSE(engine_->Step()) << "nothing was begun";
  }
  void ExpectRefused(PrefillMode mode, const std::string& policy, std::vector<Segment> segments,
                     const std::vector<std::string>& parts) {
    ExpectRefused(CompressionRequest(mode, policy, std::move(segments), 10), parts);
  }
  // Refused with the number itself, taken with the one next to it.
  void ExpectAccepted(PrefillMode mode, const std::string& policy, std::vector<Segment> segments) {
    const Answer answer = AnswerOf(*engine_, CompressionRequest(mode, policy, std::move(segments), 10));
    EXPECT_EQ(answer.outcome.tokens.size(), 10u) << policy;
  }
  std::unique_ptr<Engine> engine_;
};

TEST_F(CompressionErrorsTest, BudgetsBelowWhatStays) {
  ExpectRefused(kExact, "snapkv:budget=53,window=32", RolePrompt({200}, 10), {"budget=53", "54 or more"});
  ExpectAccepted(kExact, "snapkv:budget=54,window=32", RolePrompt({200}, 10));
  ExpectRefused(kAnchored, "snapkv:budget=53,window=32", RolePrompt({100, 100}, 10),
                {"budget=53", "54 or more"});
  ExpectAccepted(kAnchored, "snapkv:budget=54,window=32", RolePrompt({100, 100}, 10));
  ExpectRefused(kExact, "random:budget=21", RolePrompt({200}, 10), {"budget=21", "22 or more"});
  ExpectAccepted(kExact, "random:budget=22", RolePrompt({200}, 10));
  ExpectRefused(kExact, "random:budget=9%", RolePrompt({200}, 10),
                {"9% of 221 tokens", "are 19", "10% to 100%"});
  ExpectAccepted(kExact, "random:budget=10%", RolePrompt({200}, 10));
  ExpectRefused(kExact, "streaming:sink=4,recent=17", RolePrompt({200}, 10), {"recent=17", "18 or more"});
  ExpectAccepted(kExact, "streaming:sink=4,recent=18", RolePrompt({200}, 10));
  // A budget for all of it is no compression, however small.
  ExpectAccepted(kExact, "random:budget=25", RolePrompt({4}, 10));
}

TEST_F(CompressionErrorsTest, TheLargestOfHeadsThatShareMustFitTheWindow) {
  // Twice the share: 400 and the question; of one text read exactly they stand at their own positions.
  ExpectRefused(kAnchored, "adakv:budget=200", RolePrompt({300, 300}, 113),
                {"513 would be at once", "window of 512", "smaller budget"});
  ExpectAccepted(kAnchored, "adakv:budget=190", RolePrompt({300, 300}, 113));
  ExpectAccepted(kAnchored, "snapkv:budget=200", RolePrompt({300, 300}, 113));
  ExpectAccepted(kExact, "adakv:budget=200", RolePrompt({350}, 100));
}

TEST_F(CompressionErrorsTest, AShareOfAttentionIsOfOneText) {
  ExpectRefused(kAnchored, "snapkv:budget=100,target=0.9", RolePrompt({300, 300}, 20),
                {"target=0.9", "prefill exact with at most 512 tokens"});
  ExpectAccepted(kExact, "snapkv:budget=100,target=0.9", RolePrompt({300}, 20));
}

TEST_F(CompressionErrorsTest, WhatIsRepeatedNeedsRoomBehindTheText) {
  ExpectRefused(kExact, "kvzip:budget=100", RolePrompt({430}, 20),
                {"451 tokens of text leave no room", "window of 512", "anchored prefill"});
  ExpectAccepted(kExact, "kvzip:budget=100", RolePrompt({380}, 20));
  ExpectRefused(kAnchored, "kvzip:budget=100", RolePrompt({300, 430}, 20),
                {"no room", "prefill.span_tokens"});
  ExpectAccepted(kAnchored, "kvzip:budget=100", RolePrompt({300, 300}, 20));
}

TEST_F(CompressionErrorsTest, AQuestionThatIsSeenStays) {
  Request request = CompressionRequest(kExact, "snapkv:budget=61,window=8", RolePrompt({200}, 40), 5);
  request.question_visible = true;
  ExpectRefused(request, {"budget of 61", "have 61", "more than 61"});
  request.policy = ParsePolicy("snapkv:budget=62,window=8").value();
  AnswerOf(*engine_, request);
}

TEST_F(CompressionErrorsTest, PotsTooSmall) {
  const auto prompt = [] { return RolePrompt({400}, 10); };
  // The prefix of 21, one more; a catalyst of 7 and 16 new ones.
  ExpectRefused(kPot, "infinipot:pot=100,keep=21", prompt(),
                {"keep of 21", "22 or more", "pot of 45 or more"});
  ExpectAccepted(kPot, "infinipot:pot=100,keep=22", prompt());
  ExpectRefused(kPot, "infinipot:pot=72,keep=50", prompt(), {"pot of 72", "pot of 73 or more", "22 to 49"});
  ExpectAccepted(kPot, "infinipot:pot=73,keep=50", prompt());
  ExpectAccepted(kPot, "infinipot:pot=72,keep=49", prompt());
  // The catalyst of 7, 8 before what is repeated, and 64 of that.
  ExpectRefused(kPot, "infinipot:pot=116,keep=22,score=kvzip", prompt(),
                {"repetition of 79", "pot of 117 or more"});
  ExpectAccepted(kPot, "infinipot:pot=117,keep=22,score=kvzip", prompt());
  Request request = CompressionRequest(kPot, "infinipot:pot=60,keep=30", prompt(), 10);
  request.catalyst = RandomTokens(60, 3);
  ExpectRefused(request, {"catalyst of 60", "pot of 60", "at most 14"});
  request.catalyst = RandomTokens(15, 3);
  ExpectRefused(request, {"pot of 60", "catalyst of 15", "pot of 61 or more"});
  request.catalyst = RandomTokens(14, 3);
  AnswerOf(*engine_, request);
}

TEST_F(CompressionErrorsTest, PotsBeyondTheWindow) {
  ExpectRefused(kPot, "infinipot:pot=513,keep=200", RolePrompt({700}, 10),
                {"pot of 513", "window of 512", "1 to 512"});
  ExpectAccepted(kPot, "infinipot:pot=512,keep=200", RolePrompt({700}, 10));
  // Of one that would never fill, the prompt is too long.
  ExpectRefused(kPot, "infinipot:pot=4096", RolePrompt({700}, 10),
                {"pot of 4096", "window of 512", "1 to 512"});
  ExpectAccepted(kPot, "infinipot:pot=4096", RolePrompt({400}, 10));
}

TEST_F(CompressionErrorsTest, Catalysts) {
  Request request = CompressionRequest(kPot, "infinipot:pot=100,keep=40", RolePrompt({300}, 10), 5);
  request.catalyst.clear();
  ExpectRefused(request, {"infinipot", "catalyst"});
  request.catalyst = {5, 300};
  ExpectRefused(request, {"300"});
  request.catalyst = {-1};
  ExpectRefused(request, {"-1"});
  request.catalyst.clear();
  request.policy = ParsePolicy("infinipot:pot=100,keep=40,score=snapkv").value();
  AnswerOf(*engine_, request);
}

TEST_F(CompressionErrorsTest, TextsBeyondTheWindow) {
  ExpectRefused(kExact, "snapkv:budget=100", RolePrompt({500}, 10),
                {"531 tokens", "window of 512", "anchored or pot"});
  ExpectRefused(kAnchored, "snapkv:budget=100", RolePrompt({300, 492}, 10),
                {"span of 492", "512", "span_tokens"});
  ExpectAccepted(kAnchored, "snapkv:budget=100", RolePrompt({300, 491}, 10));
  ExpectRefused(kAnchored, "full", RolePrompt({300, 300}, 10),
                {"631 tokens", "window of 512", "smaller budget"});
  ExpectRefused(kAnchored, "snapkv:budget=500", RolePrompt({300, 400}, 20), {"520", "window of 512"});
  ExpectRefused(kAnchored, "snapkv:budget=100", RolePrompt({300, 400}, 420), {"520", "window of 512"});
  Request request = CompressionRequest(kAnchored, "snapkv:budget=100", RolePrompt({440}, 60), 5);
  request.question_visible = true;  // read behind the span
  ExpectRefused(request, {"span of 440", "81 others"});
}

TEST_F(CompressionErrorsTest, ModesAndPolicies) {
  ExpectRefused(kExact, "infinipot", RolePrompt({300}, 10), {"infinipot"});
  ExpectRefused(kAnchored, "infinipot", RolePrompt({300}, 10), {"infinipot"});
  ExpectRefused(kPot, "snapkv", RolePrompt({300}, 10), {"snapkv", "pot"});
  ExpectRefused(kPot, "full", RolePrompt({300}, 10), {"full", "pot"});
  ExpectRefused(kExact, "auto", RolePrompt({300}, 10), {"auto"});
  ExpectRefused(kAnchored, "full", RolePrompt({}, 10), {"without a document"});
  ExpectRefused(kAnchored, "full", RolePrompt({100}, 0), {"without a question"});
}

TEST_F(CompressionErrorsTest, Images) {
  ExpectRefused(kExact, "lookm:budget=60,recent=20,images=10-201", RolePrompt({200}, 10),
                {"image 10-201", "200 tokens", "0 to 200"});
  ExpectRefused(kExact, "lookm:budget=60,recent=20,images=0-200", RolePrompt({200}, 10),
                {"all of the 200 tokens"});
  ExpectAccepted(kExact, "lookm:budget=60,recent=20,images=1-200", RolePrompt({200}, 10));
}

// What is merged is not what was read: it cannot come back beside what it was merged into.
TEST_F(CompressionErrorsTest, Merging) {
  ExpectRefused(kAnchored, "snapkv:budget=60,merge=values", RolePrompt({100, 100}, 10),
                {"snapkv merges", "prefill exact", "512"});
  for (const char* policy : {"lookm:budget=60,recent=20", "snapkv:budget=60,merge=values"}) {
    Request request = CompressionRequest(kExact, policy, RolePrompt({200}, 10), 5);
    request.recall = {.kind = RecallSpec::Kind::kSlices};
    ExpectRefused(request, {"recall", "merged into them", "recall none"});
    request.policy.merge = PolicySpec::Merge::kNone;
    AnswerOf(*engine_, request);
  }
}

TEST_F(CompressionErrorsTest, TwoBits) {
  ExpectRefused(kAnchored, "full:kv=kivi2", RolePrompt({100, 100}, 10),
                {"policy full with kv=kivi2", "prefill exact", "512", "kv=bf16"});
  Request request = CompressionRequest(kExact, "snapkv:budget=60,kv=kivi2", RolePrompt({200}, 10), 5);
  request.recall = {.kind = RecallSpec::Kind::kSlices};
  ExpectRefused(request, {"recall with policy snapkv", "kv=bf16, or recall none"});
  for (const auto& [mode, policy] :
       {std::pair{kExact, "streaming:recent=60"}, {kPot, "infinipot:pot=100,keep=40"}}) {
    Request moves = CompressionRequest(mode, policy, RolePrompt({200}, 10), 5);
    moves.policy.kv = PolicySpec::Resident::kKivi2;
    ExpectRefused(moves, {"kv=kivi2", "tokens move", "kv=bf16"});
  }
  ExpectAccepted(kAnchored, "snapkv:budget=60,kv=kivi2", RolePrompt({100, 100}, 10));
}

// Whoever lets tokens go while the answer grows must have some to let go, and know what all queries said.
TEST_F(CompressionErrorsTest, Evicting) {
  for (const char* policy : {"h2o:heavy=50,recent=20,decode=evict", "tova:budget=60,decode=evict",
                             "roco:budget=100,decode=evict"}) {
    ExpectRefused(kAnchored, policy, RolePrompt({100, 100}, 10), {"decode=evict", "prefill exact"});
    Request request = CompressionRequest(kExact, policy, RolePrompt({200}, 10), 5);
    request.recall = {.kind = RecallSpec::Kind::kSlices};
    ExpectRefused(request, {"recall slices", "decode=evict", "decode=keep"});
    request.recall = {};
    AnswerOf(*engine_, request);
  }
  // A budget that holds all of the text is to be kept all the same.
  ExpectAccepted(kExact, "h2o:heavy=2,recent=200", RolePrompt({100}, 10));
  ExpectRefused(kExact, "h2o:heavy=2,recent=200,decode=evict", RolePrompt({100}, 10),
                {"heavy=2 is too small", "prefix of 21", "22 or more"});
  ExpectAccepted(kExact, "h2o:heavy=22,recent=200,decode=evict", RolePrompt({100}, 10));
  // The question stays, and here it is in the budget.
  Request request =
      CompressionRequest(kExact, "h2o:heavy=40,recent=30,decode=evict", RolePrompt({200}, 19), 60);
  request.question_visible = true;
  ExpectRefused(request, {"budget of 70", "have 70", "more than 70"});
  request.policy.heavy.value = 41;
  AnswerOf(*engine_, request);
}

TEST_F(CompressionErrorsTest, RolesOutOfOrder) {
  std::vector<Segment> segments = RolePrompt({300}, 10);
  segments.push_back({.tokens = RandomTokens(3, 1)});
  ExpectRefused(kExact, "snapkv:budget=100", segments, {"3 tokens", "last"});
  segments = RolePrompt({300}, 10);
  segments.insert(segments.begin() + 2,
                  {.tokens = RandomTokens(4, 1), .shared = true, .role = Segment::Role::kPrefix});
  ExpectRefused(kExact, "snapkv:budget=100", segments, {"4 tokens", "first"});
  segments = RolePrompt({300}, 10);
  segments.push_back(segments.back());
  ExpectRefused(kExact, "snapkv:budget=100", segments, {"10 tokens", "last"});
}

// What looks like bad input and is not.
TEST_F(CompressionErrorsTest, EmptyPartsAndTinyPromptsAreTaken) {
  for (const CompressionCase& c : CompressionCases()) {
    for (const int64_t document : {1, 2, 19, 20, 21, 48, 49, 50, 51, 64, 65}) {
      std::vector<Segment> segments = RolePrompt({document}, 3);
      segments.insert(segments.begin() + 1, Segment{.tokens = {}, .shared = true});
      Request request = CompressionRequest(c.mode, c.policy, segments, 4);
      request.question_visible = c.visible;
      const auto job = engine_->Submit(request);
      if (!job.ok()) {
        EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument) << job.status();
        continue;
      }
      EXPECT_EQ(Drain(*engine_, {*job})[0].tokens.size(), 4u) << c.name << " " << document;
    }
  }
  ExpectAllReturned(*engine_);
}

// First tokens that are all of the text leave a window for the answer only.
TEST_F(CompressionErrorsTest, AWindowHoldsATokenAtLeast) {
  int taken = 0;
  for (const bool visible : {false, true}) {
    for (const char* policy : {"streaming:sink=31,recent=1%", "streaming:sink=21,recent=1%",
                               "streaming:sink=4,recent=17", "streaming:sink=4,recent=27"}) {
      for (const int64_t document : {0, 1, 40}) {
        std::vector<Segment> segments = RolePrompt({}, 10);
        if (document > 0) segments = RolePrompt({document}, 10);
        Request request = CompressionRequest(kExact, policy, segments, 100);
        request.question_visible = visible;
        const auto job = engine_->Submit(request);
        if (!job.ok()) continue;
        EXPECT_EQ(Drain(*engine_, {*job})[0].tokens.size(), 100u) << policy << " " << document;
        ++taken;
      }
    }
  }
  EXPECT_GE(taken, 7) << "the others have no room for the prefix";
  ExpectAllReturned(*engine_);
}

// A question without a document, and a document's only token.
TEST_F(CompressionErrorsTest, NothingToDrop) {
  for (const char* policy : {"snapkv:budget=100", "random:budget=100", "streaming:recent=100"}) {
    ExpectAccepted(kExact, policy, RolePrompt({}, 10));
    ExpectAccepted(kExact, policy, RolePrompt({}, 10, 1, 0));
  }
  ExpectAccepted(kPot, "infinipot:pot=100,keep=40", RolePrompt({}, 300));
  ExpectAccepted(kPot, "infinipot:pot=100,keep=40", RolePrompt({}, 300, 1, 0));
}

}  // namespace
}  // namespace palimpsest::testing
