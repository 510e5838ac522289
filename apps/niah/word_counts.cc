// Which words are there most often: all of the text counts, and no place in it.
//
// Source: RULER's cwe (10 common words 30 times, all others 3 times; 6 and 1 in texts below 4,096 tokens,
// with a smaller example before) and fwe (coded words, Zipf's law with exponent 2, its first word is "...."
// and does not count). Question and introduction are worded here, and the words are ours.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kCommon = 10;
constexpr uint64_t kKeys = 4096;  // words of two parts, which are used first
constexpr int64_t kOthersMax = 260000;

struct Frequencies {
  int64_t common, other;
};

// "1. word 2. word ...", shuffled.
std::string NumberedList(const std::vector<std::string>& common, const std::vector<std::string>& others,
                         const Frequencies& times, RngSequence& random) {
  std::vector<std::string_view> words;
  for (const std::string& word : common) words.insert(words.end(), static_cast<size_t>(times.common), word);
  for (const std::string& word : others) words.insert(words.end(), static_cast<size_t>(times.other), word);
  Shuffle(words, random);
  std::string list;
  for (size_t i = 0; i < words.size(); ++i)
    list += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, words[i]);
  return list;
}

class CommonWords final : public NiahTask {
 public:
  using NiahTask::NiahTask;

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    return LongestSample(request, count, {.units = kOthersMax, .name = "list of words", .fills = true},
                         [&](int64_t units, int64_t filler) { return SampleOf(request, units, filler); });
  }

 private:
  // The first words are the same however many there are.
  static std::vector<std::string> Words(uint64_t count, RngSequence& random) {
    std::vector<uint64_t> numbers(kKeys);
    for (uint64_t i = 0; i < kKeys; ++i) numbers[i] = i;
    Shuffle(numbers, random);
    std::vector<std::string> words;
    for (uint64_t i = 0; i < count; ++i) words.push_back(WordOf(i < kKeys ? numbers[i] : i));
    return words;
  }

  NiahSample SampleOf(const NiahRequest& request, int64_t units, int64_t filler) const {
    constexpr int64_t kExampleOthers = 10, kShort = 4096;
    const bool is_short = request.tokens < kShort;
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    const std::vector<std::string> words =
        Words(static_cast<uint64_t>(2 * kCommon + kExampleOthers + units), random);
    auto part = [at = words.begin()](int64_t size) mutable {
      const auto first = at;
      at += size;
      return std::vector<std::string>(first, at);
    };
    const std::vector<std::string> shown = part(kCommon), shown_others = part(kExampleOthers);
    const std::vector<std::string> common = part(kCommon), others = part(units);
    const std::string example =
        NumberedList(shown, shown_others, is_short ? Frequencies{3, 1} : Frequencies{10, 3}, random);
    const std::string list =
        NumberedList(common, others, is_short ? Frequencies{6, 1} : Frequencies{30, 3}, random);
    NiahSample sample{.turns = {}, .answer_tokens = AnswerTokens(request)};
    sample.context = fmt::format(
        "In a numbered list of words some are there more often than the others. I will ask for the {} most "
        "frequent words of a list.\n\nAn example:\n{}\nThe {} most frequent words of this list are: "
        "{}.\n\nThe "
        "list:\n{}",
        kCommon, example, kCommon, fmt::join(shown, ", "), list);
    if (filler > 0) sample.context += "\n" + NoiseSentences(filler);
    sample.turns.push_back(
        {.question = fmt::format("Which {} words are the most frequent of the list?", kCommon),
         .answer_prefix = fmt::format(" The {} most frequent words of the list are:", kCommon),
         .references = common,
         .needles = {}});
    return sample;
  }
};

class FrequentWords final : public NiahTask {
 public:
  using NiahTask::NiahTask;

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    return LongestSample(request, count, {.name = "coded text"},
                         [&](int64_t units, int64_t) { return SampleOf(request, units); });
  }

 private:
  NiahSample SampleOf(const NiahRequest& request, int64_t units) const {
    constexpr int64_t kLeast = 100, kLetters = 6, kTokensPerWord = 50, kVocabularyMin = 10, kAsked = 3;
    constexpr double kZeta2 = 1.6449340668482264;  // the sum of 1 / k^2
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    std::vector<std::string> vocabulary = {"...."};
    const int64_t size = std::max(kVocabularyMin, request.tokens / kTokensPerWord);
    std::unordered_set<std::string> known;
    while (static_cast<int64_t>(vocabulary.size()) < size) {
      const auto [word, is_new] = known.insert(RandomLetters(random, kLetters, 'a'));
      if (is_new) vocabulary.push_back(*word);
    }
    std::vector<std::string_view> words;
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      const auto rank = static_cast<double>(i + 1);
      const auto times = static_cast<size_t>(static_cast<double>(kLeast + units) / (rank * rank * kZeta2));
      words.insert(words.end(), times, vocabulary[i]);
    }
    Shuffle(words, random);
    NiahSample sample{.turns = {}, .answer_tokens = AnswerTokens(request)};
    sample.context = fmt::format(
        "The following text is made of coded words. I will ask which of them are there most often; the dots "
        "\"....\" are no word.\n{}",
        fmt::join(words, " "));
    sample.turns.push_back(
        {.question = "Which three coded words are the most frequent of the text?",
         .answer_prefix = " The three most frequent coded words of the text are:",
         .references = std::vector<std::string>(vocabulary.begin() + 1, vocabulary.begin() + 1 + kAsked),
         .needles = {}});
    return sample;
  }
};

}  // namespace

std::unique_ptr<NiahTask> MakeCommonWords(NiahTaskTraits traits) {
  return std::make_unique<CommonWords>(std::move(traits));
}
std::unique_ptr<NiahTask> MakeFrequentWords(NiahTaskTraits traits) {
  return std::make_unique<FrequentWords>(std::move(traits));
}

}  // namespace palimpsest
