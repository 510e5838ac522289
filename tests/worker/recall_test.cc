// What recall promises of an answer: all of it back is dense, whichever tier has it; the same bits in any
// company, any cut and after any interruption; and where nothing comes, an answer all the same.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "storage/tier/faulty_tier.h"
#include "tests/testing/temporary_folder.h"
#include "tests/worker/compression_cases.h"
#include "worker/recall/tiles_at_rest.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

struct RecallCase {
  std::string name;
  PrefillMode mode;
  std::string policy, recall;
};

std::vector<RecallCase> Cases() {
  return {
      {"exact", kExact, "snapkv:budget=70,window=20,kernel=5", "slices:budget=96,slice=16,whole=0"},
      {"exact_no_words", kExact, "snapkv:budget=70,window=20", "slices:budget=96,slice=16,words=0,whole=0"},
      {"exact_random_small_slices", kExact, "random:budget=90,seed=3",
       "slices:budget=64,slice=8,refresh=3,whole=0"},
      {"exact_two_slices", kExact, "snapkv:budget=70,window=20", "slices:budget=16,slice=8,whole=0"},
      {"exact_exact_keys", kExact, "snapkv:budget=70,window=20",
       "slices:budget=100,slice=32,index=exact,whole=0"},
      {"exact_bounds", kExact, "snapkv:budget=70,window=20",
       "slices:budget=64,slice=64,index=minmax,whole=0"},
      {"whole", kExact, "snapkv:budget=70,window=20", "slices:budget=96,slice=16"},
      {"whole_in_splits", kExact, "random:budget=90,seed=3", "slices:budget=512,slice=8,refresh=2"},
      {"exact_all", kExact, "snapkv:budget=70,window=20", "all"},
      {"anchored", kAnchored, "snapkv:budget=80,window=20,kernel=5", "slices:budget=128,slice=16"},
      {"anchored_boxes", kAnchored, "random:budget=90", "slices:budget=64,slice=16,index=boxmean"},
      {"anchored_one_slice", kAnchored, "snapkv:budget=80,window=20", "slices:budget=16,slice=16"},
      {"anchored_all", kAnchored, "snapkv:budget=80,window=20", "all"}};
}

Request RequestOf(const RecallCase& c, int64_t max_tokens, uint64_t seed = 1) {
  Request request = CompressionRequest(CompressionCase{c.name, c.mode, c.policy}, max_tokens, seed);
  request.recall = *ParseRecall(c.recall);
  return request;
}

TinyEngineOptions Options(int64_t chunk_tokens) {
  TinyEngineOptions options = CompressionEngine(chunk_tokens);
  options.view_bytes = options.index_bytes = 1 << 24;
  options.digests = true;
  return options;
}

int64_t Recalled(const Outcome& outcome) {
  const auto& recalled = outcome.receipt.recalled();
  return recalled.device().slices() + recalled.host().slices() + recalled.ssd().slices();
}

double RelativeError(const std::vector<float>& found, const std::vector<float>& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(found[i] - expected[i], 2);
    norm += std::pow(expected[i], 2);
  }
  return std::sqrt(error / norm);
}

