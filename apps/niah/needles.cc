// Values of keys in a haystack: RULER's niah tasks, and facts of different kinds.
//
// Differences from RULER: the first needle of a question stands at the depth asked for, not at a random one;
// prose is any text, and each seed and length begins at another sentence of it; so do not the depths of one,
// whose needles are others in the same text.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

// What a needle is about; {} stands for its key.
struct Kind {
  std::string_view needle, asked;
};
constexpr Kind kMagicNumber = {"One of the special magic numbers for {} is",
                               "the special magic number for {}"};
constexpr Kind kMagicUuid = {"One of the special magic uuids for {} is", "the special magic uuid for {}"};
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
  std::string key;
  std::vector<std::string> values;
  std::string text(const std::string& value) const {
    return fmt::format("{}: {}.", fmt::format(fmt::runtime(kind.needle), key), value);
  }
  std::string asked() const { return fmt::format(fmt::runtime(kind.asked), key); }
};

std::string Capital(std::string text) {
  text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

// Where the needles stand that no depth was asked for: RULER draws among these, each once.
std::vector<double> RandomDepths(RngSequence& random) {
  constexpr int kDepths = 40;
  std::vector<double> depths(kDepths);
  for (int i = 0; i < kDepths; ++i) depths[static_cast<size_t>(i)] = std::round(100.0 * i / (kDepths - 1));
  Shuffle(depths, random);
  return depths;
}

// What is drawn for a sample. Keys of turn t: [t * queries, (t + 1) * queries) of the needles; behind them
// the distractors.
struct Draw {
  std::vector<Needle> needles;
  std::vector<double> depths;
};

class Needles final : public NiahTask {
 public:
  Needles(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack, const NeedlesForm& form)
      : NiahTask(std::move(traits)), haystack_(std::move(haystack)), form_(form) {}

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override;

 private:
  bool several() const { return form_.queries * form_.values > 1; }
  std::string_view noun() const { return form_.value_form == NeedlesForm::Value::kUuid ? "uuid" : "number"; }
  std::string RandomKeyOf(RngSequence& random) const {
    return form_.key_form == NeedlesForm::Value::kUuid ? RandomUuid(random) : RandomKey(random);
  }
  std::string RandomValueOf(RngSequence& random) const {
    return form_.value_form == NeedlesForm::Value::kUuid ? RandomUuid(random) : RandomNumber(random);
  }
  Kind KindOf(int64_t turn) const {
    if (form_.facts) return kFacts[static_cast<size_t>(turn) % kFacts.size()];
    return form_.value_form == NeedlesForm::Value::kUuid ? kMagicUuid : kMagicNumber;
  }
  // What is asked for comes from `asked`, the distractors and where they stand from `text`. Keys differ while
  // there are others.
  Draw DrawNeedles(const NiahRequest& request, RngSequence& asked, RngSequence& text) const;
  std::vector<std::string> OtherNeedles(const NiahRequest& request, const Draw& draw, int64_t lines) const;
  NiahTurn TurnOf(const Draw& draw, int64_t turn) const;
  std::string Introduction(const NiahRequest& request) const;
  NiahSample SampleOf(const NiahRequest& request, const Draw& draw, uint64_t start, int64_t units,
                      int64_t filler) const;

  const std::unique_ptr<Haystack> haystack_;
  const NeedlesForm form_;
};

Draw Needles::DrawNeedles(const NiahRequest& request, RngSequence& asked, RngSequence& text) const {
  constexpr int kTriesMax = 64;  // for each key: there are 4,096, and a request of more is to end, too
  Draw draw;
  const auto is_drawn = [&](const std::string& key) {
    return std::any_of(draw.needles.begin(), draw.needles.end(),
                       [&](const Needle& needle) { return needle.key == key; });
  };
  const int64_t asked_keys = request.turns * form_.queries;
  for (int64_t i = 0; i < asked_keys + form_.distractors; ++i) {
    RngSequence& random = i < asked_keys ? asked : text;
    Needle needle{.kind = KindOf(i / form_.queries), .key = RandomKeyOf(random), .values = {}};
    for (int tries = 1; tries < kTriesMax && is_drawn(needle.key); ++tries) needle.key = RandomKeyOf(random);
    for (int64_t j = 0; j < form_.values; ++j) needle.values.push_back(RandomValueOf(random));
    draw.needles.push_back(std::move(needle));
  }
  draw.depths = RandomDepths(text);
  return draw;
}

// Line i is the same however many there are.
std::vector<std::string> Needles::OtherNeedles(const NiahRequest& request, const Draw& draw,
                                               int64_t lines) const {
  RngSequence random(Rng(request.seed, NiahTextStream(name() + " others", request)));
  std::vector<std::string> others;
  while (static_cast<int64_t>(others.size()) < lines) {
    const Needle other{.kind = KindOf(0), .key = RandomKeyOf(random), .values = {}};
    const std::string value = RandomValueOf(random);
    const bool asked = std::any_of(draw.needles.begin(), draw.needles.end(), [&](const Needle& needle) {
      return needle.key == other.key || needle.values[0] == value;
    });
    if (!asked) others.push_back(other.text(value));
  }
  return others;
}

NiahTurn Needles::TurnOf(const Draw& draw, int64_t turn) const {
  const auto first = draw.needles.begin() + turn * form_.queries;
  NiahTurn made;
  std::string query;
  for (int64_t i = 0; i < form_.queries; ++i) {
    const Needle& needle = first[i];
    if (i > 0) query += i + 1 == form_.queries ? ", and " : ", ";
    query += needle.key;
    for (const std::string& value : needle.values) {
      made.references.push_back(value);
      made.needles.push_back(needle.text(value));
    }
  }
  if (several()) {
    const std::string what =
        fmt::format("special magic {}s for {} mentioned in the provided text", noun(), query);
    made.question = fmt::format("What are all the {}?", what);
    made.answer_prefix = fmt::format(" The {} are", what);
  } else {
    made.question = fmt::format("What is {} mentioned in the provided text?", first->asked());
    made.answer_prefix = fmt::format(" {} mentioned in the provided text is", Capital(first->asked()));
  }
  return made;
}

std::string Needles::Introduction(const NiahRequest& request) const {
  const bool one = request.turns == 1 && !several();
  const std::string what = fmt::format("{}{}", noun(), one ? "" : "s");
  return fmt::format(
      "{} special magic {} {} hidden within the following text. Make sure to memorize it. I will quiz you "
      "about the {} afterwards.\n",
      one ? "A" : "Some", what, one ? "is" : "are", what);
}

NiahSample Needles::SampleOf(const NiahRequest& request, const Draw& draw, uint64_t start, int64_t units,
                             int64_t filler) const {
  NiahSample sample{.context = Introduction(request), .turns = {}, .answer_tokens = AnswerTokens(request)};
  const std::vector<std::string> pieces =
      form_.among_needles ? OtherNeedles(request, draw, units) : haystack_->Pieces(start, units);
  std::vector<Insertion> insertions;
  std::vector<size_t> firsts;  // among them: that of each turn
  size_t depth = 0;
  const auto random_depth = [&] { return draw.depths[depth++ % draw.depths.size()]; };
  for (int64_t turn = 0; turn < request.turns; ++turn) {
    sample.turns.push_back(TurnOf(draw, turn));
    firsts.push_back(insertions.size());
    for (const std::string& needle : sample.turns.back().needles) {
      const bool first = insertions.size() == firsts.back();
      insertions.push_back({needle, first ? NiahDepth(request, turn) : random_depth()});
    }
  }
  for (size_t i = static_cast<size_t>(request.turns * form_.queries); i < draw.needles.size(); ++i) {
    for (const std::string& value : draw.needles[i].values) {
      insertions.push_back({draw.needles[i].text(value), random_depth()});
    }
  }
  const Woven woven = Weave(pieces, insertions);
  for (size_t turn = 0; turn < sample.turns.size(); ++turn) {
    sample.turns[turn].depth_percent = insertions[firsts[turn]].depth_percent;
    sample.turns[turn].stands_at_percent = woven.stands_at_percent[firsts[turn]];
  }
  sample.context +=
      fmt::format("{}", fmt::join(woven.pieces, form_.among_needles ? "\n" : haystack_->separator()));
  if (filler > 0) sample.context += "\n" + NoiseSentences(filler);
  return sample;
}

absl::StatusOr<NiahSample> Needles::Make(const NiahRequest& request, const CountSampleTokens& count) const {
  constexpr int kDrawsMax = 16;
  RngSequence asked(Rng(request.seed, NiahStream(name(), request)));
  RngSequence text(Rng(request.seed, NiahTextStream(name(), request)));
  const uint64_t start = form_.among_needles ? 0 : text.Below(haystack_->starts());
  const Haystacks haystack{.units = form_.among_needles ? std::nullopt : haystack_->units(),
                           .name = std::string(form_.among_needles ? "needles" : haystack_->name()),
                           .fills = form_.among_needles};
  for (int i = 0; i < kDrawsMax; ++i) {
    const Draw draw = DrawNeedles(request, asked, text);
    const auto sample_of = [&](int64_t units, int64_t filler) {
      return SampleOf(request, draw, start, units, filler);
    };
    PALIMPSEST_ASSIGN_OR_RETURN(NiahSample sample, LongestSample(request, count, haystack, sample_of));
    const auto is_there_once = [&](const Needle& needle) {
      return Times(needle.key, sample.context) == form_.values &&
             std::all_of(needle.values.begin(), needle.values.end(),
                         [&](const std::string& value) { return IsOnce(value, sample.context); });
    };
    if (std::all_of(draw.needles.begin(), draw.needles.end(), is_there_once)) return sample;
  }
  return InvalidArgument(
      "of {} draws of keys and values each had one that is in the text twice: another haystack or fewer "
      "--turns have room",
      kDrawsMax);
}

}  // namespace

std::unique_ptr<NiahTask> MakeNeedles(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack,
                                      const NeedlesForm& form) {
  return std::make_unique<Needles>(std::move(traits), std::move(haystack), form);
}

}  // namespace palimpsest
