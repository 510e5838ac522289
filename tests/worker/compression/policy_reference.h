// The policies in float64, by definition: one loop for each sentence of a paper, nothing fast. And the inputs
// of tests.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/compression/policy.h"

namespace palimpsest::reference {

using Rows = std::vector<std::vector<double>>;  // (query heads, tokens)

// SnapKV's score of each token. `attention` is summed over the window; the last window tokens get infinity if
// they stay.
std::vector<double> SnapKv(const Rows& attention, const PolicySpec& spec, bool window_stays);
// CaP's, of attention reduced over the catalyst.
std::vector<double> Cap(const Rows& attention, PolicySpec::Reduce reduce);

// What all queries together say of a head's tokens, (query heads, tokens): sums of attention and of its
// squares, and how many queries saw each token.
struct Seen {
  Rows sums, squares;
  std::vector<double> by;
};
// The last `recent` get infinity if they stay.
std::vector<double> H2o(const Seen& seen, const PolicySpec& spec, bool window_stays);
std::vector<double> LookM(const Seen& seen, const PolicySpec& spec, bool window_stays);
std::vector<double> RoCo(const Seen& seen, const PolicySpec& spec, bool window_stays);
// Of one KV head; a layer's are averaged.
std::vector<double> Tova(const Rows& attention, const PolicySpec& spec, bool window_stays);

// The `count` highest, by sorting all of them.
std::vector<int32_t> Top(const std::vector<double>& scores, int64_t count);
// InfiniPot: the first `fixed`; `novel` highest losses of the rest; `count - novel` highest scores of what is
// left.
std::vector<int32_t> Novel(const std::vector<double>& losses, const std::vector<double>& scores,
                           int64_t fixed, int64_t count, int64_t novel);

// Attention of the last `window` tokens to all, one head of size 1, summed over the window; with a mistake,
// if asked.
enum class Mistake { kNone, kNoCausalMask, kSoftmaxOverPrefix };
std::vector<double> WindowAttention(const std::vector<double>& keys, const std::vector<double>& queries,
                                    int64_t window, Mistake mistake = Mistake::kNone);

// Share of `a` that is in `b`; 1 if both are empty.
double Overlap(const std::vector<int32_t>& a, const std::vector<int32_t>& b);

}  // namespace palimpsest::reference

namespace palimpsest {

// A head's input that owns what it points at.
class TestHead {
 public:
  // Rows as long as the head has tokens; between them, `padding` slots that nobody may read. The rows are
  // also the sums of all queries, of which token i is seen by n - i, with some variance.
  explicit TestHead(const reference::Rows& attention, int64_t padding = 0);
  // Without attention.
  explicit TestHead(int64_t tokens);
  // The input points into this.
  TestHead(const TestHead&) = delete;
  TestHead& operator=(const TestHead&) = delete;

  HeadInput input;
  std::vector<int32_t> tokens;
  std::vector<float> attention, squares, seen_by, scratch;
  reference::Seen seen;  // the same numbers
  // Of size kHeadSize, drawn from a seed that is the number of tokens: what policies may ask for besides.
  static constexpr int64_t kHeadSize = 16;
  std::vector<float> losses, keys, values, output_norms, query_mean, query_covariance, mean_turn;

 private:
  void DrawRest(int64_t group);
};

// The policy's scores, from text: ScoresOf("snapkv:window=2", head).
std::vector<float> ScoresOf(const char* policy, const HeadInput& head);
std::vector<int32_t> TopOf(const std::vector<float>& scores, int64_t count);

// Numbers like attention: few large, most small; floats, so that both sides start from the same.
reference::Rows RandomAttention(int64_t heads, int64_t tokens, uint64_t seed);

}  // namespace palimpsest
