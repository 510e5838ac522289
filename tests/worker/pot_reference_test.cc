// What is picked in a pot, cycle by cycle, against loops in float64 (compression_reference.h).
#include <map>

#include "tests/worker/compression_reference.h"

namespace palimpsest::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class PotReferenceTest : public CompressionReferenceTest {
 protected:
  bool cap() const { return spec_.score == "cap"; }
  bool repeats() const { return spec_.score == "kvzip"; }
  bool shares() const { return spec_.score == "adakv" || spec_.score == "pyramidkv"; }
  int64_t lead() const { return std::ssize(catalyst_); }
  // Tokens of a stretch that are repeated at once.
  int64_t part_max() const {
    const int64_t room = spec_.pot.value - spec_.keep.value - lead() - 8;
    return room < 4 * kTileSlots ? kTileSlots : 2 * kTileSlots;
  }
  // What runs behind the pot and is forgotten.
  int64_t probe() const {
    if (repeats()) return lead() + PolicySpec::kRepeatLead + part_max();
    return cap() ? lead() : 0;
  }
  int64_t largest() const {
    int64_t most = 0;
    for (const auto& head : cache_) most = std::max(most, std::ssize(head));
    return most;
  }
  bool OfQuestion(int32_t token) const { return token >= context_ && token < prompt_; }

  // Repeats the stretch before token `end`, part by part in whole tiles of 64, each seeing the first tile and
  // itself; from then on its tokens have their worth.
  void Repeat(int64_t end) {
    const Cache whole = cache_;
    const int64_t first = std::max(stretch_, kPrefix),
                  before = stretch_ == 0 ? kPrefix : largest() - (end - stretch_);
    const int64_t seen = std::min(before, stretch_ == 0 ? kPrefix : kTileSlots);
    for (int64_t done = first; done < end;) {
      int64_t part = 0;
      while (done + part < end) {
        const int64_t tile = std::min(kTileSlots, end - done - part);
        if (part + tile > part_max()) break;
        part += tile;
      }
      std::vector<int32_t> repeated = catalyst_;
      for (int64_t i = std::max(first, done - PolicySpec::kRepeatLead); i < done + part; ++i)
        repeated.push_back(tokens_[static_cast<size_t>(i)]);
      for (size_t head = 0; head < cache_.size(); ++head) {
        const auto begin = whole[head].begin();
        cache_[head].assign(begin, begin + seen);
        cache_[head].insert(cache_[head].end(), begin + before + done - first,
                            begin + before + done - first + part);
      }
      for (size_t i = 0; i < repeated.size(); ++i) {
        const int64_t position = before + (end - first) + static_cast<int64_t>(i);
        queries_.push_back(reference_.Run(repeated[i], -1, position, &cache_).queries);
      }
      for (size_t head = 0; head < cache_.size(); ++head) {
        const reference::Rows rows =
            Votes(head, repeated.size(), static_cast<size_t>(seen), static_cast<size_t>(part), /*max=*/true);
        for (int64_t i = 0; i < part; ++i) {
          double& best = worth_[head][static_cast<int32_t>(done + i)];
          for (const auto& row : rows) best = std::max(best, row[static_cast<size_t>(i)]);
        }
      }
      done += part;
    }
    cache_ = whole;
  }

  // Of candidates behind the prefix, when tokens before `end` were read.
  std::vector<double> ScoresOf(size_t head, const Cache& before, int64_t end) {
    const size_t candidates = before[head].size() - kPrefix;
    if (repeats()) {
      std::vector<double> scores;
      for (size_t c = 0; c < candidates; ++c)
        scores.push_back(worth_[head].at(before[head][kPrefix + c].token));
      return scores;
    }
    const int64_t window = cap() ? probe() : std::min<int64_t>(32, end - stretch_);
    const reference::Rows votes = Votes(head, static_cast<size_t>(window), kPrefix, candidates,
                                        spec_.reduce == PolicySpec::Reduce::kMax);
    return cap() ? reference::Cap(votes, spec_.reduce) : reference::SnapKv(votes, PolicySpec(), true);
  }

