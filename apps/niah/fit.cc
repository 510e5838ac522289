#include "apps/niah/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "apps/niah/haystack.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

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

// The largest number from `least` to `most` whose count is at most `tokens`, if `least` (which counts
// `counted`) is one. Texts grow evenly, so the next guess lies on the line through what is known; every third
// one halves what is left, so that no text can make the search long.
struct Largest {
  int64_t number = 0, counted = 0;
  bool is_most = false;
};
absl::StatusOr<Largest> LargestThatFits(int64_t tokens, int64_t least, int64_t counted, int64_t most,
                                        const std::function<absl::StatusOr<int64_t>(int64_t)>& count) {
  constexpr int64_t kFirstStep = 64;
  int64_t fits = least;
  std::optional<int64_t> over;
  double per_unit = 0;  // tokens; 0: not known
  int64_t step = kFirstStep;
  for (int round = 1; over.has_value() ? *over - fits > 1 : fits < most; ++round) {
    const int64_t guess = per_unit > 0
                              ? fits + static_cast<int64_t>(static_cast<double>(tokens - counted) / per_unit)
                              : fits + step;
    int64_t next = std::max(guess, fits + 1);
    if (over.has_value()) {
      next = round % 3 == 0 ? fits + (*over - fits) / 2 : std::min(next, *over - 1);
    } else if (next == fits + 1) {  // it ought not to fit; where it does the line was wrong
      next = fits + step;
      step *= 2;
    }
    next = std::min(next, most);
    PALIMPSEST_ASSIGN_OR_RETURN(const int64_t found, count(next));
    if (next > fits && found > counted) {
      per_unit = static_cast<double>(found - counted) / static_cast<double>(next - fits);
    }
    if (found <= tokens) {
      fits = next;
      counted = found;
    } else {
      over = next;
    }
  }
  return Largest{.number = fits, .counted = counted, .is_most = !over.has_value()};
}

uint64_t StreamOf(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

std::string Turns(const NiahRequest& request) {
  return request.turns > 1 ? fmt::format(" {}", request.turns) : std::string();
}

}  // namespace

uint64_t NiahStream(std::string_view task, const NiahRequest& request) {
  const auto depth = std::llround(request.depth_percent * 1000);
  return StreamOf(fmt::format("niah {} {} {}{}", task, request.tokens, depth, Turns(request)));
}

uint64_t NiahTextStream(std::string_view task, const NiahRequest& request) {
  return StreamOf(fmt::format("niah text {} {}{}", task, request.tokens, Turns(request)));
}

Woven Weave(const std::vector<std::string>& pieces, const std::vector<Insertion>& insertions) {
  Woven woven;
  woven.place.resize(insertions.size());
  std::multimap<size_t, size_t> before;  // pieces' numbers: insertions that stand before them
  for (size_t i = 0; i < insertions.size(); ++i) {
    const Place place = PlaceOf(pieces, insertions[i].depth_percent);
    before.emplace(place.index, i);
    woven.stands_at_percent.push_back(place.percent);
  }
  for (size_t i = 0; i <= pieces.size(); ++i) {
    const auto [first, end] = before.equal_range(i);
    for (auto insertion = first; insertion != end; ++insertion) {
      woven.place[insertion->second] = woven.pieces.size();
      woven.pieces.push_back(insertions[insertion->second].text);
    }
    if (i < pieces.size()) woven.pieces.push_back(pieces[i]);
  }
  return woven;
}

absl::StatusOr<NiahSample> LongestSample(const NiahRequest& request, const CountSampleTokens& count,
                                         const Haystacks& haystack, const SampleOfSize& sample_of) {
  PALIMPSEST_ASSIGN_OR_RETURN(const int64_t least, count(sample_of(1, 0)));
  if (least > request.tokens) {
    return InvalidArgument(
        "a sample of {} tokens has no room: question, needle and answer take {}; give a longer length",
        request.tokens, least);
  }
  // A unit has a token at least, unless the tokenizer does not know its words.
  const int64_t most = haystack.units.value_or(request.tokens);
  PALIMPSEST_ASSIGN_OR_RETURN(const Largest units,
                              LargestThatFits(request.tokens, 1, least, most,
                                              [&](int64_t number) { return count(sample_of(number, 0)); }));
  // One unit more may be what is missing; where filler stands in for it, up to a hundredth is.
  if (units.is_most && static_cast<double>(units.counted) < 0.99 * static_cast<double>(request.tokens)) {
    return InvalidArgument(
        "{} is too short for {} tokens: with all of it, question and answer a sample has {}; give a longer "
        "text or a shorter length",
        Quoted(haystack.name, 1024), request.tokens, units.counted);
  }
  if (!haystack.fills) return sample_of(units.number, 0);
  PALIMPSEST_ASSIGN_OR_RETURN(
      const Largest filler,
      LargestThatFits(request.tokens, 0, units.counted, request.tokens,
                      [&](int64_t number) { return count(sample_of(units.number, number)); }));
  return sample_of(units.number, filler.number);
}

std::string NoiseSentences(int64_t count) {
  return count == 0 ? std::string()
                    : fmt::format("{}", fmt::join(MakeNoiseHaystack()->Pieces(0, count), " "));
}

int64_t Times(std::string_view part, std::string_view text) {
  int64_t times = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++times;
  return times;
}

}  // namespace palimpsest
