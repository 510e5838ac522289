#include "apps/niah/task.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/score.h"
#include "apps/niah/stories.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

double All(std::string_view output, const NiahTurn& turn) { return StringMatchAll(output, turn.references); }
double Part(std::string_view output, const NiahTurn& turn) {
  return StringMatchPart(output, turn.references);
}
double Integer(std::string_view output, const NiahTurn& turn) {
  return FirstInteger(output, turn.references[0]);
}
double Word(std::string_view output, const NiahTurn& turn) { return WholeWord(output, turn.references[0]); }
double Place(std::string_view output, const NiahTurn& turn) {
  return OneLabel(output, turn.references[0], turn.question, {kStoryPlaces.begin(), kStoryPlaces.end()});
}
double Objects(std::string_view output, const NiahTurn& turn) { return RecordsF1(output, turn.references); }

// What of a person's a task needs.
enum class Needs { kNothing, kProse, kSquad, kHotpotQa };

struct Row {
  std::string_view name;
  NiahScorer score;
  int64_t answer_tokens;
  Needs needs;
  std::unique_ptr<NiahTask> (*make)(NiahTaskTraits traits,
                                    std::unique_ptr<Haystack> haystack);  // not of questions
  bool depths = true, turns = true;
};

constexpr NeedlesForm::Value kUuid = NeedlesForm::Value::kUuid;

template <NeedlesForm (*form)()>
std::unique_ptr<NiahTask> Needles(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack) {
  return MakeNeedles(std::move(traits), std::move(haystack), form());
}
template <int64_t digits>
std::unique_ptr<NiahTask> Passkey(NiahTaskTraits traits, std::unique_ptr<Haystack>) {
  return MakePasskey(std::move(traits), digits);
}
template <std::unique_ptr<NiahTask> (*make)(NiahTaskTraits)>
std::unique_ptr<NiahTask> Plain(NiahTaskTraits traits, std::unique_ptr<Haystack>) {
  return make(std::move(traits));
}
template <int facts>
std::unique_ptr<NiahTask> Stories(NiahTaskTraits traits, std::unique_ptr<Haystack> haystack) {
  return MakeStories(std::move(traits), std::move(haystack), facts);
}

NeedlesForm Single() { return {}; }
NeedlesForm Facts() { return {.facts = true}; }
NeedlesForm SingleUuid() { return {.value_form = kUuid}; }
NeedlesForm FourKeys() { return {.distractors = 3}; }
NeedlesForm AmongNeedles() { return {.among_needles = true}; }
NeedlesForm AmongUuids() { return {.among_needles = true, .key_form = kUuid, .value_form = kUuid}; }
NeedlesForm FourValues() { return {.values = 4}; }
NeedlesForm FourQueries() { return {.queries = 4}; }

constexpr Needs kNothing = Needs::kNothing, kProse = Needs::kProse;
constexpr int64_t kShort = 32, kNiah = 128;  // tokens of answers
// Help shows them in this order.
constexpr Row kTasks[] = {
    {"single_noise", All, kShort, kNothing, Needles<Single>},
    {"single_prose", All, kShort, kProse, Needles<Single>},
    {"facts_noise", All, kShort, kNothing, Needles<Facts>},
    {"facts_prose", All, kShort, kProse, Needles<Facts>},
    {"niah_single_1", All, kNiah, kNothing, Needles<Single>},
    {"niah_single_2", All, kNiah, kProse, Needles<Single>},
    {"niah_single_3", All, kNiah, kProse, Needles<SingleUuid>},
    {"niah_multikey_1", All, kNiah, kProse, Needles<FourKeys>},
    {"niah_multikey_2", All, kNiah, kNothing, Needles<AmongNeedles>},
    {"niah_multikey_3", All, kNiah, kNothing, Needles<AmongUuids>},
    {"niah_multivalue", All, kNiah, kProse, Needles<FourValues>},
    {"niah_multiquery", All, kNiah, kProse, Needles<FourQueries>},
    {"vt", All, 30, kNothing, Plain<MakeVariables>},
    {"cwe", All, 120, kNothing, Plain<MakeCommonWords>, /*depths=*/false, /*turns=*/false},
    {"fwe", All, 50, kNothing, Plain<MakeFrequentWords>, /*depths=*/false, /*turns=*/false},
    {"qa_1", Part, 32, Needs::kSquad, nullptr},
    {"qa_2", Part, 32, Needs::kHotpotQa, nullptr},
    {"passkey_7", Integer, kShort, kNothing, Passkey<7>, /*depths=*/true, /*turns=*/false},
    {"passkey_64", Integer, 96, kNothing, Passkey<64>, /*depths=*/true, /*turns=*/false},
    {"passkey_uuid", Word, 64, kNothing, Passkey<0>, /*depths=*/true, /*turns=*/false},
    {"kv_retrieval", Word, 64, kNothing, Plain<MakeKeyValues>},
    {"babi_qa1", Place, 20, kProse, Stories<1>},
    {"babi_qa2", Place, 20, kProse, Stories<2>},
    {"babi_qa3", Place, 20, kProse, Stories<3>},
    {"records", Objects, 0, kNothing, Plain<MakeRecords>, /*depths=*/false, /*turns=*/false},
};

