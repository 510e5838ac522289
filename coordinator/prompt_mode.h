// How a prompt is read and what of it may stay on the device: the decision, from what was asked for and from
// sizes alone (design.md 6, "Shape of a prompt").
//
// auto prefill: exact for one text that fits the model's window, anchored for several documents or a longer
//          one, a pot for a longer prompt without documents. infinipot and the pot imply each other.
// auto policy: full where all fits the window, else snapkv, or infinipot in a pot.
// auto recall: slices with the defaults, in anchored prefill with a budget of 512, for a question about
//          documents of which something is dropped, if what comes back has the room; else none.
// Errors : InvalidArgument: two wishes that exclude each other; what does not fit, with both numbers and what
//          would (IsOverWindow).
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/base/policy_spec.h"
#include "proto/base/recall_spec.h"
#include "proto/worker.pb.h"

namespace palimpsest {

enum class PrefillChoice { kAuto, kExact, kAnchored, kPot };

// auto exact anchored pot; InvalidArgument for anything else.
absl::StatusOr<PrefillChoice> ParsePrefill(std::string_view name);
std::string_view PrefillName(PrefillChoice choice);
std::string_view PrefillName(proto::Prefill mode);

// hidden: false, visible: true; InvalidArgument for anything else.
absl::StatusOr<bool> ParseQuestionVisible(std::string_view name);

// How a prompt is to be read and what of it may stay.
struct PromptOptions {
  PrefillChoice prefill = PrefillChoice::kAuto;
  PolicySpec policy{.kind = PolicySpec::Kind::kAuto};
  RecallSpec recall{.kind = RecallSpec::Kind::kAuto};
  bool question_visible = false;
  std::string catalyst;       // text, for infinipot with catalyst=@FILE
  std::string answer_prefix;  // of a chat's answer: its first words, behind which it goes on
};

// Whether a request was refused because its prompt is longer than the model's window.
bool IsOverWindow(const absl::Status& status);
absl::Status MarkOverWindow(absl::Status status);

// Tokens of the parts of a prompt.
struct PromptSizes {
  int64_t documents = 0;  // how many
  int64_t prefix = 0;
  int64_t context = 0;   // the documents; without any, the conversation
  int64_t question = 0;  // the conversation behind documents, else 0
  int64_t total() const { return prefix + context + question; }
};

struct PromptMode {
  proto::Prefill prefill = proto::EXACT;
  PolicySpec policy;   // not auto
  std::string reason;  // for people

  // Tokens that the policy chooses from, the prefix with them, and that stay of them at most per layer and KV
  // head while the answer is generated.
  int64_t candidates = 0, kept = 0;
  // Of what is dropped: how it comes back, and how many tokens at most. None where nothing is dropped; not
  // auto.
  RecallSpec recall;
  int64_t recalled = 0;
};

// What a model takes.
struct PromptModel {
  std::string name;  // for errors
  int64_t window_tokens = 0;
  int64_t span_tokens = 0;  // that were asked for
};

// Of anchored prefill, at most: leaves half of the window to the question and what else stays. Depends on
// nothing that a question says, so that all of them find the same spans.
int64_t SpanTokens(const PromptModel& model, int64_t prefix);

absl::StatusOr<PromptMode> DecidePromptMode(const PromptOptions& options, const PromptSizes& sizes,
                                            const PromptModel& model);
// What can be said once the spans and the catalyst are there: does what stays fit the window, and does the
// policy fit what it is given?
struct PromptParts {
  int64_t longest_span = 0;  // of anchored prefill
  int64_t catalyst = 0;
  bool question_visible = false;
};
absl::Status CheckPromptMode(const PromptMode& mode, const PromptSizes& sizes, const PromptParts& parts,
                             const PromptModel& model);

}  // namespace palimpsest
