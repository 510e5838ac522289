// The whole path of compression against float64: what is picked, and the logits behind it, are those of plain
// loops over a model in float64 without roundings, with the policies' definitions (policy_reference.h).
//
// Picks : scores that lie closer to each other than bf16 roundings move them may change places, and under a
//         pool each takes its neighbours along: 0.94 of a head's picks, 0.985 of all. The loops go on from
//         the engine's picks, so that one exchange does not grow.
// Logits: the bound of reference_test.cc for two layers, 0.06 of their spread, and for the answer's
//         log-probabilities that of two logits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>

#include "tests/testing/reference_model.h"
#include "tests/worker/compression/key_reference.h"
#include "tests/worker/compression/merge_reference.h"
#include "tests/worker/compression/policy_reference.h"
#include "tests/worker/compression_cases.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;
using Cache = ReferenceModel::Cache;

constexpr double kLogitBound = 0.06;  // of their spread
constexpr int64_t kPrefix = 21, kAnswer = 100;
constexpr double kTheta = 10000;  // the tiny model's

class CompressionReferenceTest : public ::testing::Test {
 protected:
  // The engine's answer, and what the loops need of the request.
  void Ask(const Request& request) {
    tokens_.clear();
    for (const Segment& segment : request.segments)
      tokens_.insert(tokens_.end(), segment.tokens.begin(), segment.tokens.end());
    const bool question = request.segments.back().role == Segment::Role::kQuestion;
    context_ = static_cast<int64_t>(tokens_.size() - (question ? request.segments.back().tokens.size() : 0));
    prompt_ = static_cast<int64_t>(tokens_.size());
    spec_ = request.policy;
    catalyst_ = request.catalyst;
    auto engine = MakeTinyEngine(model_, CompressionEngine(100));
    answer_ = AnswerOf(*engine, request);
    tokens_.insert(tokens_.end(), answer_.outcome.tokens.begin(), answer_.outcome.tokens.end());
    cache_ = reference_.Empty();
    queries_.clear();
  }
  ReferenceModel::Seen Run(int64_t token, int64_t position) {
    ReferenceModel::Seen seen =
        reference_.Run(tokens_[static_cast<size_t>(token)], static_cast<int32_t>(token), position, &cache_);
    queries_.push_back(seen.queries);
    return seen;
  }
  static double NegativeLogLikelihood(const std::vector<double>& logits, int32_t token) {
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    return std::log(sum) - logits[static_cast<size_t>(token)];
  }
  // Attention of the last `window` queries to what each head holds from `skip` on, reduced; causal among the
  // observers, which are the last that are held. `candidates`: of them.
  reference::Rows Votes(size_t head, size_t window, size_t skip, size_t candidates, bool max = false,
                        bool squared = false) const {
    const size_t kv_heads = static_cast<size_t>(reference_.kv_heads()),
                 group = static_cast<size_t>(reference_.heads()) / kv_heads,
                 size = static_cast<size_t>(reference_.head_size());
    const auto& held = cache_[head];
    reference::Rows rows(group, std::vector<double>(candidates, 0.0));
    for (size_t g = 0; g < group; ++g) {
      for (size_t w = 0; w < window; ++w) {
        const std::vector<double>& q = queries_[queries_.size() - window + w][head / kv_heads];
        const size_t seen = held.size() - window + w + 1;
        const std::vector<double> weights = reference_.Attention(
            std::span(q).subspan((head % kv_heads * group + g) * size, size), held, seen);
        for (size_t i = 0; i < std::min(candidates, std::max(seen, skip) - skip); ++i) {
          double& vote = rows[g][i];
          const double weight = squared ? weights[skip + i] * weights[skip + i] : weights[skip + i];
          vote = max ? std::max(vote, weight) : vote + weight;
        }
      }
    }
    return rows;
  }
  // Of candidates behind the prefix, by the policy's words.
  std::vector<double> ScoresOfKeys(size_t head) const {
    reference::Rows rest, rotated, values;
    for (int64_t i = kPrefix; i < context_; ++i) {
      const ReferenceModel::Held& held = cache_[head][static_cast<size_t>(i)];
      rest.push_back(held.key);
      rotated.push_back(held.rotated);
      values.push_back(held.value);
    }
    if (spec_.kind == PolicySpec::Kind::kKnorm) return reference::Knorm(rest);
    if (spec_.kind == PolicySpec::Kind::kKeyDiff)
      return reference::KeyDiff(spec_.keys == PolicySpec::Keys::kRest ? rest : rotated);
    if (spec_.kind == PolicySpec::Kind::kSirLlm) {
      std::vector<double> scores(losses_.begin() + kPrefix, losses_.begin() + context_);
      std::fill(scores.end() - spec_.recent.value, scores.end(), std::numeric_limits<double>::infinity());
      return scores;
    }
    const size_t kv_heads = static_cast<size_t>(reference_.kv_heads()),
                 group = static_cast<size_t>(reference_.heads()) / kv_heads;
    std::vector<reference::Queries> queries;
    for (size_t g = 0; g < group; ++g)
      queries.push_back(MomentsOf(head / kv_heads, head % kv_heads * group + g));
    reference::Rows turns;
    for (int64_t position = context_; position < context_ + spec_.future; ++position)
      turns.push_back(Angles(position));
    PolicySpec spec = spec_;  // first tokens of the candidates that count as sinks
    spec.sink = std::max<int64_t>(0, spec_.sink - kPrefix);
    return reference::Expected(rotated, values, queries, turns, spec);
  }
  std::vector<double> Angles(int64_t position) const {
    std::vector<double> angles;
    for (int64_t i = 0; i < reference_.head_size() / 2; ++i) {
      const double part = 2.0 * static_cast<double>(i) / static_cast<double>(reference_.head_size());
      angles.push_back(static_cast<double>(position) * std::pow(kTheta, -part));
    }
    return angles;
  }
  // Of the rows behind the prefix and the sinks, turned back to what they were before rotation.
  reference::Queries MomentsOf(size_t layer, size_t query_head) const {
    const size_t size = static_cast<size_t>(reference_.head_size());
    reference::Rows rows;
    for (int64_t i = std::max(kPrefix, spec_.sink); i < context_; ++i) {
      const std::vector<double>& all = queries_[static_cast<size_t>(i)][layer];
      std::vector<double> row(all.begin() + static_cast<std::ptrdiff_t>(query_head * size),
                              all.begin() + static_cast<std::ptrdiff_t>((query_head + 1) * size));
      const std::vector<double> angles = Angles(i);
      for (size_t d = 0; d < size; d += 2) {
        const double x = row[d], y = row[d + 1], cosine = std::cos(angles[d / 2]),
                     sine = std::sin(angles[d / 2]);
        row[d] = cosine * x + sine * y;
        row[d + 1] = cosine * y - sine * x;
      }
      rows.push_back(row);
    }
    const double n = static_cast<double>(rows.size());
    reference::Queries of{.mean = std::vector<double>(size, 0.0),
                          .covariance = reference::Rows(size, std::vector<double>(size, 0.0))};
    for (const auto& row : rows) {
      for (size_t d = 0; d < size; ++d) of.mean[d] += row[d] / n;
    }
    for (const auto& row : rows) {
      for (size_t a = 0; a < size; ++a) {
        for (size_t b = 0; b < size; ++b)
          of.covariance[a][b] += (row[a] - of.mean[a]) * (row[b] - of.mean[b]) / n;
      }
    }
    return of;
  }
  // Compares picks with the engine's of one head.
  void ComparePicks(const std::vector<int32_t>& picks, const std::vector<int32_t>& engines) {
    EXPECT_EQ(picks.size(), engines.size());
    const double overlap = reference::Overlap(picks, engines);
    EXPECT_GE(overlap, 0.94);
    overlap_ += overlap;
    ++overlaps_;
  }
  // Of exact prefill, by scores of the candidates behind the prefix; `budget` with the prefix.
  void CompareExact(size_t head, const std::vector<double>& scores, int64_t budget) {
    std::vector<int32_t> picks = reference::Top(scores, budget - kPrefix);
    for (int32_t& pick : picks) pick += kPrefix;
    const std::vector<int32_t>& engines = HeadOf(answer_.outcome.kept, head);
    ComparePicks(picks, {engines.begin() + kPrefix, engines.end()});
  }
  void ExpectPicks() const {
    ASSERT_GT(overlaps_, 0);
    std::cout << "overlap of picks " << overlap_ / overlaps_ << " in " << overlaps_ << " heads\n";
    EXPECT_GE(overlap_ / overlaps_, 0.985);
  }
  const std::vector<int32_t>& HeadOf(const Outcome::Kept& kept, size_t head) const {
    const size_t kv_heads = static_cast<size_t>(reference_.kv_heads());
    return kept[head / kv_heads][head % kv_heads];
  }
  // Every head keeps what the engine kept, at the positions that `place` gives to (token, its rank).
  template <typename Place>
  void KeepAsTheEngine(const Outcome::Kept& kept, Place place) {
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<ReferenceModel::Held> next;
      for (const int32_t token : HeadOf(kept, head)) {
        const auto found = std::find_if(cache_[head].begin(), cache_[head].end(),
                                        [&](const auto& held) { return held.token == token; });
        ASSERT_NE(found, cache_[head].end()) << "token " << token << " is kept, but was gone before";
        next.push_back(*found);
        reference_.Move(&next.back(), place(token, std::ssize(next) - 1));
      }
      cache_[head] = std::move(next);
    }
  }
  // What `whole` has beside what each head holds joins that; not the prefix.
  void MergeWhatWent(const Cache& whole) {
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<ReferenceModel::Held>& held = cache_[head];
      reference::Tokens stays, goes;
      for (size_t i = kPrefix; i < held.size(); ++i) stays.push_back({held[i].key, held[i].value});
      for (const ReferenceModel::Held& one : whole[head]) {
        const bool kept =
            std::any_of(held.begin(), held.end(), [&](const auto& h) { return h.token == one.token; });
        if (!kept) goes.push_back({one.key, one.value});
      }
      const reference::Tokens merged = reference::Merge(spec_.merge, stays, goes);
      for (size_t i = kPrefix; i < held.size(); ++i) {
        held[i].key = merged[i - kPrefix].key;
        held[i].value = merged[i - kPrefix].value;
        held[i].rotated.clear();
        reference_.Move(&held[i], held[i].position);
      }
    }
  }
  void ExpectPromptLogits(const std::vector<double>& logits) const {
    const std::vector<float> engines = LogitsOf(answer_.outcome);
    double squares = 0, worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      squares += logits[i] * logits[i];
      worst = std::max(worst, std::abs(logits[i] - static_cast<double>(engines[i])));
    }
    worst /= std::sqrt(squares / static_cast<double>(logits.size()));
    std::cout << "largest error of the prompt's logits " << worst << " of their spread\n";
    EXPECT_LE(worst, kLogitBound);
  }
  void ExpectAnswerToken(const std::vector<double>& logits, int64_t token) {
    const double expected = -NegativeLogLikelihood(logits, tokens_[static_cast<size_t>(token)]);
    const double told = answer_.log_probabilities[static_cast<size_t>(token - prompt_)];
    answer_error_ = std::max(answer_error_, std::abs(expected - told));
    EXPECT_NEAR(expected, told, 2 * kLogitBound * 1.5) << "token " << token - prompt_ << " of the answer";
  }

  // The question and the answer over what the engine kept, each token at its own position.
  void ExpectAnswerOfKept() {
    KeepAsTheEngine(answer_.outcome.kept, [](int32_t token, int64_t) { return token; });
    for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
      const std::vector<double> logits = Run(i, i).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
  }

  const std::shared_ptr<const GgufFile> model_ = TinyModel({});
  const ReferenceModel reference_{*model_, Rounding::kNone};
  std::vector<int32_t> tokens_, catalyst_;  // prompt and answer
  int64_t context_ = 0, prompt_ = 0;
  PolicySpec spec_;
  Answer answer_;
  Cache cache_;
  std::vector<std::vector<std::vector<double>>> queries_;  // of all rows so far
  std::vector<double> losses_;
  double overlap_ = 0, answer_error_ = 0;
  int overlaps_ = 0;
};

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

