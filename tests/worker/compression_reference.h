// The whole path of compression against float64: what is picked, and the logits behind it, are those of plain
// loops over a model in float64 without roundings, with the policies' definitions (policy_reference.h).
//
// Picks : scores that lie closer to each other than bf16 roundings move them may change places, and under a
//         pool each takes its neighbours along: 0.94 of a head's picks, 0.985 of all. The loops go on from
//         the engine's picks, so that one exchange does not grow.
// Logits: the bound of reference_test.cc for two layers, 0.06 of their spread, and for the answer's
//         log-probabilities that of two logits.
#pragma once

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

using Cache = ReferenceModel::Cache;

inline constexpr double kLogitBound = 0.06;  // of their spread
inline constexpr int64_t kPrefix = 21, kAnswer = 100;
inline constexpr double kTheta = 10000;  // the tiny model's

class CompressionReferenceTest : public ::testing::Test {
 protected:
  explicit CompressionReferenceTest(Rounding rounding = Rounding::kNone) : reference_(*model_, rounding) {}
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
  // Every head keeps what the engine kept, at the positions that `place` gives to (token, its rank); the last
  // of each has the same rank.
  template <typename Place>
  void KeepAsTheEngine(const Outcome::Kept& kept, Place place) {
    int64_t largest = 0;
    for (size_t head = 0; head < cache_.size(); ++head)
      largest = std::max(largest, std::ssize(HeadOf(kept, head)));
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<ReferenceModel::Held> next;
      const int64_t first = largest - std::ssize(HeadOf(kept, head));
      for (const int32_t token : HeadOf(kept, head)) {
        const auto found = std::find_if(cache_[head].begin(), cache_[head].end(),
                                        [&](const auto& held) { return held.token == token; });
        ASSERT_NE(found, cache_[head].end()) << "token " << token << " is kept, but was gone before";
        next.push_back(*found);
        reference_.Move(&next.back(), place(token, first + std::ssize(next) - 1));
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
  const ReferenceModel reference_;
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

}  // namespace palimpsest::testing
