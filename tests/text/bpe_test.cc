#include "text/bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <optional>
#include <random>
#include <string>

namespace palimpsest {
namespace {

// A vocabulary over the letters a to d with random merges, and the plain definition of merging them.
class Vocabulary {
 public:
  explicit Vocabulary(uint32_t seed, int merges) : rng_(seed) {
    for (char c = 'a'; c <= 'd'; ++c) bpe.SetByte(static_cast<uint8_t>(c), Id(std::string(1, c)));
    for (int i = 0; i < merges; ++i) {
      const std::string left = texts_[rng_() % texts_.size()], right = texts_[rng_() % texts_.size()];
      if (left.size() + right.size() > 9) continue;
      const int32_t l = Id(left), r = Id(right), result = Id(left + right);
      bpe.AddMerge(l, r, result);
      ranks_.try_emplace({l, r}, static_cast<int>(ranks_.size()));
    }
  }

  std::string RandomWord(size_t bytes) {
    std::string word;
    while (word.size() < bytes) word.push_back(static_cast<char>('a' + rng_() % 5));  // 'e' has no token
    return word;
  }

  std::vector<int32_t> EncodePlainly(const std::string& word) {
    std::vector<int32_t> ids;
    for (char c : word) ids.push_back(c == 'e' ? -1 : Id(std::string(1, c)));
    while (true) {
      std::optional<std::pair<int, size_t>> best;  // rank, position
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = ranks_.find({ids[i], ids[i + 1]});
        if (found != ranks_.end() && (!best || found->second < best->first)) best = {found->second, i};
      }
      if (!best) break;
      const size_t at = best->second;
      ids[at] = Id(texts_[ids[at]] + texts_[ids[at + 1]]);
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    std::erase(ids, -1);
    return ids;
  }

  Bpe bpe;

 private:
  int32_t Id(const std::string& text) {
    const auto [at, inserted] = ids_.try_emplace(text, static_cast<int32_t>(texts_.size()));
    if (inserted) texts_.push_back(text);
    return at->second;
  }

  std::mt19937 rng_;
  std::map<std::string, int32_t> ids_;
  std::vector<std::string> texts_;
  std::map<std::pair<int32_t, int32_t>, int> ranks_;
};

TEST(BpeTest, ShortAndLongWordsAreMergedAsDefined) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    Vocabulary vocabulary(seed, 10 + static_cast<int>(seed) * 5);
    for (size_t bytes : {0, 1, 2, 3, 5, 8, 20, 47, 48, 49, 50, 100, 300}) {
      const std::string word = vocabulary.RandomWord(bytes);
      std::vector<int32_t> ids = {7};  // what is there stays
      vocabulary.bpe.Encode(word, &ids);
      std::vector<int32_t> expected = vocabulary.EncodePlainly(word);
      expected.insert(expected.begin(), 7);
      ASSERT_EQ(ids, expected) << "seed " << seed << " word " << word;
    }
  }
}

TEST(BpeTest, TheLeftmostOfEqualPairsIsMergedFirst) {
  Bpe bpe;
  bpe.SetByte('a', 0);
  bpe.AddMerge(0, 0, 1);
  for (size_t bytes : {3u, 7u, 101u}) {
    std::vector<int32_t> ids;
    bpe.Encode(std::string(bytes, 'a'), &ids);
    std::vector<int32_t> expected(bytes / 2, 1);
    expected.push_back(0);
    EXPECT_EQ(ids, expected);
  }
}

TEST(BpeTest, AMillionEqualBytesAreNotQuadratic) {
  Bpe bpe;
  bpe.SetByte('a', 0);
  for (int32_t id = 0; id < 10; ++id) bpe.AddMerge(id, id, id + 1);
  std::vector<int32_t> ids;
  const auto begin = std::chrono::steady_clock::now();
  bpe.Encode(std::string(1 << 20, 'a'), &ids);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 10, 10));
  EXPECT_LT(seconds.count(), 20) << "0.2 s in a release build, minutes if quadratic";
}

}  // namespace
}  // namespace palimpsest
