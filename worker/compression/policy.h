// CompressionPolicy: which tokens stay on the device, by a score for each. The seam: one method says what a
// token is worth, the rest (when it is asked, budgets, picking, packing, writing below) is common to all
// policies.
//
// When   : at the end of what is compressed (a document, a span, a prompt), and in pot prefill after every
//          stretch, also one that decoding filled. A policy with a sliding window is also asked to move it
//          at each decode step.
// What   : for each layer and KV head on its own, so heads may keep different tokens.
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
  // or the catalyst's, run after them and forgotten.
  int64_t window = 0;
  bool catalyst = false;
  RowReduce reduce = RowReduce::kSum;  // over the observers
  bool losses = false;                 // of each token, when it was first run
  // Attention of every query of what is compressed to every candidate, summed; and the squares of it.
  bool sums = false, squares = false;
  bool layer_wide = false;  // the KV heads of a layer keep the same tokens: their scores are averaged
};

// What there is to choose from, of one layer and KV head: n tokens in the order of their text.
struct HeadInput {
  int64_t layer = 0, kv_head = 0;
  int64_t group = 1;                // query heads of the KV head
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
  // The last `window` tokens of the list stay whatever their score (the end of all that is compressed).
  // Otherwise more text follows, and they compete with the rest.
  bool window_stays = true;
};

class CompressionPolicy {
 public:
  virtual ~CompressionPolicy() = default;
  virtual PolicyNeeds needs() const = 0;
  // scores[i]: the higher, the rather token i stays; ties to the earlier token. Infinity: stays in any case.
  virtual void Score(const HeadInput& head, std::span<float> scores) const = 0;

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

// Indices of the `count` highest scores, ascending; ties to the lower index. All if there are fewer.
void SelectTop(std::span<const float> scores, int64_t count, std::vector<int32_t>* picks);

// InfiniPot's combination: first the floor(alpha * count) highest losses, then the highest scores of the
// rest. The first `fixed` tokens stay in any case; count and alpha are of the others' picks. Indices
// ascending.
void SelectNovel(std::span<const float> losses, std::span<const float> scores, int64_t fixed, int64_t count,
                 double alpha, std::vector<int32_t>* picks);

}  // namespace palimpsest
