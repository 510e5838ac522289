// CompressionPolicy: which tokens stay on the device, by a score for each. The seam: one method says what a
// token is worth, the rest (when it is asked, budgets, picking, packing, writing below) is common to all
// policies.
//
// When   : at the end of what is compressed (a document, a span, a prompt), and in pot prefill after every
//          stretch, also one that decoding filled. A policy with a sliding window is also asked to move it
//          at each decode step, and one that evicts which token goes for the new one.
// What   : for each layer and KV head on its own, so heads may keep different tokens; of a policy that shares
//          the budget, different numbers of them. What heads decide together has methods of its own.
// Needs  : declared; the prefill computes and keeps only what is asked for.
// Numbers: float32, in a fixed order: equal inputs give equal picks, whatever ran beside them. A score that
//          is not a number counts as the lowest.
// Threads: Score from several threads at once, for different heads.
//
// To add a policy: a .cc with a class like snapkv.cc, its row in proto/base/policy_spec, a line in
// MakePolicy, its float64 loop and its goldens in tests/worker/compression, a row in docs/policies.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "proto/base/policy_spec.h"

namespace palimpsest {

struct PolicyNeeds {
  // Attention of observers to every candidate. Observers are the last `window` tokens of what is compressed;
  // or the catalyst's, run after them and forgotten; or those of a repetition.
  int64_t window = 0;
  bool catalyst = false;
  RowReduce reduce = RowReduce::kSum;  // over the observers
  // The text is repeated behind itself, so many tokens at a time, each time behind the catalyst: the
  // observers of a candidate are what repeats it, and nothing of it stays. 0: it is not. `repeat_part`: while
  // it is repeated, a part sees the prefix and itself, and not all of the text.
  int64_t repeat = 0;
  bool repeat_part = false;
  bool losses = false;  // of each token, when it was first run
  // Attention of every query of what is compressed to every candidate, summed; and the squares of it.
  bool sums = false, squares = false;
  // The candidates' keys: rotated to where they stand, as attention sees them; or before rotation, as they
  // rest, to within the rounding of the rotated ones. And their values.
  enum class Keys { kNone, kRotated, kRest } keys = Keys::kNone;
  bool values = false;
  // Share is told how much attention each candidate has: Attention is asked beside Score.
  bool shares_by_attention = false;
  bool output_norms = false;  // how much a token's value can move the layer's output
  // Mean and covariance of the queries of all that is read, before rotation, but for those of the first
  // `sink` tokens of the prompt; and the mean rotation to the next `future` positions. 0: not wanted.
  int64_t future = 0;
  int64_t sink = 0;
};

// What there is to choose from, of one layer and KV head: n tokens in the order of their text.
struct HeadInput {
  int64_t layer = 0, kv_head = 0;
  int64_t group = 1;                // query heads of the KV head
  int64_t head_size = 0;            // D
  std::span<const int32_t> tokens;  // (n) index in the prompt
  // (group, n), row g at attention + g * attention_stride: reduced over the observers. Null unless needed.
  const float* attention = nullptr;
  int64_t attention_stride = 0;
  std::span<const float> losses;  // (n), natural logarithm; infinity for a token that nothing predicted
  // (group, n), row g at sums + g * sums_stride: attention of all queries to each token, summed in their
  // order, and of squared attention. Null unless needed.
  const float* sums = nullptr;
  const float* squares = nullptr;
  int64_t sums_stride = 0;
  std::span<const float> seen_by;  // (n) how many of those queries could see each token
  std::span<float> scratch;        // (2 n) whatever the policy wants to write down
  // The last `window` tokens of the list stay whatever their score (the end of all that is compressed).
  // Otherwise more text follows, and they compete with the rest.
  bool window_stays = true;
  // Empty unless needed.
  std::span<const float> keys, values;      // (n, D)
  std::span<const float> output_norms;      // (n): mean over the group of |W_o v|, the sum of its numbers
  std::span<const float> query_mean;        // (group, D)
  std::span<const float> query_covariance;  // (group, D, D)
  // (D): mean cosine and sine of each pair (2i, 2i+1) over the next positions; empty: nothing is turned.
  std::span<const float> mean_turn;
};

// What all heads of a context have to share, prefix apart.
struct HeadShares {
  int64_t layers, kv_heads;
  int64_t budget;  // tokens of each head, if all have the same
  int64_t most;    // that a head may have
  // (layers * kv_heads): of each head's candidates, as many in each; infinity: stays in any case. A head of a
  // pot that has fewer has -infinity behind them.
  std::span<const std::vector<float>> scores;
  // The same of attention, if the policy shares by it.
  std::span<const std::vector<float>> attention;
  int64_t candidates() const { return static_cast<int64_t>(scores[0].size()); }
};

class CompressionPolicy {
 public:
  virtual ~CompressionPolicy() = default;
  virtual PolicyNeeds needs() const = 0;
  // scores[i]: the higher, the rather token i stays; ties to the earlier token. Infinity: stays in any case.
  virtual void Score(const HeadInput& head, std::span<float> scores) const = 0;
  // After that, of all heads of a layer, each with the same tokens: what they decide together.
  virtual void Agree(std::span<std::vector<float>> /*heads*/) const {}