class RecallTest : public ::testing::TestWithParam<RecallCase> {
 protected:
  std::unique_ptr<Engine> Make(const TinyEngineOptions& options) { return MakeTinyEngine(model_, options); }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

TEST_P(RecallTest, TheReceiptSaysWhatCameAndFromWhere) {
  auto engine = Make(Options(200));
  const Answer answer = AnswerOf(*engine, RequestOf(GetParam(), 20));
  const proto::Receipt& receipt = answer.outcome.receipt;
  EXPECT_EQ(receipt.recall(), RecallText(*ParseRecall(GetParam().recall)));
  EXPECT_GT(receipt.recalled().host().slices(), 0);
  EXPECT_GT(receipt.recalled().host().bytes(), 0);
  EXPECT_EQ(receipt.recalled().ssd().slices(), 0);
  EXPECT_GT(receipt.seconds().recall(), 0);
  EXPECT_EQ(receipt.degraded_size(), 0) << receipt.degraded(0);
  Request without = RequestOf(GetParam(), 20);
  without.recall = {};
  const Answer none = AnswerOf(*engine, without);
  EXPECT_EQ(none.outcome.receipt.recall(), "none");
  EXPECT_EQ(Recalled(none.outcome), 0);
  EXPECT_NE(Difference(answer, none), "") << "what came made no difference";
  ExpectAllReturned(*engine);
}

// Chunks, threads, whether the digests were made at sealing or of the blocks, whether the document was read
// before, and from which tier its blocks come: none of it is in the answer.
TEST_P(RecallTest, TheSameBitsHoweverItCameAbout) {
  const Request request = RequestOf(GetParam(), 40);
  const Answer whole = AnswerOf(*Make(Options(200)), request);
  for (const int64_t chunk : {90, 512}) {
    EXPECT_EQ(Difference(whole, AnswerOf(*Make(Options(chunk)), request)), "") << "chunks of " << chunk;
  }
  TinyEngineOptions late = Options(200);
  late.digests = false;
  late.index_bytes = late.view_bytes = 0;
  late.threads = 1;
  EXPECT_EQ(Difference(whole, AnswerOf(*Make(late), request)), "") << "digests made when they are asked for";
  auto engine = Make(Options(200));
  Request ingest = request;
  ingest.segments.pop_back();
  ingest.sampling.set_max_tokens(0);
  ingest.top = 0;
  RunOk(*engine, ingest);
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_EQ(Difference(whole, AnswerOf(*engine, request)), "") << "turn " << turn;
  }
  TinyEngineOptions ssd = Options(200);
  ssd.host_bytes = 0;
  const TemporaryFolder folder;
  ssd.ssd_folder = folder.path() + "/tier";
  EXPECT_EQ(Difference(whole, AnswerOf(*Make(ssd), request)), "") << "from what is on its way to SSD";
  auto again = Make(ssd);
  const Answer restarted = AnswerOf(*again, request);
  EXPECT_EQ(Difference(whole, restarted), "") << "from SSD after a restart";
  EXPECT_GT(restarted.outcome.receipt.recalled().ssd().slices(), 0);
  EXPECT_GT(restarted.outcome.usage.cached_tokens(), 200);
  EXPECT_EQ(restarted.outcome.receipt.degraded_size(), 0);
}

