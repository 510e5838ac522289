// A pass key in noise, of as many digits each time: where they vary, the length of the answer gives some
// away.
#include <fmt/format.h>

#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr std::string_view kIntroduction =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will "
    "quiz "
    "you about the important information there.\n";

class Passkey final : public NiahTask {
 public:
  Passkey(NiahTaskTraits traits, int64_t digits) : NiahTask(std::move(traits)), digits_(digits) {}

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    const std::string key = digits_ > 0 ? RandomDigits(random, digits_) : RandomUuid(random);
    const std::unique_ptr<Haystack> noise = MakeNoiseHaystack();
    return LongestSample(request, count, {.name = "noise"}, [&](int64_t units, int64_t) {
      NiahTurn turn{
          .question = "What is the pass key?",
          .answer_prefix = " The pass key is",
          .references = {key},
          .needles = {fmt::format("The pass key is {}. Remember it. {} is the pass key.", key, key)},
          .depth_percent = NiahDepth(request, 0)};
      const Woven woven = Weave(noise->Pieces(0, units), {{turn.needles[0], turn.depth_percent}});
      turn.stands_at_percent = woven.stands_at_percent[0];
      return NiahSample{.context = fmt::format("{}{}", kIntroduction, fmt::join(woven.pieces, "\n")),
                        .turns = {std::move(turn)},
                        .answer_tokens = AnswerTokens(request)};
    });
  }

 private:
  const int64_t digits_;  // 0: a UUID
};

}  // namespace

std::unique_ptr<NiahTask> MakePasskey(NiahTaskTraits traits, int64_t digits) {
  return std::make_unique<Passkey>(std::move(traits), digits);
}

}  // namespace palimpsest