absl::StatusOr<const Row*> Find(std::string_view name) {
  const auto* const row =
      std::find_if(std::begin(kTasks), std::end(kTasks), [&](const Row& one) { return one.name == name; });
  if (row != std::end(kTasks)) return row;
  const std::vector<std::string> names = NiahTaskNames();
  return InvalidArgument("task {} is not {}{}", Quoted(name), fmt::join(names, ", "),
                         DidYouMean(name, names));
}

absl::Status Missing(std::string_view name, std::string_view what, std::string_view flag) {
  return InvalidArgument("task {} {}; give one with {} FILE", name, what, flag);
}

}  // namespace

double NiahDepth(const NiahRequest& request, int64_t turn) {
  const double depth =
      request.depth_percent + 100 * static_cast<double>(turn) / static_cast<double>(request.turns);
  // Thirds are the same depth whichever way they were come by.
  return std::round((depth > 100 ? depth - 100 : depth) * 1e6) / 1e6;
}

absl::StatusOr<NiahSample> NiahTask::Generate(const NiahRequest& request,
                                              const CountSampleTokens& count) const {
  if (request.turns > 1 && !traits_.turns) {
    return InvalidArgument("task {} has one question to a text, and --turns {} asks for more", name(),
                           request.turns);
  }
  return Make(request, count);
}

std::vector<std::string> NiahTaskNames() {
  std::vector<std::string> names;
  for (const Row& task : kTasks) names.emplace_back(task.name);
  return names;
}

absl::StatusOr<std::unique_ptr<NiahTask>> MakeNiahTask(std::string_view name,
                                                       const NiahTaskOptions& options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Row* const row, Find(name));
  NiahTaskTraits traits{.name = std::string(row->name),
                        .score = row->score,
                        .answer_tokens = row->answer_tokens,
                        .depths = row->depths,
                        .turns = row->turns};
  switch (row->needs) {
    case Needs::kNothing:
      return row->make(std::move(traits), MakeNoiseHaystack());
    case Needs::kProse: {
      if (options.prose_name.empty()) return Missing(name, "hides its needle in prose", "--haystack");
      PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<Haystack> prose,
                                  MakeProseHaystack(options.prose, options.prose_name));
      return row->make(std::move(traits), std::move(prose));
    }
    case Needs::kSquad:
      if (options.squad_name.empty())
        return Missing(name, "asks questions of a file in SQuAD's format", "--squad");
      return MakeQuestions(std::move(traits), QuestionsFormat::kSquad, options.squad, options.squad_name);
    case Needs::kHotpotQa:
      if (options.hotpot_qa_name.empty()) {
        return Missing(name, "asks questions of a file in HotpotQA's format", "--hotpotqa");
      }
      return MakeQuestions(std::move(traits), QuestionsFormat::kHotpotQa, options.hotpot_qa,
                           options.hotpot_qa_name);
  }
  PALIMPSEST_CHECK(false, "a task needs nothing that is known");
  return nullptr;
}

absl::StatusOr<NiahScorer> NiahScorerOf(std::string_view name) {
  PALIMPSEST_ASSIGN_OR_RETURN(const Row* const row, Find(name));
  return row->score;
}

}  // namespace palimpsest