TEST_P(RecallTest, TheSameBitsBesideOthers) {
  std::vector<Request> requests = {RequestOf(GetParam(), 25), RequestOf(GetParam(), 25, 2)};
  for (const RecallCase& other : Cases()) requests.push_back(RequestOf(other, 12, 3));
  requests.push_back(MakeRequest(Prompt(100, 30, 9), 20));
  std::vector<Answer> alone;
  for (const Request& request : requests) alone.push_back(AnswerOf(*Make(Options(100)), request));
  auto engine = Make(Options(100));
  const std::vector<Answer> together = AnswersTogether(*engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(Difference(alone[i], together[i]), "") << i;
  ExpectAllReturned(*engine);
}

TEST_P(RecallTest, AResumedAnswerIsTheUninterruptedOne) {
  const Request request = RequestOf(GetParam(), 30);
  const Answer whole = AnswerOf(*Make(Options(200)), request);
  for (const size_t at : {1, 2, 11, 29}) {
    Request rest = request;
    rest.generated.assign(whole.outcome.tokens.begin(),
                          whole.outcome.tokens.begin() + static_cast<std::ptrdiff_t>(at));
    rest.top = 0;
    EXPECT_EQ(AnswerOf(*Make(Options(90)), rest).outcome.tokens, whole.outcome.tokens) << "at " << at;
  }
}

// A tier that fails costs slices, never the answer; that they are missing is told.
TEST_P(RecallTest, WhatNoTierGivesIsLeftOutAndTold) {
  TinyEngineOptions none = Options(200);
  none.host_bytes = 0;
  const Answer without = AnswerOf(*Make(none), RequestOf(GetParam(), 10));
  EXPECT_EQ(without.outcome.tokens.size(), 10u);
  EXPECT_EQ(Recalled(without.outcome), 0);
  ASSERT_GE(without.outcome.receipt.degraded_size(), 1);

  TinyEngineOptions faulty = Options(200);
  FaultyTier* tier = nullptr;
  faulty.wrap_host = [&](std::unique_ptr<Tier> inner) {
    auto wrapped = MakeFaultyTier(std::move(inner), {});
    tier = wrapped.get();
    return wrapped;
  };
  auto engine = Make(faulty);
  AnswerOf(*engine, RequestOf(GetParam(), 3));  // the index is loaded
  tier->SetFaults(
      {.seed = 5, .get_error = 0.2, .get_corrupt = 0.2, .get_truncated = 0.2, .get_misplaced = 0.2});
  const Answer answer = AnswerOf(*engine, RequestOf(GetParam(), 10));
  EXPECT_EQ(answer.outcome.tokens.size(), 10u);
  EXPECT_GE(answer.outcome.receipt.degraded_size(), 1);
  ExpectAllReturned(*engine);
}

// However many of the slices that came are still there when they are wanted again.
TEST_P(RecallTest, TheSameBitsHoweverManySlicesAreKept) {
  const Request request = RequestOf(GetParam(), 40);
  TinyEngineOptions one = Options(200), many = one;
  one.recall_budgets_kept = 1;
  many.recall_budgets_kept = 100;
  const Answer of_one = AnswerOf(*Make(one), request), of_many = AnswerOf(*Make(many), request);
  EXPECT_EQ(Difference(of_one, of_many), "");
  EXPECT_LE(of_one.outcome.receipt.recalled().device().slices(),
            of_many.outcome.receipt.recalled().device().slices());
}

// What no tier gives is computed again of the text, where the tiers have room for it: nothing shows in the
// answer, whenever it is missed.
TEST_P(RecallTest, WhatIsGoneIsComputedAgain) {
  const Request request = RequestOf(GetParam(), 20);
  const Answer whole = AnswerOf(*Make(Options(200)), request);
  for (const bool late : {false, true}) {
    TinyEngineOptions options = Options(200);
    Tier* tier = nullptr;
    options.wrap_host = [&](std::unique_ptr<Tier> inner) {
      tier = inner.get();
      return inner;
    };
    auto engine = Make(options);
    AnswerOf(*engine, RequestOf(GetParam(), 1));
    ExpectAllReturned(*engine);
    const auto lose_half = [&] {
      for (const TierEntry& entry : tier->List()) {
        if (entry.key.kind != ValueKind::kBlock || entry.key.id.bytes[0] % 2 != 0) continue;
        ASSERT_TRUE(tier->Erase(entry.key).ok());
      }
    };
    Request asked = request;
    if (late) {
      asked.on_token = [&, told = 0](const AnswerToken&) mutable {
        if (++told == 3) lose_half();
      };
    } else {
      lose_half();
    }
    const Outcome mended = RunOk(*engine, asked);
    EXPECT_EQ(mended.tokens, whole.outcome.tokens) << "late: " << late;
    EXPECT_EQ(mended.receipt.degraded_size(), 0) << mended.receipt.degraded(0);
    ExpectAllReturned(*engine);
    EXPECT_EQ(Difference(whole, AnswerOf(*engine, request)), "") << "late: " << late;
    ExpectAllReturned(*engine);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RecallTest, ::testing::ValuesIn(Cases()),
                         [](const auto& test) { return test.param.name; });

// A budget for every token chooses every token that the index has.
TEST(RecallChoiceTest, ABudgetForAllOfItIsAll) {
  const auto model = TinyModel({});
  for (const PrefillMode mode : {kExact, kAnchored}) {
    Request all = CompressionRequest(CompressionCase{"", mode, "snapkv:budget=70,window=20"}, 10);
    all.recall = *ParseRecall("all");
    Request slices = all;
    slices.recall = *ParseRecall("slices:budget=1024,slice=16,whole=0");
    const Answer of_all = AnswerOf(*MakeTinyEngine(model, Options(200)), all);
    const Answer of_slices = AnswerOf(*MakeTinyEngine(model, Options(200)), slices);
    EXPECT_EQ(Difference(of_all, of_slices), "");
  }
}

// What is resident is not ranked, so with room for everything a slice that is resident whole does not come.
TEST(RecallChoiceTest, WhatIsResidentIsNotWanted) {
  constexpr int64_t kDocument = 5 * kTileSlots, kHeads = 4, kSlice = 16;
  Request asked = CompressionRequest(kExact, "snapkv:budget=65,window=64",
                                     RolePrompt({kDocument}, 37, 1, /*prefix=*/0), 1);
  asked.recall = *ParseRecall("slices:budget=1024,slice=16,words=0,whole=0");
  const Outcome outcome = RunOk(*MakeTinyEngine(TinyModel({}), Options(200)), asked);
  EXPECT_EQ(Recalled(outcome), kHeads * (kDocument - 64) / kSlice);  // the window is the last block
}

// The question's rare word stands once in the document: with `words` every head of every layer sees the
// place, by themselves few look for it. What was dropped of it comes back within the same budget.
TEST(RecallChoiceTest, TheWordsOfTheQuestionAreSeenByEveryHead) {
  const auto model = TinyModel({});
  for (const PrefillMode mode : {kExact, kAnchored}) {
    constexpr int32_t kRare = 3, kNowhere = 5;
    Request asked = CompressionRequest(CompressionCase{"", mode, "snapkv:budget=60,window=20"}, 5);
    int32_t at = 0;
    for (Segment& segment : asked.segments) {
      for (int32_t& token : segment.tokens) token = token == kRare || token == kNowhere ? token + 1 : token;
      if (segment.role == Segment::Role::kPrefix) at += static_cast<int32_t>(segment.tokens.size());
    }
    Segment& document =
        *std::find_if(asked.segments.begin(), asked.segments.end(),
                      [](const Segment& segment) { return segment.role == Segment::Role::kContext; });
    std::vector<int32_t>& question = asked.segments.back().tokens;
    std::fill(question.begin(), question.end(), kNowhere);
    document.tokens[70] = question.back() = kRare;
    for (int32_t token = at + 64; token < at + 80; ++token) asked.watched.push_back(token);
    asked.recall = *ParseRecall("slices:budget=96,slice=16,words=48,whole=0");
    const Outcome with = RunOk(*MakeTinyEngine(model, Options(200)), asked);
    EXPECT_EQ(with.watched_seen, 1.0);
    asked.recall = *ParseRecall("slices:budget=96,slice=16,words=0,whole=0");
    const Outcome without = RunOk(*MakeTinyEngine(model, Options(200)), asked);
    EXPECT_LT(without.watched_seen, 1.0);
    EXPECT_GT(without.watched_seen, 0.0);
  }
}

// A document of several splits, which passes through room for one or two of them.
Request LongQuestion(const char* policy, const std::string& recall) {
  Request request = CompressionRequest(kExact, policy, RolePrompt({1371}, 37), 1);
  request.recall = *ParseRecall(recall);
  return request;
}

class WholeDocumentTest : public ::testing::TestWithParam<Numerics> {
 protected:
  Answer Ask(const Request& request, int64_t chunk_tokens = 128) {
    TinyEngineOptions options = Options(chunk_tokens);
    options.numerics = GetParam();
    return AnswerOf(*MakeTinyEngine(model_, options), request);
  }
  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
};

// Through room for whole splits the question sees what it would of the document: the logits behind it are the
// same bits, whatever the policy kept, whatever the chunks.
TEST_P(WholeDocumentTest, TheQuestionIsThatOfTheWholeDocument) {
  const std::vector<float> dense = LogitsOf(Ask(LongQuestion("full", "none")).outcome);
  for (const char* policy : {"snapkv:budget=70,window=20", "random:budget=600,seed=1", "tova:budget=40"}) {
    for (const char* recall : {"slices", "slices:budget=512", "slices:budget=600,slice=8,words=0"}) {
      for (const int64_t chunk : {20, 128}) {
        EXPECT_EQ(LogitsOf(Ask(LongQuestion(policy, recall), chunk).outcome), dense)
            << policy << ", " << recall << ", chunks of " << chunk;
      }
    }
  }
}

// Through any room, to rounding; see RecallAllTest.
TEST_P(WholeDocumentTest, ThroughAnyRoomItIsDenseToRounding) {
  const std::vector<float> dense = LogitsOf(Ask(LongQuestion("full", "none")).outcome);
  const auto error_of = [&](const std::string& recall) {
    const Answer answer = Ask(LongQuestion("snapkv:budget=70,window=20", recall));
    return RelativeError(LogitsOf(answer.outcome), dense);
  };
  const double most = GetParam().format != WeightFormat::kBf16 ? 2e-2 : 1e-2;
  for (const char* recall :
       {"slices:budget=16", "slices:budget=64", "slices:budget=200", "slices:budget=700"}) {
    EXPECT_LT(error_of(recall), most) << recall;
    EXPECT_GT(error_of(std::string(recall) + ",whole=0,words=0"), error_of(recall)) << recall;
  }
}

INSTANTIATE_TEST_SUITE_P(Numerics, WholeDocumentTest, ::testing::ValuesIn(AvailableNumerics()), NumericsName);

// Its tokens are counted with all that precedes them; one more, and the question's tokens choose.
TEST(RecallChoiceTest, ADocumentIsSeenWholeUpToSoManyTokens) {
  constexpr int64_t kContext = 21 + 371;  // with the prefix
  const auto logits = [](const std::string& recall) {
    Request request = CompressionRequest(kExact, "snapkv:budget=70,window=20", RolePrompt({371}, 37), 1);
    request.recall = *ParseRecall(recall);
    return LogitsOf(AnswerOf(*MakeTinyEngine(TinyModel({}), Options(128)), request).outcome);
  };
  const std::string few = "slices:budget=64,whole=";
  EXPECT_EQ(logits(few + std::to_string(kContext)), logits(few + "8192"));
  EXPECT_EQ(logits(few + std::to_string(kContext - 1)), logits(few + "0"));
  EXPECT_NE(logits(few + "0"), logits(few + "8192"));
}

// Of what the tiers do not have whole, the question's tokens choose, and what stayed is seen beside it.
TEST(RecallChoiceTest, AQuestionChoosesWhereNotEverythingIsToBeHad) {
  TinyEngineOptions options = Options(128);
  const auto ask = [&](const std::string& recall) {
    return AnswerOf(*MakeTinyEngine(TinyModel({}), options),
                    LongQuestion("snapkv:budget=70,window=20", recall));
  };
  const Answer whole = ask("slices:budget=96"), chosen = ask("slices:budget=96,whole=0");
  EXPECT_NE(Difference(whole, chosen), "");
  options.host_bytes = 300 << 10;  // a part of it
  const Answer part = ask("slices:budget=96"), part_chosen = ask("slices:budget=96,whole=0");
  EXPECT_GT(Recalled(part.outcome), 0);
  EXPECT_EQ(Difference(part, part_chosen), "");
  EXPECT_GE(part.outcome.receipt.degraded_size(), 1);
  // A tier that says it has it and never gives it: as if there were no recall.
  options.host_bytes = Options(128).host_bytes;
  options.wrap_host = [](std::unique_ptr<Tier> inner) {
    auto wrapped = MakeFaultyTier(std::move(inner), {});
    wrapped->SetFaults({.seed = 5, .get_error = 1});
    return wrapped;
  };
  EXPECT_EQ(LogitsOf(ask("slices:budget=96").outcome), LogitsOf(ask("none").outcome));
}

// A head of which nothing was dropped has nothing to choose: what passed through its room is gone before the
// answer, which else would see it twice.
TEST(RecallChoiceTest, WhatPassedThroughIsGoneBeforeTheAnswer) {
  const auto answer = [](const char* policy, const char* recall) {
    Request request = CompressionRequest(kExact, policy, RolePrompt({371}, 37), 8);
    request.recall = *ParseRecall(recall);
    request.trace = true;
    return AnswerOf(*MakeTinyEngine(TinyModel({}), Options(128)), request);
  };
  const Answer passed = answer("adakv:budget=391", "slices:budget=512,words=0"),
               dense = answer("full", "none");
  int64_t whole = 0;
  for (const auto& layer : passed.outcome.kept) {
    for (const auto& head : layer) whole += head.size() == 21 + 371 ? 1 : 0;
  }
  EXPECT_GT(whole, 0);
  EXPECT_GT(Recalled(passed.outcome), 0);
  ASSERT_EQ(passed.outcome.tokens, dense.outcome.tokens);
  for (size_t i = 0; i < dense.log_probabilities.size(); ++i)
    EXPECT_NEAR(passed.log_probabilities[i], dense.log_probabilities[i], 2e-2) << i;
}

// The device holds no more of a document that passes through than of slices that stay; of one that is short
// of the budget, room for whole splits.
TEST(RecallChoiceTest, ADocumentPassesThroughTheRoomOfTheBudget) {
  for (const char* budget : {"64", "512", "1024"}) {
    const auto peak = [&](const std::string& recall) {
      auto engine = MakeTinyEngine(TinyModel({}), Options(128));
      const Request request = LongQuestion("snapkv:budget=70,window=20", recall);
      AnswerOf(*engine, request);  // what stays of it is known from here on
      const Outcome outcome = RunOk(*engine, request);
      EXPECT_GT(outcome.receipt.recalled().host().slices() + outcome.receipt.recalled().device().slices(), 0);
      return outcome.receipt.device_bytes().peak();
    };
    const std::string recall = std::string("slices:budget=") + budget;
    EXPECT_GT(peak(recall + ",whole=0"), 0);
    EXPECT_EQ(peak(recall), peak(recall + ",whole=0")) << budget;
  }
}

TEST(TilesAtRestTest, APayloadAtAnOddAddressIsCopiedAndNoOther) {
  const auto bytes = std::make_shared<std::vector<uint8_t>>(258);
  std::iota(bytes->begin(), bytes->end(), uint8_t{0});
  for (const size_t first : {0u, 1u, 2u}) {
    Mover::FoundTile tile{.owner = bytes, .geometry = {}, .payload = std::span(*bytes).subspan(first, 256)};
    AlignPayload(&tile);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tile.payload.data()) % alignof(Bf16), 0u) << first;
    EXPECT_TRUE(std::ranges::equal(tile.payload, std::span(*bytes).subspan(first, 256))) << first;
    EXPECT_EQ(tile.payload.data() == bytes->data() + first, first % 2 == 0);
    EXPECT_EQ(tile.owner == bytes, first % 2 == 0);
  }
}

