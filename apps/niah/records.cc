// Every order that is told of in the text, as JSON: an answer that needs all of a context, not one place in
// it.
//
// Source: the finding that recall which passes needle tests loses on extraction from the whole text
// (Text2JSON, arXiv 2604.08426); the form is ours.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "apps/niah/families.h"
#include "apps/niah/fit.h"
#include "apps/niah/words.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kTokensPerRecord = 256, kRecordsMin = 4, kRecordsMax = 64;
constexpr int64_t kAnswerTokensPerRecord = 56, kAnswerTokens = 24;

class Records final : public NiahTask {
 public:
  using NiahTask::NiahTask;

 protected:
  absl::StatusOr<NiahSample> Make(const NiahRequest& request, const CountSampleTokens& count) const override {
    RngSequence random(Rng(request.seed, NiahStream(name(), request)));
    const int64_t records = std::clamp(request.tokens / kTokensPerRecord, kRecordsMin, kRecordsMax);
    const std::vector<uint64_t> orders = RandomNumbersBelow(9000, static_cast<uint64_t>(records), random);
    NiahTurn turn;
    turn.question =
        "List every order of the text, in the order of the text, as a JSON array of objects with the keys "
        "\"order\", \"item\", \"count\" and \"price\", and nothing else.";
    std::vector<Insertion> insertions;
    for (int64_t i = 0; i < records; ++i) {
      const uint64_t order = 1000 + orders[static_cast<size_t>(i)], number = 2 + random.Below(98),
                     price = 100 + random.Below(900);
      std::string item = RandomKey(random);
      turn.references.push_back(boost::json::serialize(
          boost::json::object{{"order", order}, {"item", item}, {"count", number}, {"price", price}}));
      turn.needles.push_back(
          fmt::format("Order {}: {} pieces of {} for {} dollars.", order, number, item, price));
      // In the middle of an equal share each: none is near an end by chance.
      insertions.push_back(
          {turn.needles.back(), 100 * (static_cast<double>(i) + 0.5) / static_cast<double>(records)});
    }
    const int64_t answer =
        request.answer_tokens > 0 ? request.answer_tokens : kAnswerTokens + records * kAnswerTokensPerRecord;
    const std::unique_ptr<Haystack> noise = MakeNoiseHaystack();
    return LongestSample(request, count, {.name = "noise"}, [&](int64_t units, int64_t) {
      const Woven woven = Weave(noise->Pieces(0, units), insertions);
      return NiahSample{
          .context = fmt::format("Orders are told of in the following text. I will ask for all of "
                                 "them.\n{}",
                                 fmt::join(woven.pieces, "\n")),
          .turns = {turn},
          .answer_tokens = answer};
    });
  }
};

}  // namespace

std::unique_ptr<NiahTask> MakeRecords(NiahTaskTraits traits) {
  return std::make_unique<Records>(std::move(traits));
}

}  // namespace palimpsest
