// One JSON object of UUIDs, and a key whose value is asked for: nothing in the text means more than the rest.
#include <fmt/format.h>

#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

class KeyValues final : public NiahTask {
 public:
  using NiahTask::NiahTask;

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    RngSequence asked(Rng(request.seed, NiahStream(name(), request)));
    std::vector<NiahTurn> turns;
    std::vector<Insertion> insertions;
    for (int64_t i = 0; i < request.turns; ++i) {
      const std::string key = RandomUuid(asked), value = RandomUuid(asked);
      turns.push_back({.question = fmt::format("Key: \"{}\"", key),
                       .answer_prefix = " The value associated with the specified key is:",
                       .references = {value},
                       .needles = {Pair(key, value)},
                       .depth_percent = NiahDepth(request, i)});
      insertions.push_back({turns.back().needles[0], turns.back().depth_percent});
    }
    return LongestSample(
        request, count, {.name = "pairs", .fills = true},
        [&](int64_t units, int64_t filler) { return SampleOf(request, turns, insertions, units, filler); });
  }

 private:
  static std::string Pair(const std::string& key, const std::string& value) {
    return fmt::format("\"{}\": \"{}\"", key, value);
  }

  NiahSample SampleOf(const NiahRequest& request, std::vector<NiahTurn> turns,
                      const std::vector<Insertion>& insertions, int64_t units, int64_t filler) const {
    RngSequence random(Rng(request.seed, NiahTextStream(name() + " others", request)));
    std::vector<std::string> pairs;
    for (int64_t i = 0; i < units; ++i) {
      std::string key = RandomUuid(random);
      pairs.push_back(Pair(key, RandomUuid(random)));
    }
    const Woven woven = Weave(pairs, insertions);
    for (size_t i = 0; i < turns.size(); ++i) turns[i].stands_at_percent = woven.stands_at_percent[i];
    const std::string note = filler == 0 ? "" : fmt::format(", \"note\": \"{}\"", NoiseSentences(filler));
    return NiahSample{
        .context = fmt::format("The object below has a value for each key. I will ask for values of "
                               "keys.\n\nJSON data:\n{{{}{}}}",
                               fmt::join(woven.pieces, ", "), note),
        .turns = std::move(turns),
        .answer_tokens = AnswerTokens(request)};
  }
};

}  // namespace

std::unique_ptr<NiahTask> MakeKeyValues(NiahTaskTraits traits) {
  return std::make_unique<KeyValues>(std::move(traits));
}

}  // namespace palimpsest