class RecallAllTest : public ::testing::TestWithParam<Numerics> {};

// Within one text everything back is everything there was; keys are met in another order, so to rounding.
TEST_P(RecallAllTest, EverythingBackIsDense) {
  const auto model = TinyModel({});
  for (const char* policy :
       {"snapkv:budget=70,window=20", "random:budget=33,seed=1", "snapkv:budget=350,window=9"}) {
    TinyEngineOptions options = Options(128);
    options.numerics = GetParam();
    Request dense = CompressionRequest(kExact, "full", RolePrompt({371}, 37), 1);
    Request all = CompressionRequest(kExact, policy, RolePrompt({371}, 37), 1);
    all.recall = *ParseRecall("all");
    const std::vector<float> expected = LogitsOf(AnswerOf(*MakeTinyEngine(model, options), dense).outcome);
    const std::vector<float> found = LogitsOf(AnswerOf(*MakeTinyEngine(model, options), all).outcome);
    Request none = all;
    none.recall = {};
    const std::vector<float> dropped = LogitsOf(AnswerOf(*MakeTinyEngine(model, options), none).outcome);
    const double error = RelativeError(found, expected), without = RelativeError(dropped, expected);
    // Another order of keys moves attention's output by a rounding to bf16 (2^-9) in each of two layers; in 8
    // bits some of what is rounded then falls on the other side of a step of 1/127.
    const bool in_bytes = GetParam().format != WeightFormat::kBf16;
    EXPECT_LT(error, in_bytes ? 2e-2 : 1e-2) << policy;
    EXPECT_GT(without, (in_bytes ? 2 : 8) * error) << policy;
  }
}

