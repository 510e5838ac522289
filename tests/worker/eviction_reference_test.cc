// Which tokens go while an answer grows, and what it says over the others, against loops in float64
// (compression_reference.h).
//
// Who goes: of two tokens whose scores differ by less than bf16 roundings move them, either may. So the loops
//           go on from the engine's choice; it must be among the lowest in float64 too.
#include "tests/worker/compression_reference.h"

namespace palimpsest::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class EvictionReferenceTest : public CompressionReferenceTest {
 protected:
  // What queries said of a token of one head, by query head.
  struct Said {
    std::vector<double> sums, squares, last;
  };

  int64_t group() const { return reference_.heads() / reference_.kv_heads(); }
  // One more row, of token i.
  std::vector<double> Read(int64_t i) {
    const std::vector<double> logits = Run(i, i).logits;
    const size_t kv_heads = static_cast<size_t>(reference_.kv_heads()),
                 size = static_cast<size_t>(reference_.head_size());
    said_.resize(cache_.size());
    for (size_t head = 0; head < cache_.size(); ++head) {
      said_[head].resize(tokens_.size(), {std::vector<double>(group()), std::vector<double>(group()),
                                          std::vector<double>(group())});
      for (size_t g = 0; g < static_cast<size_t>(group()); ++g) {
        const size_t query_head = head % kv_heads * static_cast<size_t>(group()) + g;
        const std::vector<double> weights =
            reference_.Attention(std::span(queries_.back()[head / kv_heads]).subspan(query_head * size, size),
                                 cache_[head], cache_[head].size());
        for (size_t k = 0; k < weights.size(); ++k) {
          Said& of = said_[head][static_cast<size_t>(cache_[head][k].token)];
          of.sums[g] += weights[k];
          of.squares[g] += weights[k] * weights[k];
          of.last[g] = weights[k];
        }
      }
    }
    return logits;
  }
  // By the policy's words, of what a head holds behind the prefix after token i.
  std::vector<double> Scores(size_t head, int64_t i) const {
    const auto& held = cache_[head];
    const size_t n = held.size() - kPrefix;
    reference::Seen seen;
    for (int64_t g = 0; g < group(); ++g) {
      for (reference::Rows* rows : {&seen.sums, &seen.squares}) rows->emplace_back(n);
    }
    const bool tova = spec_.kind == PolicySpec::Kind::kTova;
    for (size_t k = 0; k < n; ++k) {
      const int32_t token = held[kPrefix + k].token;
      const Said& said = said_[head][static_cast<size_t>(token)];
      for (size_t g = 0; g < static_cast<size_t>(group()); ++g) {
        seen.sums[g][k] = tova ? said.last[g] : said.sums[g];
        seen.squares[g][k] = said.squares[g];
      }
      seen.by.push_back(static_cast<double>(i + 1 - token));
    }
    if (tova) return reference::Tova(seen.sums, spec_, true);
    PolicySpec counted = spec_;  // first tokens of the candidates that count as sinks
    counted.sink = std::max<int64_t>(0, spec_.sink - kPrefix);
    return spec_.kind == PolicySpec::Kind::kH2o ? reference::H2o(seen, counted, true)
                                                : reference::RoCo(seen, counted, true);
  }
  // The score of every head; of tova the mean of a layer's.
  std::vector<std::vector<double>> AllScores(int64_t i) const {
    std::vector<std::vector<double>> all;
    for (size_t head = 0; head < cache_.size(); ++head) all.push_back(Scores(head, i));
    const size_t kv_heads = static_cast<size_t>(reference_.kv_heads());
    for (size_t first = 0; first < all.size() && spec_.kind == PolicySpec::Kind::kTova; first += kv_heads) {
      for (size_t k = 0; k < all[first].size(); ++k) {
        double mean = 0;
        for (size_t h = first; h < first + kv_heads; ++h) mean += all[h][k] / static_cast<double>(kv_heads);
        for (size_t h = first; h < first + kv_heads; ++h) all[h][k] = mean;
      }
    }
    return all;
  }
  // Behind token i of the answer: the engine let go of one that is among the lowest of its head.
  void CompareEviction(int64_t i, const Outcome::Kept& kept) {
    const std::vector<std::vector<double>> all = AllScores(i);
    for (size_t head = 0; head < cache_.size(); ++head) {
      std::vector<double> scores = all[head];
      std::vector<ReferenceModel::Held> next;
      size_t gone = cache_[head].size();
      const std::vector<int32_t>& stays = HeadOf(kept, head);
      ASSERT_EQ(stays.size(), cache_[head].size() - 1) << "one goes for each that is new";
      for (size_t k = 0; k < cache_[head].size(); ++k) {
        const int32_t token = cache_[head][k].token;
        if (token >= context_ && token < prompt_) {
          scores[k - kPrefix] = kInfinity;
          ASSERT_TRUE(std::binary_search(stays.begin(), stays.end(), token)) << "the question stays";
        }
        if (std::binary_search(stays.begin(), stays.end(), token)) {
          next.push_back(cache_[head][k]);
        } else {
          gone = k;
        }
      }
      ASSERT_GE(gone, static_cast<size_t>(kPrefix)) << "the prefix stays";
      const double lowest = *std::min_element(scores.begin(), scores.end()), own = scores[gone - kPrefix];
      const int64_t rank =
          std::count_if(scores.begin(), scores.end(), [&](double score) { return score < own; });
      EXPECT_LE(rank, 4) << "head " << head << ", token " << i - prompt_ << ", " << own << " and " << lowest;
      agreed_ += rank == 0;
      ++evicted_;
      cache_[head] = std::move(next);
    }
  }
  // One answer, from the context's end on.
  void CompareAnswer(const std::string& policy, bool visible) {
    Request request = CompressionRequest(PrefillMode::kExact, policy, RolePrompt({271}, 37), kAnswer);
    request.question_visible = visible;
    Request keeps = request;
    keeps.policy.decode = PolicySpec::Decode::kKeep;
    Ask(keeps);
    const Outcome::Kept kept = answer_.outcome.kept;
    Ask(request);
    said_.clear();
    const int64_t read = visible ? prompt_ : context_;
    std::vector<double> logits;
    for (int64_t i = 0; i < read; ++i) logits = Read(i);
    if (visible) ExpectPromptLogits(logits);
    if (!kept.empty()) KeepAsTheEngine(kept, [](int32_t token, int64_t) { return token; });
    size_t cycle = 0;
    for (int64_t i = read; i + 1 < prompt_ + kAnswer; ++i) {
      logits = Read(i);
      if (i + 1 == prompt_) ExpectPromptLogits(logits);
      if (i + 1 >= prompt_) ExpectAnswerToken(logits, i + 1);
      const int64_t most = spec_.LimitOf(prompt_) + (visible ? 0 : prompt_ - context_);
      if (i >= prompt_ && std::ssize(cache_[0]) > most) {
        ASSERT_LT(cycle, answer_.outcome.cycles.size());
        CompareEviction(i, answer_.outcome.cycles[cycle++]);
      }
    }
    EXPECT_EQ(cycle, answer_.outcome.cycles.size());
    EXPECT_GT(cycle, 20u) << "or this proves nothing";
    std::cout << policy << ": " << cycle << " tokens, the lowest of float64 in "
              << static_cast<double>(agreed_) / static_cast<double>(evicted_)
              << " of all heads so far, largest error of an answer's log-probability " << answer_error_
              << "\n";
  }

