// What is picked at the end of a prompt that is read as one (compression_reference.h).
#include "tests/worker/compression_reference.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

TEST_F(CompressionReferenceTest, ExactSnapKv) {
  for (const char* policy :
       {"snapkv:budget=120,window=20,kernel=5", "snapkv:budget=200,window=48,pool=avg,reduce=max",
        "snapkv:budget=150,window=9,pool=avg,divisor=valid,order=pool-reduce,reduce=sum"}) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer));
    for (int64_t i = 0; i < context_; ++i) Run(i, i);
    for (size_t head = 0; head < cache_.size(); ++head) {
      const reference::Rows votes =
          Votes(head, static_cast<size_t>(spec_.window), kPrefix, static_cast<size_t>(context_ - kPrefix));
      CompareExact(head, reference::SnapKv(votes, spec_, true), spec_.budget.value);
    }
    ExpectAnswerOfKept();
    std::cout << "largest error of an answer's log-probability " << answer_error_ << "\n";
  }
  ExpectPicks();
}

// Each head keeps the fewest of the highest scores that lose no more than a fifth of the window's attention.
TEST_F(CompressionReferenceTest, ExactSnapKvWithATarget) {
  Ask(CompressionRequest(kExact, "snapkv:budget=350,window=20,kernel=5,target=0.8", RolePrompt({371}, 37),
                         kAnswer));
  for (int64_t i = 0; i < context_; ++i) Run(i, i);
  const int64_t voted = context_ - kPrefix - spec_.window;
  for (size_t head = 0; head < cache_.size(); ++head) {
    const reference::Rows votes =
        Votes(head, static_cast<size_t>(spec_.window), kPrefix, static_cast<size_t>(context_ - kPrefix));
    const std::vector<double> scores = reference::SnapKv(votes, spec_, true);
    double lost = 0, least = 0;  // by what the engine dropped, and the least that one more would have kept
    const std::vector<int32_t>& kept = HeadOf(answer_.outcome.kept, head);
    for (int64_t i = 0; i < voted; ++i) {
      double vote = 0;
      for (const auto& row : votes) vote += row[static_cast<size_t>(i)] / static_cast<double>(votes.size());
      const bool stays = std::binary_search(kept.begin(), kept.end(), static_cast<int32_t>(kPrefix + i));
      if (!stays) lost += vote;
    }
    least = lost;
    const std::vector<int32_t> more = reference::Top(scores, std::ssize(kept) - kPrefix - 3);
    for (int64_t i = 0; i < voted; ++i) {
      double vote = 0;
      for (const auto& row : votes) vote += row[static_cast<size_t>(i)] / static_cast<double>(votes.size());
      const bool stays = std::binary_search(more.begin(), more.end(), static_cast<int32_t>(i));
      const bool stayed = std::binary_search(kept.begin(), kept.end(), static_cast<int32_t>(kPrefix + i));
      if (stayed && !stays) least += vote;
    }
    EXPECT_LT(lost, 0.2 * 20 + 0.05) << "head " << head;
    EXPECT_GT(least, 0.2 * 20 - 0.05) << "head " << head << " keeps more than it has to";
    CompareExact(head, scores, std::ssize(kept));
    EXPECT_LT(std::ssize(kept), context_ - 30) << "or nothing was chosen";
  }
  ExpectAnswerOfKept();
  ExpectPicks();
}

