#include "proto/base/recall_spec.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "proto/base/policy_form.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"
#include "proto/base/suggest.h"

namespace palimpsest {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 30;

// In the order of Kind.
std::span<const NamedForm> Recalls() {
  static const auto* const forms =
      new std::vector<NamedForm>{{"none", {}},
                                 {"slices", {"budget", "slice", "refresh", "words", "whole", "index"}},
                                 {"all", {}},
                                 {"auto", {}}};
  return *forms;
}

// In the order of Index.
const std::vector<std::string>& Indices() {
  static const auto* const names = new std::vector<std::string>{"q2", "exact", "minmax", "boxmean"};
  return *names;
}

absl::Status IsNot(const FormParameter& parameter, std::string_view allowed) {
  return InvalidArgument("recall slices: {}={} is not {}", parameter.key, Quoted(parameter.value), allowed);
}

absl::Status ReadTokens(const FormParameter& parameter, int64_t* number, int64_t least = 1) {
  const auto read = ParseCount(parameter.value);
  if (!read.ok() || *read < least || *read > kTokensMax) {
    return IsNot(parameter, fmt::format("a number of tokens from {} to {}", least, kTokensMax));
  }
  *number = *read;
  return absl::OkStatus();
}

absl::Status ReadParameter(const FormParameter& parameter, RecallSpec* recall) {
  if (parameter.key == "budget") return ReadTokens(parameter, &recall->budget);
  if (parameter.key == "refresh") return ReadTokens(parameter, &recall->refresh);
  if (parameter.key == "words") return ReadTokens(parameter, &recall->words, 0);
  if (parameter.key == "whole") return ReadTokens(parameter, &recall->whole, 0);
  if (parameter.key == "slice") {
    const bool number = ReadTokens(parameter, &recall->slice).ok();
    constexpr std::array<int64_t, 4> kSlices = {8, 16, 32, 64};
    const bool known = std::find(kSlices.begin(), kSlices.end(), recall->slice) != kSlices.end();
    return number && known ? absl::OkStatus() : IsNot(parameter, "8, 16, 32 or 64");
  }
  const auto index = std::find(Indices().begin(), Indices().end(), parameter.value);
  if (index == Indices().end()) {
    return IsNot(parameter, ListOf(Indices(), "or") + DidYouMean(parameter.value, Indices()));
  }
  recall->index = static_cast<RecallSpec::Index>(index - Indices().begin());
  return absl::OkStatus();
}

}  // namespace

int64_t RecallSpec::BudgetOf(int64_t tokens) const {
  switch (kind) {
    case Kind::kNone:
    case Kind::kAuto:
      return 0;
    case Kind::kSlices:
      return std::min(budget, tokens);
    case Kind::kAll:
      return tokens;
  }
  return 0;
}

absl::StatusOr<RecallSpec> ParseRecall(std::string_view text) {
  PALIMPSEST_ASSIGN_OR_RETURN(const FormText form, ReadForm("recall", Recalls(), text));
  RecallSpec recall;
  recall.kind = static_cast<RecallSpec::Kind>(form.form - Recalls().data());
  for (const FormParameter& parameter : form.parameters) {
    PALIMPSEST_RETURN_IF_ERROR(ReadParameter(parameter, &recall));
  }
  if (recall.kind == RecallSpec::Kind::kSlices && recall.budget < recall.slice) {
    return InvalidArgument("recall slices: budget={} is less than one slice={}: budget of {} to {}",
                           recall.budget, recall.slice, recall.slice, kTokensMax);
  }
  return recall;
}

std::string RecallText(const RecallSpec& recall) {
  const std::string& name = Recalls()[static_cast<size_t>(recall.kind)].name;
  if (recall.kind != RecallSpec::Kind::kSlices) return name;
  return fmt::format("{}:budget={},slice={},refresh={},words={},whole={},index={}", name, recall.budget,
                     recall.slice, recall.refresh, recall.words, recall.whole,
                     Indices()[static_cast<size_t>(recall.index)]);
}

}  // namespace palimpsest
