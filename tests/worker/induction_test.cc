// What the engine answers about documents of which it is known, token by token, what each way of reading and
// keeping them must answer (docs/induction-model.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <utility>

#include "tests/worker/induction_engine.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;
using namespace induction;  // NOLINT: this file is about nothing else

constexpr Slots kNothing = {};
const std::vector<int32_t> kAllUnknown(kSlots, kUnknown);

std::vector<int32_t> Whole(const Needle& needle) { return AnswerWith(needle, kAllSlots); }
std::vector<int32_t> With(std::vector<int32_t> document, std::span<const Needle> needles) {
  for (const Needle& needle : needles) {
    const std::vector<int32_t> answer = Whole(needle);
    document[static_cast<size_t>(needle.first)] = needle.key;
    std::copy(answer.begin(), answer.end(), document.begin() + needle.first + 1);
  }
  return document;
}
Needle At(int64_t first, int32_t key) {
  Needle needle{.key = Key(key), .values = {}, .first = first};
  for (int32_t i = 0; i < 7; ++i)
    needle.values[static_cast<size_t>(i)] = Value((key * 13 + i * 29) % kValues);
  return needle;
}

TEST(InductionTest, EveryKeyOfACrowdedTextIsAnswered) {
  const std::vector<Needle> needles = SpreadNeedles(700, 63, 3);
  InductionReader reader(Document(700, needles, 3), InductionEngine());
  for (const Needle& needle : needles) EXPECT_EQ(reader.Ask(needle.key, {}), Whole(needle)) << needle.first;
  EXPECT_EQ(reader.Ask(Key(63), {}), kAllUnknown) << "a key that is not there";
}

// Needles that differ in their last value only, one behind the other, and a key without values.
TEST(InductionTest, NeighboursAndDecoysAreToldApart) {
  std::vector<Needle> needles = {At(300, 5), At(309, 6), At(900, 7)};
  needles[1].values = needles[2].values = needles[0].values;
  needles[1].values[6] = Value(1);
  needles[2].values[6] = Value(2);
  std::vector<int32_t> document = With(Document(1500, {}, 4), needles);
  document[1200] = needles[1].key;
  InductionReader reader(document, InductionEngine());
  for (const Needle& needle : needles) EXPECT_EQ(reader.Ask(needle.key, {}), Whole(needle)) << needle.first;
}

// Each turn behind the questions and answers before it, which are needles themselves. Where the tokens of all
// turns choose together what comes back, there must be room for every key that was asked.
TEST(InductionTest, TurnsOfAConversationAreAnswered) {
  const std::vector<Needle> needles = SpreadNeedles(2000, 8, 5);
  InductionReader reader(Document(2000, needles, 5), InductionEngine());
  for (const InductionWay& way :
       {InductionWay{},
        {.policy = "snapkv:budget=64", .recall = "slices:budget=512,slice=32,words=0,whole=0"},
        {.policy = "snapkv:budget=64", .recall = "slices:budget=64,slice=32,words=0"}}) {
    std::vector<int32_t> conversation;
    for (const Needle& needle : needles) {
      const std::vector<int32_t> question = Question(needle.key, 9);
      conversation.insert(conversation.end(), question.begin(), question.end());
      const std::vector<int32_t> answer = reader.Ask(conversation, way);
      ASSERT_EQ(answer, Whole(needle)) << way.policy << " at " << needle.first;
      conversation.insert(conversation.end(), answer.begin(), answer.end());
    }
  }
}

// Whatever multiplies, votes that are equal are computed equal, and answers are the same.
class InductionNumericsTest : public ::testing::TestWithParam<Numerics> {};
TEST_P(InductionNumericsTest, AnswersAndPicksAreTheSame) {
  constexpr int64_t kTokens = 1001;  // no multiple of anything
  const std::vector<Needle> needles = SpreadNeedles(kTokens, 6, 15);
  TinyEngineOptions options = InductionEngine();
  options.numerics = GetParam();
  InductionReader reader(Document(kTokens, needles, 15), options);
  for (const Needle& needle : needles) {
    EXPECT_EQ(reader.Ask(needle.key, {}), Whole(needle)) << needle.first;
    EXPECT_EQ(reader.Ask(needle.key, {.policy = "snapkv:budget=133",
                                      .recall = "slices:budget=64,slice=32,words=0,whole=0"}),
              Whole(needle))
        << needle.first;
    for (size_t head = 0; head < kKvHeads; ++head) EXPECT_EQ(reader.Kept()[1][head][100], 99);
  }
}
std::vector<Numerics> InBf16() {
  std::vector<Numerics> all = AvailableNumerics();
  std::erase_if(all, [](const Numerics& numerics) { return numerics.format != WeightFormat::kBf16; });
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, InductionNumericsTest, ::testing::ValuesIn(InBf16()), NumericsName);

