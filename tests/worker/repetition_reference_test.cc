// What kvzip keeps, against loops in float64 that repeat the text (compression_reference.h).
#include "tests/worker/compression_reference.h"

namespace palimpsest::testing {
namespace {

using enum PrefillMode;

// Repeats the context behind itself in float64, part by part: whole tiles of 64 tokens of it, up to the
// chunk.
class RepetitionReferenceTest : public CompressionReferenceTest {
 protected:
  // Of each head, of candidates [first, first + count) of the sequence behind the prefix; `from`: their first
  // token. What a head holds is prefix and candidates.
  std::vector<std::vector<double>> Repeat(int64_t from, int64_t count) {
    const Cache whole = cache_;
    std::vector<std::vector<double>> scores(cache_.size());
    for (int64_t done = 0; done < count;) {
      const int64_t part = std::min(count - done, spec_.chunk / kTileSlots * kTileSlots);
      std::vector<int32_t> probe = catalyst_;
      for (int64_t i = std::max<int64_t>(0, done - PolicySpec::kRepeatLead); i < done + part; ++i)
        probe.push_back(tokens_[static_cast<size_t>(from + i)]);
      const auto part_of = [&](const Cache& all) {  // prefix, part, what repeats it
        Cache some = all;
        for (auto& held : some) {
          held.erase(held.begin() + kPrefix + done + part, held.begin() + kPrefix + count);
          held.erase(held.begin() + kPrefix, held.begin() + kPrefix + done);
        }
        return some;
      };
      cache_ = spec_.attend == PolicySpec::Attend::kPart ? part_of(whole) : whole;
      queries_.clear();
      const int64_t position = kPrefix + count;
      for (size_t i = 0; i < probe.size(); ++i) {
        queries_.push_back(reference_.Run(probe[i], -1, position + static_cast<int64_t>(i), &cache_).queries);
      }
      if (spec_.attend == PolicySpec::Attend::kAll) cache_ = part_of(cache_);
      for (size_t head = 0; head < cache_.size(); ++head) {
        const reference::Rows rows =
            Votes(head, probe.size(), kPrefix, static_cast<size_t>(part), /*max=*/true);
        for (int64_t i = 0; i < part; ++i) {
          double best = 0;
          for (const auto& row : rows) best = std::max(best, row[static_cast<size_t>(i)]);
          scores[head].push_back(best);
        }
      }
      done += part;
    }
    cache_ = whole;
    return scores;
  }
  // Picks and how many of them each head has: the highest of all heads.
  void CompareShared(const std::vector<std::vector<double>>& scores) {
    std::vector<double> all;
    for (const auto& head : scores) all.insert(all.end(), head.begin(), head.end());
    const int64_t heads = std::ssize(scores), base = spec_.budget.value - kPrefix;
    int64_t kept = 0, spread = 0;
    std::vector<int32_t> best = reference::Top(all, heads * base);
    for (size_t head = 0; head < scores.size(); ++head) {
      std::vector<int32_t> own = HeadOf(answer_.outcome.kept, head);
      own.erase(own.begin(), own.begin() + kPrefix);
      for (int32_t& token : own) token -= kPrefix;
      const int64_t size = std::ssize(scores[head]), begin = static_cast<int64_t>(head) * size;
      const int64_t expected =
          std::count_if(best.begin(), best.end(), [&](int32_t i) { return i >= begin && i < begin + size; });
      EXPECT_NEAR(static_cast<double>(std::ssize(own)), static_cast<double>(expected), 2) << "head " << head;
      ComparePicks(reference::Top(scores[head], std::ssize(own)), own);
      kept += std::ssize(own);
      spread = std::max(spread, std::abs(std::ssize(own) - base));
    }
    EXPECT_EQ(kept, heads * base);
    EXPECT_GT(spread, 3 * 2) << "or the counts prove nothing";
  }
};

TEST_F(RepetitionReferenceTest, ExactKvZip) {
  for (const char* policy :
       {"kvzip:budget=120,chunk=150,attend=all", "kvzip:budget=120,chunk=128,attend=part",
        "kvzip:budget=200,chunk=2K,attend=all"}) {
    Request request = CompressionRequest(kExact, policy, RolePrompt({371}, 37), kAnswer);
    request.catalyst = RandomTokens(9, 99);
    Ask(request);
    for (int64_t i = 0; i < context_; ++i) Run(i, i);
    CompareShared(Repeat(kPrefix, context_ - kPrefix));
    ExpectAnswerOfKept();
    std::cout << policy << ": largest error of an answer's log-probability " << answer_error_ << "\n";
  }
  ExpectPicks();
}

// Each span is repeated behind itself; a head may have twice its share.
TEST_F(RepetitionReferenceTest, AnchoredKvZip) {
  Request request = CompressionRequest(kAnchored, "kvzip:budget=120,chunk=64,attend=all",
                                       RolePrompt({150, 90, 131}, 37), kAnswer);
  request.catalyst = RandomTokens(9, 99);
  Ask(request);
  for (int64_t i = 0; i < kPrefix; ++i) Run(i, i);
  const Cache anchor = cache_;
  std::vector<std::vector<double>> scores(cache_.size());
  int64_t first = kPrefix;
  for (const int64_t size : {150, 90, 131}) {
    cache_ = anchor;
    for (int64_t i = 0; i < size; ++i) Run(first + i, kPrefix + i);
    const std::vector<std::vector<double>> own = Repeat(first, size);
    for (size_t head = 0; head < own.size(); ++head)
      scores[head].insert(scores[head].end(), own[head].begin(), own[head].end());
    first += size;
  }
  CompareShared(scores);
  ExpectPicks();
}

}  // namespace
}  // namespace palimpsest::testing
