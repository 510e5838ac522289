#include "worker/recall/shared_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "proto/base/rng.h"

namespace palimpsest {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kBlock = 64;
constexpr int32_t kCommon = 7;

// A document of one word, blocks of 64 tokens, behind a prefix of `kPrefix` tokens.
struct Text {
  static constexpr int64_t kPrefix = 10;
  explicit Text(int64_t tokens) : prompt(static_cast<size_t>(kPrefix + tokens), kCommon) {
    for (int64_t first = 0; first < tokens; first += kBlock) {
      const int64_t rows = std::min(kBlock, tokens - first);
      blocks.push_back({.id = {}, .first = kPrefix + first, .rows = rows, .position = kPrefix + first});
      counts.push_back(static_cast<int32_t>(rows));
    }
  }
  void Put(int64_t at, std::initializer_list<int32_t> words) {
    std::copy(words.begin(), words.end(), prompt.begin() + static_cast<std::ptrdiff_t>(kPrefix + at));
  }
  std::vector<int32_t> Ask(std::vector<int32_t> question, int64_t slice, int64_t count) const {
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), question.begin(), question.end());
    return SlicesSharingWords(all, static_cast<int64_t>(prompt.size()), blocks, counts, slice, count);
  }

  std::vector<int32_t> prompt;
  std::vector<IndexedBlock> blocks;
  std::vector<int32_t> counts;
};

TEST(SharedWordsTest, ThePassageOfTheRareWordsComesWithItsNeighbors) {
  Text text(6400);
  text.Put(3200 + 5, {100, 101, 102});
  EXPECT_THAT(text.Ask({kCommon, 100, 102, kCommon}, 16, 16), ElementsAre(199, 200, 201));
  EXPECT_THAT(text.Ask({kCommon, 100, 102, kCommon}, 8, 16), ElementsAre(398, 399, 400, 401, 402));
  EXPECT_THAT(text.Ask({kCommon, 100, 102, kCommon}, 64, 16), ElementsAre(49, 50, 51));
  EXPECT_THAT(text.Ask({100}, 16, 2), ElementsAre(200, 201)) << "the middle first, then what follows it";
  EXPECT_THAT(text.Ask({100}, 16, 1), ElementsAre(200));
}

TEST(SharedWordsTest, AWordIsWorthTheMoreTheRarerItIs) {
  Text text(6400);
  for (const int64_t at : {100, 900, 1700}) text.Put(at, {50, 51});
  text.Put(5200, {52});
  // 50 and 51 stand in three slices each and together weigh more than 52, which stands in one.
  EXPECT_THAT(text.Ask({50, 51, 52}, 16, 1), ElementsAre(100 / 16));
  EXPECT_THAT(text.Ask({50, 52}, 16, 1), ElementsAre(5200 / 16));
}

TEST(SharedWordsTest, WhatIsAskedLastCountsMoreThanEarlierTurns) {
  Text text(6400);
  text.Put(1600, {100});
  text.Put(4800, {200});
  std::vector<int32_t> turns = {100};
  turns.resize(30, kCommon);
  turns.push_back(200);
  turns.push_back(kCommon);
  EXPECT_THAT(text.Ask(turns, 16, 1), ElementsAre(300));
  EXPECT_THAT(text.Ask(turns, 16, 6), ElementsAre(99, 100, 101, 299, 300, 301));
  std::reverse(turns.begin(), turns.end());
  EXPECT_THAT(text.Ask(turns, 16, 1), ElementsAre(100));
}

TEST(SharedWordsTest, WhatSharesLittleDoesNotCome) {
  Text text(6400);
  EXPECT_THAT(text.Ask({kCommon, 900}, 16, 16), IsEmpty()) << "in every slice, in none";
  text.Put(1600, {100, 101, 102});
  text.Put(4800, {100});
  EXPECT_THAT(text.Ask({100, 101, 102}, 16, 16), ElementsAre(99, 100, 101)) << "less than half of the best";
}