// --- What any policy keeps is what is answered, slot by slot.

struct PolicyWay {
  InductionWay way;
  bool keeps_all = false;  // of the needles
};
class InductionPolicyTest : public ::testing::TestWithParam<PolicyWay> {};

TEST_P(InductionPolicyTest, AnswersNameWhatWasKept) {
  constexpr int64_t kTokens = 1500;
  const std::vector<Needle> needles = SpreadNeedles(kTokens, 16, 6);
  InductionReader reader(Document(kTokens, needles, 6), InductionEngine());
  const auto& [way, keeps_all] = GetParam();
  if (way.mode == kAnchored) reader.CutInto({450, 850, 1250, kTokens});
  int64_t lost = 0, found = 0;
  for (const Needle& needle : needles) {
    const std::vector<int32_t> answer = reader.Ask(needle.key, way);
    const Slots slots = SlotsIn(reader.Kept(), needle.first);
    EXPECT_EQ(answer, AnswerWith(needle, slots)) << "the needle at " << needle.first;
    const int64_t right = std::count(slots.begin(), slots.end(), true);
    found += right;
    lost += kSlots - right;
  }
  std::cout << found << " slots found, " << lost << " lost\n";
  EXPECT_GT(found, 0);
  EXPECT_EQ(lost == 0, keeps_all);
}

// A policy that sees the question finds what it asks for. Keys of values and END are the shortest, and their
// values are all that the output sees: two policies keep needles for that alone.
std::vector<PolicyWay> Policies() {
  constexpr bool kVisible = true, kKeepsAll = true;
  return {{{kExact, "snapkv:budget=300"}},
          {{kExact, "snapkv:budget=64", "none", kVisible}, kKeepsAll},
          {{kExact, "random:budget=50%,seed=3"}},
          {{kExact, "h2o:heavy=60,recent=50"}},
          {{kExact, "tova:budget=200"}},
          {{kExact, "roco:budget=100"}},
          {{kExact, "knorm:budget=10%"}, kKeepsAll},
          {{kExact, "keydiff:budget=5%"}},
          {{kExact, "expected:budget=30%"}},
          {{kExact, "sirllm:budget=100"}},
          {{kExact, "pyramidkv:budget=300"}},
          {{kExact, "adakv:budget=300"}},
          {{kExact, "chunkkv:budget=300"}},
          {{kExact, "criticalkv:budget=300"}, kKeepsAll},
          {{kAnchored, "random:budget=50%,seed=4"}},
          {{kAnchored, "streaming:sink=4,recent=300"}},
          {{kAnchored, "snapkv:budget=300"}},
          {{kAnchored, "keydiff:budget=5%"}},
          {{kAnchored, "h2o:heavy=60,recent=50"}},
          {{kAnchored, "snapkv:budget=64", "none", kVisible}, kKeepsAll}};
}
INSTANTIATE_TEST_SUITE_P(All, InductionPolicyTest, ::testing::ValuesIn(Policies()), [](const auto& test) {
  const InductionWay& way = test.param.way;
  return std::string(way.mode == kExact ? "exact_" : "anchored_") +
         way.policy.substr(0, way.policy.find(':')) + (way.visible ? "_visible" : "");
});

// --- What single policies keep.

// Nothing at the end of the text asks for anything, so all votes but those for BOS are equal, and ties go to
// the earlier token.
TEST(InductionTest, SnapKvBehindTheQuestionsBackKeepsTheFirstTokensAndItsWindow) {
  constexpr int64_t kTokens = 1500, kBudget = 200, kWindow = 32, kFront = kBudget - kWindow - 1;
  const std::vector<Needle> needles = {At(20, 1), At(kFront - 5, 2), At(700, 3),
                                       At(kTokens - kWindow - 12, 4)};
  InductionReader reader(With(Document(kTokens, {}, 7), needles), InductionEngine());
  const InductionWay way{.policy = "snapkv:budget=200,window=32"};
  EXPECT_EQ(reader.Ask(needles[0].key, way), Whole(needles[0]));
  std::vector<int32_t> expected;
  for (int32_t token = -1; token < kTokens; ++token) {
    if (token < kFront || token >= kTokens - kWindow) expected.push_back(token);
  }
  EXPECT_EQ(reader.Kept()[1][0], expected);
  EXPECT_EQ(reader.Kept()[1][1], expected);
  EXPECT_EQ(reader.Ask(needles[1].key, way),
            AnswerWith(needles[1], {true, true, true, true, false, false, false, false}));
  EXPECT_EQ(reader.Ask(needles[2].key, way), kAllUnknown);
  EXPECT_EQ(reader.Ask(needles[3].key, way), kAllUnknown);
}

