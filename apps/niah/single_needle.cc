#include "apps/niah/single_needle.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "apps/niah/score.h"
#include "apps/niah/words.h"
#include "proto/base/quote.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kIntroduction =
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you "
    "about the number afterwards.\n";
constexpr std::string_view kIntroductionOfSeveral =
    "Some special magic numbers are hidden within the following text. Make sure to memorize it. I will quiz "
    "you about the numbers afterwards.\n";

// What a needle is about; {} stands for its key.
struct Kind {
  std::string_view needle, asked;
};
constexpr Kind kMagicNumber = {"One of the special magic numbers for {} is",
                               "the special magic number for {}"};
// Facts that even a small model does not take for each other, as it does with numbers of several keys.
constexpr std::array<Kind, 8> kFacts = {{
    {"The phone number of the {} bakery is", "the phone number of the {} bakery"},
    {"The weight of the {} statue in grams is", "the weight of the {} statue in grams"},
    {"The serial number of the {} camera is", "the serial number of the {} camera"},
    {"The password of the {} computer is", "the password of the {} computer"},
    {"The price of the {} ship in dollars is", "the price of the {} ship in dollars"},
    {"The population of the {} island is", "the population of the {} island"},
    {"The distance to the {} star in miles is", "the distance to the {} star in miles"},
    {"The library's number of the {} book is", "the library's number of the {} book"},
}};

struct Needle {
  Kind kind;
  std::string key, value;
  std::string text() const {
    return fmt::format("{}: {}.", fmt::format(fmt::runtime(kind.needle), key), value);
  }
  std::string asked() const { return fmt::format(fmt::runtime(kind.asked), key); }
};

// Cells share nothing: a needle or a text that is hard counts once.
uint64_t StreamOf(std::string_view task, const NiahRequest& request) {
  std::string cell =
      fmt::format("niah {} {} {}", task, request.tokens, std::llround(request.depth_percent * 1000));
  if (request.turns > 1) cell += fmt::format(" {}", request.turns);
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : cell) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

// Before piece `index`, whose border is nearest to the depth.
struct Place {
  size_t index = 0;
  double percent = 0;
};

Place PlaceOf(const std::vector<std::string>& pieces, double depth_percent) {
  double total = 0, before = 0;
  for (const std::string& piece : pieces) total += static_cast<double>(piece.size());
  Place best{.index = 0, .percent = 0};
  for (size_t i = 0; i < pieces.size(); ++i) {
    before += static_cast<double>(pieces[i].size());
    const double percent = 100 * before / total;
    if (std::abs(percent - depth_percent) < std::abs(best.percent - depth_percent)) best = {i + 1, percent};
  }
  return best;
}

// `units` units of the haystack around the needles, one for each turn.
NiahSample SampleOf(const Haystack& haystack, uint64_t start, int64_t units,
                    const std::vector<Needle>& needles, const NiahRequest& request) {
  const std::vector<std::string> pieces = haystack.Pieces(start, units);
  NiahSample sample;
  std::multimap<size_t, std::string> before;  // pieces' numbers: needles that stand before them
  for (size_t i = 0; i < needles.size(); ++i) {
    const std::string asked = needles[i].asked();
    const double depth = NiahDepth(request, static_cast<int64_t>(i));
    const Place place = PlaceOf(pieces, depth);
    before.emplace(place.index, needles[i].text());
    sample.turns.push_back(
        {.question = fmt::format("What is {} mentioned in the provided text?", asked),
         .answer_prefix = fmt::format(" {}{} mentioned in the provided text is",
                                      static_cast<char>(std::toupper(asked[0])), asked.substr(1)),
         .references = {needles[i].value},
         .needle = needles[i].text(),
         .depth_percent = depth,
         .stands_at_percent = place.percent});
  }
  std::vector<std::string> all;
  for (size_t i = 0; i <= pieces.size(); ++i) {
    const auto [first, end] = before.equal_range(i);
    for (auto needle = first; needle != end; ++needle) all.push_back(needle->second);
    if (i < pieces.size()) all.push_back(pieces[i]);
  }
  sample.context = fmt::format("{}{}", needles.size() == 1 ? kIntroduction : kIntroductionOfSeveral,
                               fmt::join(all, haystack.separator()));
  return sample;
}

// The sample with the most units that fits `tokens`.
absl::StatusOr<NiahSample> Longest(int64_t tokens, const CountSampleTokens& count,
                                   const std::function<NiahSample(int64_t units)>& sample_of) {
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t least, count(sample_of(1)));
  if (least > tokens) {
    return InvalidArgument(
        "a sample of {} tokens has no room: question, needle and answer take {}; give a longer length",
        tokens, least);
  }
  // `fits` do, and once it is known `over` do not. A unit takes a token or more.
  int64_t fits = 1;
  std::optional<int64_t> over;
  while (over.has_value() ? *over - fits > 1 : fits <= tokens) {
    const int64_t units = over.has_value() ? fits + (*over - fits) / 2 : 2 * fits;
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t counted, count(sample_of(units)));
    if (counted <= tokens) {
      fits = units;
    } else {
      over = units;
    }
  }
  return sample_of(fits);
}

bool IsOnce(std::string_view part, std::string_view text) {
  const size_t first = text.find(part);
  return first != std::string_view::npos && text.find(part, first + 1) == std::string_view::npos;
}

}  // namespace

SingleNeedle::SingleNeedle(std::string_view name, std::unique_ptr<Haystack> haystack, bool facts)
    : name_(name), haystack_(std::move(haystack)), facts_(facts) {}

absl::StatusOr<NiahSample> SingleNeedle::Generate(const NiahRequest& request,
                                                  const CountSampleTokens& count) const {
  constexpr int kDrawsMax = 16;
  RngSequence random(Rng(request.seed, StreamOf(name_, request)));
  const uint64_t start = random.Below(haystack_->starts());
  for (int draw = 0; draw < kDrawsMax; ++draw) {
    std::vector<Needle> needles;
    for (int64_t i = 0; i < request.turns; ++i) {
      std::string key = RandomKey(random);
      needles.push_back({.kind = facts_ ? kFacts[static_cast<size_t>(i) % kFacts.size()] : kMagicNumber,
                         .key = std::move(key),
                         .value = RandomNumber(random)});
    }
    const auto sample_of = [&](int64_t units) {
      return SampleOf(*haystack_, start, units, needles, request);
    };
    PALIMPSEST_ASSIGN_OR_RETURN(NiahSample sample, Longest(request.tokens, count, sample_of));
    if (std::all_of(needles.begin(), needles.end(), [&](const Needle& needle) {
          return IsOnce(needle.key, sample.context) && IsOnce(needle.value, sample.context);
        })) {
      return sample;
    }
  }
  return InvalidArgument("{} keys and numbers were drawn, and the haystack has each of them already",
                         kDrawsMax);
}

double SingleNeedle::Score(std::string_view output, const std::vector<std::string>& references) const {
  return StringMatchAll(output, references);
}

}  // namespace palimpsest
