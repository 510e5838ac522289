// Chains of assignments in noise: who has this value, directly or over the others?
//
// Source: RULER's vt with one chain of four hops; question and introduction are worded here. The first
// assignment stands at the depth asked for, the others in order at random places behind it.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int kHops = 4;
constexpr std::string_view kIntroduction =
    "Some variables are set in the following text, to a number or to another variable. Follow them: I will "
    "ask which variables have a value.\n";

struct Chain {
  NiahTurn turn;
  std::vector<Insertion> insertions;
};

class Variables final : public NiahTask {
 public:
  using NiahTask::NiahTask;

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    constexpr int kDrawsMax = 16;
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    const std::unique_ptr<Haystack> noise = MakeNoiseHaystack();
    for (int draw = 0; draw < kDrawsMax; ++draw) {
      std::vector<Chain> chains;
      for (int64_t turn = 0; turn < request.turns; ++turn) {
        chains.push_back(ChainOf(NiahDepth(request, turn), random));
      }
      PALIMPSEST_ASSIGN_OR_RETURN(
          NiahSample sample, LongestSample(request, count, {.name = "noise"}, [&](int64_t units, int64_t) {
            return SampleOf(chains, noise->Pieces(0, units), AnswerTokens(request));
          }));
      if (AllOnce(sample)) return sample;
    }
    return InvalidArgument("{} draws of variables had two of one name or value: fewer --turns have room",
                           kDrawsMax);
  }

 private:
  static Chain ChainOf(double depth, RngSequence& random) {
    constexpr int kLetters = 5;
    const std::string value = RandomDigits(random, 5);
    Chain chain{.turn = {.question = fmt::format("Which variables have the value {} in the text?", value),
                         .answer_prefix = fmt::format(" The variables that have the value {} are:", value),
                         .depth_percent = depth},
                .insertions = {}};
    std::vector<double> depths(kHops + 1, depth);
    for (size_t hop = 1; hop < depths.size(); ++hop) {
      depths[hop] += (100 - depth) * static_cast<double>(random.Below(1000)) / 1000;
    }
    std::sort(depths.begin() + 1, depths.end());
    std::string before = value;
    for (const double at : depths) {
      const std::string name = RandomLetters(random, kLetters, 'A');
      const std::string variable = before == value ? value : "VAR " + before;
      chain.turn.needles.push_back(fmt::format("VAR {} = {}", name, variable));
      chain.turn.references.push_back(name);
      chain.insertions.push_back({chain.turn.needles.back(), at});
      before = name;
    }
    return chain;
  }

  static NiahSample SampleOf(const std::vector<Chain>& chains, const std::vector<std::string>& pieces,
                             int64_t answer_tokens) {
    std::vector<Insertion> insertions;
    for (const Chain& chain : chains) {
      insertions.insert(insertions.end(), chain.insertions.begin(), chain.insertions.end());
    }
    const Woven woven = Weave(pieces, insertions);
    NiahSample sample{.context = fmt::format("{}{}", kIntroduction, fmt::join(woven.pieces, "\n")),
                      .turns = {},
                      .answer_tokens = answer_tokens};
    for (size_t i = 0; i < chains.size(); ++i) {
      sample.turns.push_back(chains[i].turn);
      sample.turns.back().stands_at_percent = woven.stands_at_percent[i * (kHops + 1)];
    }
    return sample;
  }

  static bool AllOnce(const NiahSample& sample) {
    for (const NiahTurn& turn : sample.turns) {
      const std::string_view first = turn.needles[0];
      if (!IsOnce(first.substr(first.find('=')), sample.context)) return false;  // the value
      for (const std::string& needle : turn.needles) {
        if (!IsOnce(needle.substr(0, needle.find('=') + 1), sample.context)) return false;
      }
    }
    return true;
  }
};

}  // namespace

std::unique_ptr<NiahTask> MakeVariables(NiahTaskTraits traits) {
  return std::make_unique<Variables>(std::move(traits));
}

}  // namespace palimpsest