  // One cycle before token `end`; what follows goes on from the engine's picks.
  void Distil(const Outcome::Kept& kept, int64_t end) {
    const Cache before = cache_;
    if (repeats()) Repeat(end);
    if (cap()) {
      const int64_t held = largest();
      for (int64_t p = 0; p < probe(); ++p)
        queries_.push_back(reference_.Run(catalyst_[static_cast<size_t>(p)], -1, held + p, &cache_).queries);
    }
    const int64_t count = spec_.keep.value - kPrefix,
                  novel = static_cast<int64_t>(spec_.alpha * static_cast<double>(count) + 1e-9);
    int64_t sum = 0;
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<double> scores = ScoresOf(head, before, end), losses;
      for (size_t c = 0; c < scores.size(); ++c) {
        const int32_t token = before[head][kPrefix + c].token;
        losses.push_back(losses_[static_cast<size_t>(token)]);
        if (!OfQuestion(token)) continue;  // the question stays
        scores[c] = kInfinity;
        if (static_cast<double>(prompt_ - context_) > (1 - spec_.alpha) * static_cast<double>(count))
          losses.back() = kInfinity;
      }
      const std::vector<int32_t>& all = HeadOf(kept, head);
      const int64_t own = std::ssize(all) - kPrefix;
      std::vector<int32_t> picks = reference::Novel(losses, scores, 0, own, novel);
      for (int32_t& pick : picks) pick = before[head][static_cast<size_t>(kPrefix + pick)].token;
      if (end > prompt_) {
        EXPECT_EQ(std::count_if(all.begin(), all.end(), [&](int32_t t) { return OfQuestion(t); }),
                  prompt_ - context_);
      }
      ComparePicks(picks, {all.begin() + kPrefix, all.end()});
      sum += own;
      spread_ = std::max(spread_, std::abs(own - count));
      if (!shares()) {
        EXPECT_EQ(own, count);
      }
      EXPECT_LE(own + kPrefix, (spec_.keep.value + spec_.pot.value) / 2);
    }
    EXPECT_EQ(sum, count * std::ssize(cache_)) << "all heads together have the budget";
    cache_ = before;
    KeepAsTheEngine(kept, [](int32_t, int64_t rank) { return rank; });
    stretch_ = end;
  }

  // Cycles one by one, also those of the answer.
  void Follow(const char* policy, int64_t document, size_t cycles_min) {
    Ask(CompressionRequest(PrefillMode::kPot, policy, RolePrompt({document}, 37), kAnswer));
    losses_ = {kInfinity};
    worth_.assign(cache_.size(), {});
    stretch_ = spread_ = 0;
    size_t cycle = 0;
    for (int64_t i = 0; i + 1 < prompt_ + kAnswer; ++i) {
      if (i == context_ && cycle > 0) {  // what is left is packed
        if (repeats()) Repeat(i);
        stretch_ = i;
      }
      // A question that would not fit behind the context is not torn.
      const int64_t held = largest();
      const bool torn = i == context_ && (cap() || repeats()) && held > spec_.keep.value &&
                        held + prompt_ - context_ + probe() > spec_.pot.value;
      if (held + probe() == spec_.pot.value || torn) {
        ASSERT_LT(cycle, answer_.outcome.cycles.size());
        Distil(answer_.outcome.cycles[cycle++], i);
      }
      const std::vector<double> logits = Run(i, largest()).logits;
      const bool of_question = i + 1 == context_;  // the context may be read without the question
      losses_.push_back(of_question ? kInfinity
                                    : NegativeLogLikelihood(logits, tokens_[static_cast<size_t>(i + 1)]));
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
    EXPECT_EQ(cycle, answer_.outcome.cycles.size());
    EXPECT_GE(cycle, cycles_min);
    std::cout << policy << ": " << cycle << " cycles, largest error of an answer's log-probability "
              << answer_error_ << "\n";
  }

  int64_t stretch_ = 0;                           // first token since the last cycle
  int64_t spread_ = 0;                            // most that a head is off the mean
  std::vector<std::map<int32_t, double>> worth_;  // of each head's tokens that were repeated
};

TEST_F(PotReferenceTest, HeadsOfOneSize) {
  for (const char* policy :
       {"infinipot:pot=160,keep=80,alpha=0.4", "infinipot:pot=160,keep=90,alpha=0,reduce=max",
        "infinipot:pot=160,keep=80,alpha=1", "infinipot:pot=160,keep=80,alpha=0.5,score=snapkv",
        "infinipot:pot=160,keep=80,alpha=0.5,score=adakv"})  // novelty and window leave nothing to share
    Follow(policy, 571, 6);
  ExpectPicks();
}

TEST_F(PotReferenceTest, HeadsThatShare) {
  for (const char* policy :
       {"infinipot:pot=280,keep=140,alpha=0.2,score=adakv", "infinipot:pot=280,keep=140,alpha=0,score=adakv",
        "infinipot:pot=280,keep=140,alpha=0.2,score=pyramidkv"}) {
    Follow(policy, 871, 5);
    EXPECT_GT(spread_, 6) << policy << ": or the counts prove nothing";
  }
  ExpectPicks();
}

TEST_F(PotReferenceTest, WhatIsReadIsRepeated) {
  for (const char* policy :
       {"infinipot:pot=320,keep=80,alpha=0,score=kvzip", "infinipot:pot=240,keep=90,alpha=0.3,score=kvzip"})
    Follow(policy, 771, 5);
  ExpectPicks();
}

}  // namespace
}  // namespace palimpsest::testing