// With the question in its window it keeps the needle: what the scouts vote for, and END by the pool.
TEST(InductionTest, SnapKvInViewOfTheQuestionKeepsTheNeedle) {
  const std::vector<Needle> needles = SpreadNeedles(2000, 6, 8);
  InductionReader reader(Document(2000, needles, 8), InductionEngine());
  InductionReader blind(Document(2000, needles, 8), InductionEngine(), {.scouts = false});
  Slots all_but_end = kAllSlots;
  all_but_end[7] = false;
  for (const Needle& needle : std::span(needles).subspan(1, 4)) {
    for (const char* rest : {"", ",kernel=5", ",kernel=5,pool=avg", ",reduce=sum", ",reduce=max"}) {
      const std::string policy = std::string("snapkv:budget=64") + rest;
      EXPECT_EQ(reader.Ask(needle.key, {kExact, policy, "none", true}), Whole(needle)) << policy;
    }
    EXPECT_EQ(reader.Ask(needle.key, {kExact, "snapkv:budget=64,kernel=1", "none", true}),
              AnswerWith(needle, all_but_end));
    EXPECT_EQ(blind.Ask(needle.key, {kExact, "snapkv:budget=64,kernel=7", "none", true}),
              AnswerWith(needle, {true, false, true}));
  }
}

// The window slides with the answer: the question's tokens and the answer's take the room of its first ones.
// What slot s needs moves on as fast as the window does, so but for the first slot it is all or nothing.
TEST(InductionTest, StreamingAnswersWhatIsInItsWindow) {
  constexpr int64_t kTokens = 1000, kRecent = 300, kEdge = kTokens - kRecent;
  const int64_t question = static_cast<int64_t>(Question(kEnd, 1).size());
  const std::vector<std::pair<int64_t, Slots>> cases = {{0, kNothing},
                                                        {kEdge - 2, kNothing},
                                                        {kEdge - 1, {true}},
                                                        {kEdge + question - 2, {true}},
                                                        {kEdge + question - 1, kAllSlots},
                                                        {kTokens - kNeedleTokens, kAllSlots}};
  for (const auto& [first, slots] : cases) {
    const Needle needle = At(first, 11);
    InductionReader reader(With(Document(kTokens, {}, 9), {&needle, 1}), InductionEngine());
    EXPECT_EQ(reader.Ask(needle.key, {.policy = "streaming:sink=1,recent=300"}), AnswerWith(needle, slots))
        << "at " << first;
  }
}

// --- Recall.

struct RecallWay {
  std::string name;
  PrefillMode mode;
  std::string policy, recall;
};
class InductionRecallTest : public ::testing::TestWithParam<RecallWay> {};

// Two slices a head hold any needle. Without them the same questions are answered as the policy's law says.
TEST_P(InductionRecallTest, BringsBackExactlyWhatEvictionLost) {
  constexpr int64_t kTokens = 4000;
  const auto& [name, mode, policy, recall] = GetParam();
  const std::vector<Needle> needles = SpreadNeedles(kTokens, 10, 10);
  InductionReader reader(Document(kTokens, needles, 10), InductionEngine());
  if (mode == kAnchored) reader.CutInto({1000, 2010, 3000, kTokens});
  int64_t lost = 0;
  for (const Needle& needle : needles) {
    const std::vector<int32_t> without = reader.Ask(needle.key, {mode, policy});
    EXPECT_EQ(without, AnswerWith(needle, SlotsIn(reader.Kept(), needle.first))) << needle.first;
    lost += without != Whole(needle) ? 1 : 0;
    EXPECT_EQ(reader.Ask(needle.key, {mode, policy, recall}), Whole(needle)) << needle.first;
    EXPECT_EQ(reader.outcome().receipt.degraded_size(), 0);
  }
  EXPECT_GE(lost, 6);
  EXPECT_EQ(reader.Ask(Key(63), {mode, policy, recall}), kAllUnknown);
}