TEST_F(CompressionReferenceTest, AnchoredSnapKv) {
  for (const bool visible : {false, true}) {
    Request request = CompressionRequest(kAnchored, "snapkv:budget=120,window=20,kernel=5",
                                         RolePrompt({150, 90, 131}, 37), kAnswer);
    request.question_visible = visible;
    Ask(request);
    const int64_t question = prompt_ - context_;
    for (int64_t i = 0; i < kPrefix; ++i) Run(i, i);
    const Cache anchor = cache_;
    Cache spans = reference_.Empty();
    std::vector<std::vector<double>> scores(cache_.size());
    int64_t first = kPrefix;
    for (const int64_t size : {150, 90, 131}) {
      cache_ = anchor;
      for (int64_t i = 0; i < size; ++i) Run(first + i, kPrefix + i);
      if (visible) {
        for (int64_t i = 0; i < question; ++i) Run(context_ + i, kPrefix + size + i);
      }
      for (size_t head = 0; head < cache_.size(); ++head) {
        const reference::Rows votes = Votes(head, 20, kPrefix, static_cast<size_t>(size));
        const bool last = first + size == context_;
        const std::vector<double> own = reference::SnapKv(votes, spec_, last && !visible);
        scores[head].insert(scores[head].end(), own.begin(), own.end());
        spans[head].insert(spans[head].end(), cache_[head].begin() + kPrefix,
                           cache_[head].begin() + kPrefix + size);
      }
      first += size;
    }
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<int32_t> picks = reference::Top(scores[head], spec_.budget.value - kPrefix);
      for (int32_t& pick : picks) pick += kPrefix;
      std::vector<int32_t> engines = HeadOf(answer_.outcome.kept, head);
      engines.erase(engines.begin(), engines.begin() + kPrefix);
      ComparePicks(picks, engines);
    }
    cache_ = anchor;
    for (size_t head = 0; head < cache_.size(); ++head)
      cache_[head].insert(cache_[head].end(), spans[head].begin(), spans[head].end());
    KeepAsTheEngine(answer_.outcome.kept, [](int32_t, int64_t rank) { return rank; });
    for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
      const std::vector<double> logits = Run(i, spec_.budget.value + i - context_).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
  }
  ExpectPicks();
}