INSTANTIATE_TEST_SUITE_P(Numerics, RecallAllTest, ::testing::ValuesIn(AvailableNumerics()), NumericsName);

TEST(RecallErrorsTest, WhatCannotBeIsRefusedBeforeAnyWork) {
  auto engine = MakeTinyEngine(TinyModel({}), Options(100));
  const auto refused = [&](PrefillMode mode, const char* policy, bool visible) {
    Request request = CompressionRequest(CompressionCase{"", mode, policy, visible}, 5);
    request.recall = *ParseRecall("slices:budget=64");
    const auto job = engine->Submit(request);
    EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument) << policy;
    return std::string(job.status().message());
  };
  EXPECT_NE(refused(kPot, "infinipot:pot=128,keep=50", false).find("anchored"), std::string::npos);
  EXPECT_NE(refused(kExact, "streaming:sink=4,recent=60", false).find("streaming"), std::string::npos);
  EXPECT_NE(refused(kExact, "snapkv:budget=70", true).find("hidden"), std::string::npos);
  // Nothing is dropped: nothing is recalled, and that is no error.
  Request full = CompressionRequest(CompressionCase{"", kExact, "full"}, 5);
  full.recall = *ParseRecall("slices");
  EXPECT_EQ(AnswerOf(*engine, full).outcome.receipt.recall(), "none");
}

}  // namespace
}  // namespace palimpsest::testing