// Every query votes; what goes joins what stays.
TEST_F(CompressionReferenceTest, ExactWithSumsOfAllQueriesAndMerging) {
  for (const char* policy :
       {"h2o:heavy=80,recent=40", "h2o:heavy=80,recent=40,normalize=queries,reduce=max,merge=values",
        "lookm:budget=150,recent=30,images=50-150/180-300", "lookm:budget=150,recent=30,merge=averaged",
        "roco:budget=150,volatile=40,sink=30,recent=20"}) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer));
    for (int64_t i = 0; i < context_; ++i) Run(i, i);
    for (size_t head = 0; head < cache_.size(); ++head) {
      const size_t candidates = static_cast<size_t>(context_ - kPrefix);
      const auto of = [&](bool squared) {
        return Votes(head, static_cast<size_t>(context_), kPrefix, candidates, false, squared);
      };
      reference::Seen seen{.sums = of(false), .squares = of(true), .by = {}};
      for (size_t i = 0; i < candidates; ++i) seen.by.push_back(static_cast<double>(candidates - i));
      PolicySpec counted = spec_;
      if (spec_.kind == PolicySpec::Kind::kRoCo) counted.sink = std::max<int64_t>(0, spec_.sink - kPrefix);
      const std::vector<double> scores =
          spec_.kind == PolicySpec::Kind::kH2o    ? reference::H2o(seen, counted, true)
          : spec_.kind == PolicySpec::Kind::kRoCo ? reference::RoCo(seen, counted, true)
                                                  : reference::LookM(seen, counted, true);
      std::vector<int32_t> picks = reference::Top(scores, spec_.BudgetOf(context_, kPrefix) - kPrefix);
      for (int32_t& pick : picks) pick += kPrefix;
      std::vector<int32_t> engines = HeadOf(answer_.outcome.kept, head);
      engines.erase(engines.begin(), engines.begin() + kPrefix);
      ComparePicks(picks, engines);
    }
    const Cache whole = cache_;
    KeepAsTheEngine(answer_.outcome.kept, [](int32_t token, int64_t) { return token; });
    if (spec_.merge != PolicySpec::Merge::kNone) MergeWhatWent(whole);
    for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
      const std::vector<double> logits = Run(i, i).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
    std::cout << policy << ": largest error of an answer's log-probability " << answer_error_ << "\n";
  }
  ExpectPicks();
}

// All heads compete for four tokens beside the prefix.
TEST_F(CompressionReferenceTest, AHeadThatKeepsNothingHasNothingToMergeInto) {
  Ask(CompressionRequest(kExact, "kvzip:budget=22,chunk=128,merge=values", RolePrompt({371}, 37), kAnswer));
  size_t none = 0;
  for (size_t head = 0; head < cache_.size(); ++head) {
    none += std::ssize(HeadOf(answer_.outcome.kept, head)) == kPrefix ? 1 : 0;
  }
  EXPECT_GT(none, 0u) << "or this proves nothing";
  EXPECT_EQ(std::ssize(answer_.log_probabilities), kAnswer);
}

// What goes joins what stays in each head by itself, however many tokens each of them keeps.
TEST_F(CompressionReferenceTest, ExactMergedInHeadsOfDifferentSizes) {
  for (const char* policy :
       {"adakv:budget=120,window=20,floor=0,merge=values",
        "adakv:budget=120,window=20,floor=0,merge=averaged",
        "adakv:budget=120,window=20,floor=0,merge=pivotal",
        "adakv:budget=120,window=20,floor=0,merge=weighted",
        "pyramidkv:budget=120,window=20,beta=10,merge=values",
        "pyramidkv:budget=120,window=20,beta=10,merge=weighted", "kvzip:budget=120,chunk=128,merge=averaged",
        "kvzip:budget=120,chunk=128,merge=pivotal", "kvzip:budget=120,chunk=128,merge=values",
        "snapkv:budget=150,window=20,target=0.7,merge=values",
        "snapkv:budget=150,window=20,target=0.7,merge=averaged"}) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer));
    for (int64_t i = 0; i < context_; ++i) Run(i, i);
    const Cache whole = cache_;
    KeepAsTheEngine(answer_.outcome.kept, [](int32_t token, int64_t) { return token; });
    const auto [least, most] = std::minmax_element(
        cache_.begin(), cache_.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
    EXPECT_GT(most->size(), least->size() + 5) << policy << ": heads differ, or this proves nothing";
    EXPECT_LT(most->size(), whole[0].size()) << policy << ": something goes in every head";
    MergeWhatWent(whole);
    for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
      const std::vector<double> logits = Run(i, i).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
    std::cout << policy << ": largest error of an answer's log-probability so far " << answer_error_ << "\n";
  }
}