// Nothing is dropped: the spans stand behind each other, each as it was read.
TEST_F(CompressionReferenceTest, AnchoredFull) {
  Ask(CompressionRequest(kAnchored, "full", RolePrompt({150, 90, 131}, 37), kAnswer));
  for (int64_t i = 0; i < kPrefix; ++i) Run(i, i);
  const Cache anchor = cache_;
  Cache all = anchor;
  int64_t first = kPrefix;
  for (const int64_t size : {150, 90, 131}) {
    cache_ = anchor;
    for (int64_t i = 0; i < size; ++i) Run(first + i, kPrefix + i);
    for (size_t head = 0; head < cache_.size(); ++head) {
      for (int64_t i = 0; i < size; ++i) {
        all[head].push_back(cache_[head][static_cast<size_t>(kPrefix + i)]);
        reference_.Move(&all[head].back(), first + i);
      }
    }
    first += size;
  }
  cache_ = all;
  for (int64_t i = context_; i + 1 < prompt_ + kAnswer; ++i) {
    const std::vector<double> logits = Run(i, i).logits;
    if (i + 1 == prompt_) ExpectPromptLogits(logits);
    if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
  }
}

// Cycles one by one, also those of the answer.
TEST_F(CompressionReferenceTest, Pot) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const char* policy :
       {"infinipot:pot=160,keep=80,alpha=0.4", "infinipot:pot=160,keep=90,alpha=0,reduce=max",
        "infinipot:pot=160,keep=80,alpha=1", "infinipot:pot=160,keep=80,alpha=0.5,score=snapkv"}) {
    Ask(CompressionRequest(kPot, policy, RolePrompt({571}, 37), kAnswer));
    const bool cap = spec_.score == "cap", max = spec_.reduce == PolicySpec::Reduce::kMax;
    if (!cap) catalyst_.clear();
    const int64_t probe = std::ssize(catalyst_), keep = spec_.keep.value;
    std::vector<double> losses = {kInfinity};
    size_t cycle = 0;
    int64_t stretch = 0;  // tokens since the last cycle, or since the context's end
    for (int64_t i = 0; i + 1 < prompt_ + kAnswer; ++i) {
      if (i == context_) stretch = 0;
      // A question that would not fit behind the context is not torn.
      const int64_t held = std::ssize(cache_[0]);
      const bool torn =
          i == context_ && cap && held > keep && held + prompt_ - context_ + probe > spec_.pot.value;
      if (held + probe == spec_.pot.value || torn) {
        ASSERT_LT(cycle, answer_.outcome.cycles.size());
        const Outcome::Kept& kept = answer_.outcome.cycles[cycle++];
        const Cache before = cache_;
        const size_t candidates = before[0].size() - kPrefix;
        for (int64_t p = 0; p < probe; ++p) {
          queries_.push_back(
              reference_.Run(catalyst_[static_cast<size_t>(p)], -1, held + p, &cache_).queries);
        }
        for (size_t head = 0; head < cache_.size(); ++head) {
          const int64_t window = cap ? probe : std::min<int64_t>(32, stretch);
          const reference::Rows votes = Votes(head, static_cast<size_t>(window), kPrefix, candidates, max);
          PolicySpec snapkv;
          std::vector<double> scores =
              cap ? reference::Cap(votes, spec_.reduce) : reference::SnapKv(votes, snapkv, true);
          const int64_t count = keep - kPrefix,
                        novel = static_cast<int64_t>(spec_.alpha * static_cast<double>(count) + 1e-9);
          std::vector<double> own_losses;
          for (size_t c = 0; c < candidates; ++c) {
            const int32_t token = before[head][kPrefix + c].token;
            own_losses.push_back(losses[static_cast<size_t>(token)]);
            if (token < context_ || token >= prompt_) continue;  // the question stays
            scores[c] = kInfinity;
            if (static_cast<double>(prompt_ - context_) > (1 - spec_.alpha) * static_cast<double>(count))
              own_losses.back() = kInfinity;
          }
          std::vector<int32_t> picks = reference::Novel(own_losses, scores, 0, count, novel);
          for (int32_t& pick : picks) pick = before[head][static_cast<size_t>(kPrefix + pick)].token;
          const std::vector<int32_t>& all = HeadOf(kept, head);
          const auto in_question = [&](int32_t token) { return token >= context_ && token < prompt_; };
          if (i >= prompt_) {
            EXPECT_EQ(std::count_if(all.begin(), all.end(), in_question), prompt_ - context_);
          }
          ComparePicks(picks, {all.begin() + kPrefix, all.end()});
        }
        cache_ = before;
        KeepAsTheEngine(kept, [](int32_t, int64_t rank) { return rank; });
        stretch = 0;
      }
      const std::vector<double> logits = Run(i, std::ssize(cache_[0])).logits;
      ++stretch;
      const bool of_question = i + 1 == context_;  // the context may be read without the question
      losses.push_back(of_question ? kInfinity
                                   : NegativeLogLikelihood(logits, tokens_[static_cast<size_t>(i + 1)]));
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
    EXPECT_EQ(cycle, answer_.outcome.cycles.size());
    EXPECT_GE(cycle, 6u);
    std::cout << policy << ": " << cycle << " cycles, largest error of an answer's log-probability "
              << answer_error_ << "\n";
  }
  ExpectPicks();
}