INSTANTIATE_TEST_SUITE_P(
    All, InductionRecallTest,
    ::testing::ValuesIn(std::vector<RecallWay>{
        {"q2", kExact, "snapkv:budget=64", "slices:budget=64,slice=32,words=0,whole=0"},
        {"q2_whole", kExact, "snapkv:budget=64", "slices:budget=64,slice=32,words=0"},
        {"exact_keys", kExact, "snapkv:budget=64", "slices:budget=64,slice=32,words=0,whole=0,index=exact"},
        {"two_slices_of_8", kExact, "snapkv:budget=64", "slices:budget=16,slice=8,words=0,whole=0"},
        {"random", kExact, "random:budget=64", "slices:budget=64,slice=32,words=0,whole=0"},
        {"everything", kExact, "snapkv:budget=64", "all"},
        {"anchored", kAnchored, "snapkv:budget=64", "slices:budget=64,slice=32,words=0"},
        {"anchored_two_slices_of_8", kAnchored, "snapkv:budget=64", "slices:budget=16,slice=8,words=0"},
        {"anchored_everything", kAnchored, "random:budget=64", "all"}}),
    [](const auto& test) { return test.param.name; });

// At the first token of an answer only one of two KV heads looks for anything. END, which no scout looks for,
// is found here because no block ends between it and slot 6.
TEST(InductionTest, OfManyBlocksNothingIsLostThatTheQuestionFound) {
  constexpr int64_t kTokens = 6000;  // 94 blocks
  const std::vector<Needle> needles = SpreadNeedles(kTokens, 10, 14);
  InductionReader reader(Document(kTokens, needles, 14), InductionEngine());
  for (const char* recall : {"slices", "slices:budget=64,slice=32,words=0,whole=0"}) {
    for (const Needle& needle : needles) {
      EXPECT_EQ(reader.Ask(needle.key, {kExact, "snapkv:budget=64", recall}), Whole(needle))
          << recall << " at " << needle.first;
    }
  }
}

// What a span's tokens did not see of their needle no recall brings back.
TEST(InductionTest, ASpanThatEndsInANeedleLosesTheRestOfIt) {
  constexpr int64_t kTokens = 2000, kEnd1 = 1000;
  const Needle torn = At(kEnd1 - 4, 21), before = At(kEnd1 - 100, 22), after = At(kEnd1 + 20, 23);
  const std::vector<Needle> needles = {torn, before, after};
  InductionReader reader(With(Document(kTokens, {}, 11), needles), InductionEngine());
  reader.CutInto({kEnd1, kTokens});
  for (const InductionWay& way : {InductionWay{kAnchored, "full"},
                                  {kAnchored, "snapkv:budget=64", "slices:budget=64,slice=32,words=0"},
                                  {kAnchored, "snapkv:budget=64", "all"}}) {
    EXPECT_EQ(reader.Ask(torn.key, way), AnswerWith(torn, {true, true, true})) << way.policy << way.recall;
    EXPECT_EQ(reader.Ask(before.key, way), Whole(before)) << way.policy << way.recall;
    EXPECT_EQ(reader.Ask(after.key, way), Whole(after)) << way.policy << way.recall;
  }
}

// --- The pot.

// Half of what stays is what surprised, and needles do; the rest is what the catalyst looks at, which is its
// neighbours, so that the next stretch reads on as if nothing had gone. Needles lie over the end of a stretch
// too: 504 tokens, then 248 each.
TEST(InductionTest, APotKeepsWhatSurprises) {
  constexpr int64_t kTokens = 4000;
  std::vector<Needle> needles;
  for (const int64_t first : {0, 300, 500, 747, 1000, 1240, 1495, 2500, 3474, 3900})
    needles.push_back(At(first, static_cast<int32_t>(needles.size()) + 30));
  InductionReader reader(With(Document(kTokens, {}, 12), needles), InductionEngine());
  const InductionWay way{kPot, "infinipot:pot=512,keep=256"};
  for (const Needle& needle : needles) EXPECT_EQ(reader.Ask(needle.key, way), Whole(needle)) << needle.first;
  EXPECT_EQ(reader.Ask(Key(63), way), kAllUnknown);
}

// Without novelty only the catalyst votes, for nothing but its neighbours: the first tokens stay, and what
// was read last.
TEST(InductionTest, APotWithoutNoveltyKeepsItsFirstTokens) {
  constexpr int64_t kTokens = 2000;
  const std::vector<Needle> needles = {At(20, 1), At(230, 2), At(600, 3), At(1000, 4), At(1985, 5)};
  InductionReader reader(With(Document(kTokens, {}, 13), needles), InductionEngine());
  const InductionWay way{kPot, "infinipot:pot=512,keep=256,alpha=0"};
  for (const Needle& needle : needles) {
    const std::vector<int32_t> answer = reader.Ask(needle.key, way);
    const Slots slots = SlotsIn(reader.Kept(), needle.first);
    EXPECT_EQ(answer, AnswerWith(needle, slots)) << needle.first;
    EXPECT_EQ(slots, needle.first < 240 || needle.first > 1900 ? kAllSlots : kNothing) << needle.first;
  }
}

}  // namespace
}  // namespace palimpsest::testing
