// Who is where, told in short sentences that are scattered in prose: an answer needs one, two or three of
// them.
//
// Source: BABILong's qa1 to qa3 (bAbI's "single", "two" and "three supporting facts" in book text), as a
// form: people, places, sentences and the wording are ours. The last of the sentences stands at the depth
// asked for.
#include "apps/niah/stories.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/quote.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::array<std::string_view, 16> kPeople = {
    "Agnes",  "Boris",  "Clara",   "Dmitri",  "Elsa",  "Felix",   "Greta", "Hugo",
    "Ingrid", "Jasper", "Kirsten", "Leopold", "Mabel", "Norbert", "Olga",  "Percy"};
constexpr std::array<std::string_view, 12> kThings = {"apple",  "lamp",     "hammer", "newspaper",
                                                      "teacup", "umbrella", "violin", "basket",
                                                      "mirror", "blanket",  "ladder", "bottle"};
constexpr int64_t kOthers = 3;  // people whom no question is about

std::string Goes(std::string_view who, std::string_view place) {
  return fmt::format("{} went to the {}.", who, place);
}

struct Story {
  NiahTurn turn;
  std::vector<Insertion> insertions;  // in the order in which they happen
};

// What is drawn for a sample.
struct Draw {
  std::vector<Story> stories;
  std::vector<Insertion> insertions;  // of the stories, then of the others
};

class Stories final : public NiahTask {
 public:
  Stories(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack, int facts)
      : NiahTask(std::move(traits)), haystack_(std::move(haystack)), facts_(facts) {}

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    constexpr auto kTurnsMax = static_cast<int64_t>(kPeople.size()) - kOthers;
    const int64_t most = facts_ == 1 ? kTurnsMax : std::min(kTurnsMax, static_cast<int64_t>(kThings.size()));
    if (request.turns > most) {
      return InvalidArgument("task {} has {} questions to a text, and --turns {} asks for more", name(), most,
                             request.turns);
    }
    constexpr int kDrawsMax = 16;
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    RngSequence text(Rng(request.seed, NiahTextStream(name(), request)));
    const uint64_t start = text.Below(haystack_->starts());
    const Haystacks haystack{.units = haystack_->units(), .name = std::string(haystack_->name())};
    std::string repeated;
    for (int i = 0; i < kDrawsMax; ++i) {
      const Draw draw = DrawStories(request, random, text);
      PALIMPSEST_ASSIGN_OR_RETURN(NiahSample sample,
                                  LongestSample(request, count, haystack, [&](int64_t units, int64_t) {
                                    return SampleOf(request, draw, start, units);
                                  }));
      const auto found =
          std::find_if(draw.insertions.begin(), draw.insertions.end(),
                       [&](const Insertion& insertion) { return !IsOnce(insertion.text, sample.context); });
      if (found == draw.insertions.end()) return sample;
      repeated = found->text;
    }
    return InvalidArgument(
        "of {} draws of stories each had a sentence that the haystack tells itself, as {}; give another text",
        kDrawsMax, Quoted(repeated));
  }

 private:
  // What is asked for comes from `random`, the people and what others do from `text`.
  Draw DrawStories(const NiahRequest& request, RngSequence& random, RngSequence& text) const {
    const std::vector<uint64_t> people = RandomNumbersBelow(kPeople.size(), kPeople.size(), text);
    const std::vector<uint64_t> things = RandomNumbersBelow(kThings.size(), kThings.size(), random);
    Draw draw;
    for (int64_t i = 0; i < request.turns; ++i) {
      const auto at = static_cast<size_t>(i);
      draw.stories.push_back(
          StoryOf(kPeople[people[at]], kThings[things[at % things.size()]], NiahDepth(request, i), random));
    }
    for (const Story& story : draw.stories) {
      draw.insertions.insert(draw.insertions.end(), story.insertions.begin(), story.insertions.end());
    }
    for (int64_t i = 0; i < kOthers; ++i) {
      AddOther(kPeople[people[static_cast<size_t>(request.turns + i)]], text, &draw.insertions);
    }
    return draw;
  }

  // Depths in [0, depth), ascending.
  static std::vector<double> Before(double depth, size_t count, RngSequence& random) {
    std::vector<double> depths;
    while (depths.size() < count) depths.push_back(depth * static_cast<double>(random.Below(1000)) / 1000);
    std::sort(depths.begin(), depths.end());
    return depths;
  }

  // Someone goes to four places, takes a thing at the second, and is asked for at the last one.
  Story StoryOf(std::string_view who, std::string_view thing, double depth, RngSequence& random) const {
    const std::vector<uint64_t> numbers = RandomNumbersBelow(kStoryPlaces.size(), 4, random);
    std::vector<std::string> sentences;
    sentences.reserve(numbers.size() + 1);
    for (const uint64_t number : numbers) sentences.push_back(Goes(who, kStoryPlaces[number]));
    if (facts_ > 1) sentences.insert(sentences.begin() + 2, fmt::format("{} took the {}.", who, thing));
    std::vector<double> depths = Before(depth, sentences.size() - 1, random);
    depths.push_back(depth);
    Story story;
    for (size_t i = 0; i < sentences.size(); ++i) story.insertions.push_back({sentences[i], depths[i]});
    story.turn.depth_percent = depth;
    const std::string_view last = kStoryPlaces[numbers[3]], previous = kStoryPlaces[numbers[2]];
    if (facts_ == 1) {
      story.turn.question = fmt::format("Where is {}?", who);
      story.turn.needles = {sentences.back()};
    } else if (facts_ == 2) {
      story.turn.question = fmt::format("Where is the {}?", thing);
      story.turn.needles = {sentences.back(), sentences[2]};
    } else {
      story.turn.question = fmt::format("Where was the {} before the {}?", thing, last);
      story.turn.needles = {sentences.back(), sentences[2], sentences[3]};
    }
    story.turn.references = {std::string(facts_ == 3 ? previous : last)};
    story.turn.question += " Answer with the place alone.";
    return story;
  }

  static void AddOther(std::string_view who, RngSequence& random, std::vector<Insertion>* insertions) {
    const std::vector<double> depths = Before(100, 2, random);
    const std::vector<uint64_t> places = RandomNumbersBelow(kStoryPlaces.size(), 2, random);
    for (size_t i = 0; i < 2; ++i) insertions->push_back({Goes(who, kStoryPlaces[places[i]]), depths[i]});
  }

  NiahSample SampleOf(const NiahRequest& request, const Draw& draw, uint64_t start, int64_t units) const {
    const Woven woven = Weave(haystack_->Pieces(start, units), draw.insertions);
    NiahSample sample{.context = fmt::format(
                          "Sentences about where people are stand in the following text, in the order in "
                          "which it happened. I will ask for places; the rest does not matter.\n{}",
                          fmt::join(woven.pieces, haystack_->separator())),
                      .turns = {},
                      .answer_tokens = AnswerTokens(request)};
    size_t insertion = 0;
    for (const Story& story : draw.stories) {
      sample.turns.push_back(story.turn);
      insertion += story.insertions.size();
      sample.turns.back().stands_at_percent = woven.stands_at_percent[insertion - 1];
    }
    return sample;
  }

  const std::unique_ptr<Haystack> haystack_;
  const int facts_;
};

}  // namespace

std::unique_ptr<NiahTask> MakeStories(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack, int facts) {
  return std::make_unique<Stories>(std::move(traits), std::move(haystack), facts);
}

}  // namespace palimpsest