// Sinks and the recent, numbered by slot anew for each token.
TEST_F(CompressionReferenceTest, StreamingSlides) {
  struct Shape {
    const char* policy;
    int64_t prefix, document, question;
  };
  for (const Shape& shape : std::vector<Shape>{{"streaming:sink=4,recent=60", 21, 300, 37},
                                               {"streaming:sink=40,recent=30", 21, 300, 37},
                                               {"streaming:sink=4,recent=60", 0, 300, 0},
                                               {"streaming:sink=0,recent=50", 0, 200, 10},
                                               {"streaming:sink=4,recent=1", 0, 100, 10},
                                               {"streaming:sink=4,recent=2", 0, 100, 0},
                                               {"streaming:sink=5,recent=20", 0, 30, 70},
                                               {"streaming:sink=50,recent=20", 0, 30, 30},
                                               {"streaming:sink=4,recent=30", 0, 20, 0}}) {
    Ask(CompressionRequest(kExact, shape.policy,
                           RolePrompt({shape.document}, shape.question, 1, shape.prefix), kAnswer));
    const int64_t total = spec_.sink + spec_.recent.value;
    const int64_t front = std::min(std::max(shape.prefix, spec_.sink), context_);
    const auto drop = [&](int64_t tokens) {  // the oldest behind the front, to so many tokens in all
      for (auto& head : cache_) {
        while (std::ssize(head) > tokens) head.erase(head.begin() + front);
        for (size_t i = 0; i < head.size(); ++i) reference_.Move(&head[i], static_cast<int64_t>(i));
      }
    };
    for (int64_t i = 0; i + 1 < prompt_ + kAnswer; ++i) {
      if (i == context_) drop(total);
      if (i >= prompt_) drop(total - 1);
      const std::vector<double> logits = Run(i, std::ssize(cache_[0])).logits;
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
    }
    std::cout << shape.policy << ": largest error of an answer's log-probability " << answer_error_ << "\n";
  }
}

}  // namespace
}  // namespace palimpsest::testing