  std::vector<std::vector<Said>> said_;  // (heads), by token
  int64_t agreed_ = 0, evicted_ = 0;
};

TEST_F(EvictionReferenceTest, H2o) {
  CompareAnswer("h2o:heavy=80,recent=20,decode=evict", false);
  CompareAnswer("h2o:heavy=80,recent=20,normalize=queries,reduce=max,decode=evict", false);
  CompareAnswer("h2o:heavy=100,recent=20,reduce=sum,decode=evict", true);
  CompareAnswer("h2o:heavy=300,recent=30,decode=evict", false);  // filled first
  EXPECT_GE(static_cast<double>(agreed_), 0.95 * static_cast<double>(evicted_));
}

TEST_F(EvictionReferenceTest, Tova) {
  CompareAnswer("tova:budget=120,decode=evict", false);
  CompareAnswer("tova:budget=120,last=free,decode=evict", true);
  CompareAnswer("tova:budget=320,last=free,decode=evict", false);
  EXPECT_GE(static_cast<double>(agreed_), 0.95 * static_cast<double>(evicted_));
}

TEST_F(EvictionReferenceTest, RoCo) {
  CompareAnswer("roco:budget=120,volatile=30,decode=evict", false);
  CompareAnswer("roco:budget=150,volatile=40,sink=30,recent=20,decode=evict", true);
  CompareAnswer("roco:budget=330,decode=evict", false);
  EXPECT_GE(static_cast<double>(agreed_), 0.95 * static_cast<double>(evicted_));
}

}  // namespace
}  // namespace palimpsest::testing
