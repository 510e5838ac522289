// How dropped tokens come back for a question, as people write it: auto, none, all, or slices:key=value,... -
// as checked data that coordinator and worker read in the same way. Errors as of policy_spec.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace palimpsest {

struct RecallSpec {
  enum class Kind { kNone, kSlices, kAll, kAuto };      // auto: who plans the prompt decides
  enum class Index { kQ2, kExact, kMinMax, kBoxMean };  // what ranks slices; in the order of DigestKind
  Kind kind = Kind::kNone;
  // slices: tokens that come back for each layer and KV head at most; tokens of a slice (8, 16, 32 or 64);
  // each so many tokens of the answer the newest one chooses anew; of the budget, tokens of passages that
  // share rare words with the question, the same in all heads (0: none, half of the budget at most).
  int64_t budget = 1024, slice = 16, refresh = 1, words = 256;
  // A question behind at most so many tokens sees all of them, where they stand at their own positions: they
  // pass through the room of the budget. Behind more, or with 0, its tokens choose as those of the answer do.
  int64_t whole = 8192;
  Index index = Index::kQ2;

  bool on() const { return kind == Kind::kSlices || kind == Kind::kAll; }
  // Tokens that come back of so many that were dropped, at most.
  int64_t BudgetOf(int64_t tokens) const;
  int64_t WordTokens() const { return std::min(words, budget / 2); }
  bool operator==(const RecallSpec&) const = default;
};

absl::StatusOr<RecallSpec> ParseRecall(std::string_view text);
// All parameters, in a fixed order. ParseRecall reads it back.
std::string RecallText(const RecallSpec& recall);

}  // namespace palimpsest