TEST(SharedWordsTest, EdgesOfTheText) {
  Text text(100);  // its last block has 36 tokens, its last slice of 16 has 4
  text.Put(0, {100});
  text.Put(99, {200});
  EXPECT_THAT(text.Ask({100}, 16, 9), ElementsAre(0, 1));
  EXPECT_THAT(text.Ask({200}, 16, 9), ElementsAre(5, 6));
  EXPECT_THAT(text.Ask({100, 200}, 16, 0), IsEmpty());
  EXPECT_THAT(text.Ask({}, 16, 9), IsEmpty());
  EXPECT_THAT(Text(0).Ask({100}, 16, 9), IsEmpty());
  text.counts[0] = 0;  // on no tier
  EXPECT_THAT(text.Ask({100}, 16, 9), IsEmpty());
  EXPECT_THAT(text.Ask({200}, 16, 9), ElementsAre(5, 6));
}

// Word by word and with sets, as the header says it.
std::vector<int32_t> Reference(const Text& text, const std::vector<int32_t>& question, int64_t slice,
                               int64_t count) {
  struct Passage {
    int32_t number;
    std::set<int32_t> words;
  };
  std::vector<Passage> slices;
  for (size_t b = 0; b < text.blocks.size(); ++b) {
    for (int64_t i = 0; i < text.counts[b]; ++i) {
      const auto number = static_cast<int32_t>((static_cast<int64_t>(b) * kBlock + i) / slice);
      if (slices.empty() || slices.back().number != number) slices.push_back({number, {}});
      slices.back().words.insert(text.prompt[static_cast<size_t>(text.blocks[b].first + i)]);
    }
  }
  std::map<int32_t, double> weights;
  const double all = static_cast<double>(slices.size());
  for (size_t i = 0; i < question.size(); ++i) {
    const auto holding = std::count_if(slices.begin(), slices.end(),
                                       [&](const Passage& s) { return s.words.contains(question[i]); });
    const double rare = std::max(0.0, std::log((all + 1) / (static_cast<double>(holding) + 0.5)));
    const double late = 64.0 / (64.0 + static_cast<double>(question.size() - 1 - i));
    weights[question[i]] = std::max(weights[question[i]], std::round(rare * rare * late * 65536));
  }
  const int64_t reach = (16 + slice - 1) / slice, size = static_cast<int64_t>(slices.size());
  std::vector<std::pair<double, int64_t>> ranked;
  for (int64_t s = 0; s < size; ++s) {
    double score = 0;
    for (const auto& [word, weight] : weights) {
      bool near = false;
      for (int64_t n = std::max<int64_t>(0, s - reach); n <= std::min(size - 1, s + reach); ++n)
        near |= slices[static_cast<size_t>(n)].words.contains(word);
      score += slices[static_cast<size_t>(s)].words.contains(word) ? weight : near ? 0.75 * weight : 0;
    }
    ranked.emplace_back(score, s);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::set<int32_t> chosen;
  double least = 0.5 * 65536 * std::pow(std::log(all + 1), 2);
  for (const auto& [score, s] : ranked) {
    if (score < least || static_cast<int64_t>(chosen.size()) >= count) break;
    if (chosen.contains(slices[static_cast<size_t>(s)].number)) continue;
    least = std::max(least, 0.5 * score);
    for (int64_t distance = 0; distance <= reach; ++distance) {
      for (const int64_t n : {s + distance, s - distance}) {
        if (n >= 0 && n < size && static_cast<int64_t>(chosen.size()) < count)
          chosen.insert(slices[static_cast<size_t>(n)].number);
      }
    }
  }
  return {chosen.begin(), chosen.end()};
}

TEST(SharedWordsTest, AnyTextAnyQuestion) {
  RngSequence rng{Rng(5)};
  int found = 0;
  for (int round = 0; round < 400; ++round) {
    Text text(1 + static_cast<int64_t>(rng.Below(3000)));
    const uint64_t words = 20 + rng.Below(2000);
    for (int32_t& token : text.prompt) token = static_cast<int32_t>(rng.Below(words));
    for (int32_t& count : text.counts) count = rng.Below(9) == 0 ? 0 : count;
    std::vector<int32_t> question(1 + rng.Below(40));
    for (int32_t& token : question) token = static_cast<int32_t>(rng.Below(words + 50));
    const int64_t slice = int64_t{8} << rng.Below(4), count = static_cast<int64_t>(rng.Below(20));
    const std::vector<int32_t> slices = text.Ask(question, slice, count);
    EXPECT_EQ(slices, Reference(text, question, slice, count)) << round;
    found += slices.empty() ? 0 : 1;
  }
  EXPECT_GT(found, 200);
}

}  // namespace
}  // namespace palimpsest