// The last query of all heads of a layer decides for all of them.
TEST_F(CompressionReferenceTest, ExactTova) {
  Ask(CompressionRequest(kExact, "tova:budget=120", RolePrompt({371}, 37), kAnswer));
  for (int64_t i = 0; i < context_; ++i) Run(i, i);
  const size_t kv_heads = static_cast<size_t>(reference_.kv_heads());
  for (size_t layer = 0; layer < cache_.size(); layer += kv_heads) {
    reference::Rows rows;
    for (size_t h = 0; h < kv_heads; ++h) {
      for (auto& row : Votes(layer + h, 1, kPrefix, static_cast<size_t>(context_ - kPrefix)))
        rows.push_back(row);
    }
    std::vector<int32_t> picks = reference::Top(reference::Tova(rows, spec_, true), 120 - kPrefix);
    for (int32_t& pick : picks) pick += kPrefix;
    for (size_t h = 0; h < kv_heads; ++h) {
      std::vector<int32_t> engines = HeadOf(answer_.outcome.kept, layer + h);
      EXPECT_EQ(engines, HeadOf(answer_.outcome.kept, layer)) << "heads of a layer keep the same";
      engines.erase(engines.begin(), engines.begin() + kPrefix);
      ComparePicks(picks, engines);
    }
  }
  ExpectPicks();
}

// Policies of keys, values, losses and moments of queries. The reference's keys are rotated, as its queries
// are.
TEST_F(CompressionReferenceTest, ExactOfKeysAndQueries) {
  for (const char* policy : {"knorm:budget=120", "keydiff:budget=120", "keydiff:budget=120,keys=rest",
                             "expected:budget=120,future=70", "expected:budget=120,covariance=no,sink=40",
                             "sirllm:budget=120,recent=9"}) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer));
    losses_ = {std::numeric_limits<double>::infinity()};
    for (int64_t i = 0; i < context_; ++i)
      losses_.push_back(NegativeLogLikelihood(Run(i, i).logits, tokens_[static_cast<size_t>(i) + 1]));
    for (size_t head = 0; head < cache_.size(); ++head)
      CompareExact(head, ScoresOfKeys(head), spec_.budget.value);
    ExpectAnswerOfKept();
  }
  ExpectPicks();
}

// Heads of a layer together: chunks that all keep, and how many tokens each keeps by the layer's scores.
TEST_F(CompressionReferenceTest, ExactOfAllHeads) {
  const int64_t kv_heads = reference_.kv_heads();
  int64_t spread = 0;  // of what heads keep, from what they would if all kept the same
  for (const char* policy :
       {"chunkkv:budget=120,window=20,chunk=9", "adakv:budget=120,window=20,floor=0,pool=none",
        "adakv:budget=150,window=20,floor=0.4,pool=avg"}) {
    Ask(CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer));
    for (int64_t i = 0; i < context_; ++i) Run(i, i);
    const int64_t voted = context_ - kPrefix - spec_.window,
                  base = spec_.budget.value - kPrefix - spec_.window;
    for (size_t first = 0; first < cache_.size(); first += static_cast<size_t>(kv_heads)) {
      reference::Rows scores;
      for (size_t head = first; head < first + static_cast<size_t>(kv_heads); ++head) {
        const reference::Rows votes =
            Votes(head, static_cast<size_t>(spec_.window), kPrefix, static_cast<size_t>(context_ - kPrefix));
        scores.push_back(reference::SnapKv(votes, spec_, true));
        scores.back().resize(static_cast<size_t>(voted));
      }
      const bool chunks = spec_.kind == PolicySpec::Kind::kChunkKv;
      const std::vector<int64_t> counts =
          reference::PublishedAda(reference::AdaWins(scores, base), base, spec_.floor, /*half_even=*/true);
      for (size_t h = 0; h < scores.size(); ++h) {
        std::vector<double> own = chunks ? reference::Chunks(scores, voted, spec_.chunk) : scores[h];
        own.resize(static_cast<size_t>(context_ - kPrefix), std::numeric_limits<double>::infinity());
        const int64_t kept = std::ssize(HeadOf(answer_.outcome.kept, first + h));
        // Scores near the last that stays may change sides; a maximum pool would take seven along.
        EXPECT_NEAR(kept, chunks ? spec_.budget.value : counts[h] + kPrefix + spec_.window, chunks ? 0 : 2);
        spread = std::max(spread, std::abs(kept - spec_.budget.value));
        CompareExact(first + h, own, kept);
      }
    }
    ExpectAnswerOfKept();
  }
  ExpectPicks();
  EXPECT_GT(spread, 3 * 2) << "or the counts prove nothing";
}

}  // namespace
}  // namespace palimpsest::testing
