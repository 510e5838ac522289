#include "worker/recall/shared_words.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace palimpsest {
namespace {

constexpr double kHalfWeightTokens = 64;     // so far before the question's end a word weighs half as much
constexpr double kNeighborShare = 0.75;      // of a word's weight
constexpr int64_t kPassageTokens = 16;       // on either side of a slice, at least
constexpr double kLeastShareOfBest = 0.5;    // of the best passage's score
constexpr double kLeastShareOfUnique = 0.5;  // of a word's weight that stands in one slice alone

struct Slice {
  int32_t number;
  std::span<const int32_t> tokens;
};

class Words {
 public:
  Words(std::span<const int32_t> question, std::span<const Slice> slices);
  // Of each slice's passage.
  std::vector<double> Scores(std::span<const Slice> slices, int64_t radius);

 private:
  // Of a question's word; -1: none.
  int32_t WordOf(int32_t token) const {
    return token >= 0 && static_cast<size_t>(token) < word_of_.size() ? word_of_[static_cast<size_t>(token)]
                                                                      : -1;
  }
  // Each of the question's words among the tokens, but those that this stamp has seen.
  template <typename Use>
  void ForEachNew(std::span<const int32_t> tokens, int64_t stamp, const Use& use) {
    for (const int32_t token : tokens) {
      const int32_t word = WordOf(token);
      if (word < 0 || seen_[static_cast<size_t>(word)] == stamp) continue;
      seen_[static_cast<size_t>(word)] = stamp;
      use(static_cast<size_t>(word));
    }
  }

  std::vector<int32_t> word_of_;  // (token ids up to the question's greatest)
  std::vector<double> weights_;   // (words)
  std::vector<int64_t> seen_;     // (words) the stamp that saw it last
};

Words::Words(std::span<const int32_t> question, std::span<const Slice> slices) {
  word_of_.assign(static_cast<size_t>(*std::max_element(question.begin(), question.end())) + 1, -1);
  for (size_t i = 0; i < question.size(); ++i) {
    const double behind = static_cast<double>(question.size() - 1 - i);
    int32_t& word = word_of_[static_cast<size_t>(question[i])];
    if (word < 0) {
      word = static_cast<int32_t>(weights_.size());
      weights_.push_back(0);
    }
    double& weight = weights_[static_cast<size_t>(word)];
    weight = std::max(weight, kHalfWeightTokens / (kHalfWeightTokens + behind));
  }
  seen_.assign(weights_.size(), -1);
  std::vector<int64_t> holding(weights_.size(), 0);  // slices
  for (size_t s = 0; s < slices.size(); ++s)
    ForEachNew(slices[s].tokens, static_cast<int64_t>(s), [&](size_t word) { ++holding[word]; });
  // In steps of 2^-16, so that a sum does not depend on the order of the words.
  const double all = static_cast<double>(slices.size()) + 1;
  for (size_t w = 0; w < weights_.size(); ++w) {
    const double rare = std::max(0.0, std::log(all / (static_cast<double>(holding[w]) + 0.5)));
    weights_[w] = std::round(std::ldexp(rare * rare * weights_[w], 16));
  }
  seen_.assign(weights_.size(), -1);
}

std::vector<double> Words::Scores(std::span<const Slice> slices, int64_t radius) {
  const int64_t count = static_cast<int64_t>(slices.size());
  std::vector<double> scores;
  scores.reserve(slices.size());
  for (int64_t s = 0; s < count; ++s) {
    double own = 0, near = 0;
    ForEachNew(slices[static_cast<size_t>(s)].tokens, s, [&](size_t word) { own += weights_[word]; });
    for (int64_t n = std::max<int64_t>(0, s - radius); n <= std::min(count - 1, s + radius); ++n)
      ForEachNew(slices[static_cast<size_t>(n)].tokens, s, [&](size_t word) { near += weights_[word]; });
    scores.push_back(own + kNeighborShare * near);
  }
  return scores;
}

std::vector<Slice> SlicesOf(std::span<const int32_t> prompt, std::span<const IndexedBlock> blocks,
                            std::span<const int32_t> counts, int64_t slice) {
  std::vector<Slice> slices;
  for (size_t b = 0; b < blocks.size(); ++b) {
    for (int64_t first = 0; first < counts[b]; first += slice) {
      slices.push_back({static_cast<int32_t>((static_cast<int64_t>(b) * kTileSlots + first) / slice),
                        prompt.subspan(static_cast<size_t>(blocks[b].first + first),
                                       static_cast<size_t>(std::min(slice, counts[b] - first)))});
    }
  }
  return slices;
}

}  // namespace

std::vector<int32_t> SlicesSharingWords(std::span<const int32_t> prompt, int64_t question_first,
                                        std::span<const IndexedBlock> blocks, std::span<const int32_t> counts,
                                        int64_t slice, int64_t count) {
  const std::span<const int32_t> question = prompt.subspan(static_cast<size_t>(question_first));
  const std::vector<Slice> slices = SlicesOf(prompt, blocks, counts, slice);
  if (question.empty() || slices.empty()) return {};
  const int64_t radius = DivideUp(kPassageTokens, slice), last = static_cast<int64_t>(slices.size()) - 1;
  std::vector<double> scores = Words(question, slices).Scores(slices, radius);
  const double unique = std::log(static_cast<double>(slices.size()) + 1);
  double least = kLeastShareOfUnique * std::ldexp(unique * unique, 16);
  std::set<int32_t> numbers;
  while (static_cast<int64_t>(numbers.size()) < count) {
    const auto best = std::max_element(scores.begin(), scores.end());
    if (*best < least) break;
    least = std::max(least, *best * kLeastShareOfBest);
    const int64_t middle = best - scores.begin();
    // From the middle outwards: where there is no room for all, it comes.
    for (int64_t distance = 0; distance <= radius; ++distance) {
      for (const int64_t s : {middle + distance, middle - distance}) {
        if (s < 0 || s > last || static_cast<int64_t>(numbers.size()) == count) continue;
        numbers.insert(slices[static_cast<size_t>(s)].number);
        scores[static_cast<size_t>(s)] = -1;
      }
    }
  }
  return {numbers.begin(), numbers.end()};
}

}  // namespace palimpsest
