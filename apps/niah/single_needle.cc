#include "apps/niah/single_needle.h"

#include <cmath>
#include <functional>
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

struct Needle {
  std::string key, value;
  std::string text() const {
    return fmt::format("One of the special magic numbers for {} is: {}.", key, value);
  }
};

// Cells share nothing: a needle or a text that is hard counts once.
uint64_t StreamOf(std::string_view task, const NiahRequest& request) {
  const std::string cell =
      fmt::format("niah {} {} {}", task, request.tokens, std::llround(request.depth_percent * 1000));
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

// `units` units of the haystack around the needle.
NiahSample SampleOf(const Haystack& haystack, uint64_t start, int64_t units, const Needle& needle,
                    double depth_percent) {
  std::vector<std::string> pieces = haystack.Pieces(start, units);
  const Place place = PlaceOf(pieces, depth_percent);
  pieces.insert(pieces.begin() + static_cast<std::ptrdiff_t>(place.index), needle.text());
  return {.context = fmt::format("{}{}", kIntroduction, fmt::join(pieces, haystack.separator())),
          .question = fmt::format("What is the special magic number for {} mentioned in the provided text?",
                                  needle.key),
          .answer_prefix =
              fmt::format(" The special magic number for {} mentioned in the provided text is", needle.key),
          .references = {needle.value},
          .depth_percent = place.percent};
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

SingleNeedle::SingleNeedle(std::string_view name, std::unique_ptr<Haystack> haystack)
    : name_(name), haystack_(std::move(haystack)) {}

absl::StatusOr<NiahSample> SingleNeedle::Generate(const NiahRequest& request,
                                                  const CountSampleTokens& count) const {
  constexpr int kDrawsMax = 16;
  RngSequence random(Rng(request.seed, StreamOf(name_, request)));
  const uint64_t start = random.Below(haystack_->starts());
  for (int draw = 0; draw < kDrawsMax; ++draw) {
    const Needle needle{.key = RandomKey(random), .value = RandomNumber(random)};
    const auto sample_of = [&](int64_t units) {
      return SampleOf(*haystack_, start, units, needle, request.depth_percent);
    };
    PALIMPSEST_ASSIGN_OR_RETURN(NiahSample sample, Longest(request.tokens, count, sample_of));
    if (IsOnce(needle.key, sample.context) && IsOnce(needle.value, sample.context)) return sample;
  }
  return InvalidArgument("{} keys and numbers were drawn, and the haystack has each of them already",
                         kDrawsMax);
}

double SingleNeedle::Score(std::string_view output, const std::vector<std::string>& references) const {
  return StringMatchAll(output, references);
}

}  // namespace palimpsest