  // A policy of two stages picks this share of what stays (rounded down) by the scores, the rest by these;
  // infinity where the score is. 1: there is one stage.
  virtual double first_share() const { return 1; }
  virtual void ScoreRest(const HeadInput& /*head*/, std::span<const float> /*scores*/,
                         std::span<float> /*rest*/) const {}

  // attention[i]: of the observers to candidate i, summed over them, mean over the query heads.
  virtual void Attention(const HeadInput& /*head*/, std::span<float> /*attention*/) const {}
  // counts (layers * kv_heads): tokens that each head keeps. They sum to heads * budget, of a policy that
  // shares by attention to no more; none is above `most` or the candidates there are, none below the tokens
  // that stay in any case. REQUIRES: the budget is neither.
  virtual void Share(const HeadShares& of, std::span<int64_t> counts) const;

  // While decoding, of what was picked only the first `sink` and the last `recent` tokens stay, positions by
  // slot. A percentage is of the tokens of the prompt, which a policy does not know.
  struct Sliding {
    int64_t sink;
    Amount recent;
  };
  virtual std::optional<Sliding> sliding() const { return std::nullopt; }
};

// The policy that scores: of infinipot its `score`. Null for full.
std::unique_ptr<CompressionPolicy> MakePolicy(const PolicySpec& spec);

// What tokens are picked by: of a count, floor(first_share * count) by the scores, the rest by `rest`.
struct Ranking {
  std::span<const float> scores;
  std::span<const float> rest;  // empty: all by the scores
  double first_share = 1;
};

// Indices of the `count` highest scores, ascending; ties to the lower index. All if there are fewer.
void SelectTop(std::span<const float> scores, int64_t count, std::vector<int32_t>* picks);
void SelectTop(const Ranking& ranking, int64_t count, std::vector<int32_t>* picks);

// InfiniPot's combination: first the floor(alpha * count) highest losses, then the highest scores of the
// rest. The first `fixed` tokens stay in any case; count and alpha are of the others' picks. Indices
// ascending.
void SelectNovel(std::span<const float> losses, std::span<const float> scores, int64_t fixed, int64_t count,
                 double alpha, std::vector<int32_t>* picks);
void SelectNovel(std::span<const float> losses, const Ranking& ranking, int64_t fixed, int64_t count,
                 double alpha, std::vector<int32_t>* picks);

// Whether token a goes before token b: a total order, so that the same scores give the same picks on any
// machine. What is no number is last.
bool GoesBefore(float score_a, int64_t a, float score_b, int64_t b);
// floor(share * count), where 0.29 of 100 is 29.
int64_t PartOf(double share, int64_t count);

}  // namespace palimpsest
