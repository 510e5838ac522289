// From a sample to what a worker is asked, on the same road as a question of `palimpsest ask`. Nothing is
// stored in a catalog.
//
// Errors : the planner's.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/niah/task.h"
#include "coordinator/prompt_plan.h"
#include "proto/base/policy_spec.h"
#include "proto/worker.pb.h"
#include "text/tokenizer.h"

namespace palimpsest {

// A policy of a run.
struct NiahPolicy {
  std::string text;  // as the person wrote it: a cell's name
  PolicySpec spec;
  std::string catalyst;  // text, where the policy's catalyst is a file's
  RecallSpec recall;
  bool oracle =
      false;  // recall brings the needle and others by chance: what the model makes of a perfect choice
  std::string RecallName() const { return RecallText(recall) + (oracle ? ",oracle" : ""); }
  std::string Named(bool question_visible) const {
    return text + " " + RecallName() + (question_visible ? " visible" : " hidden");
  }
  bool full() const { return spec == PolicySpec(); }  // exactly, too: what the others are measured against
};

// The turns so far, and the next question.
std::vector<ChatMessage> NiahMessages(const NiahSample& sample, std::span<const std::string> answers);

class NiahPrompter {
 public:
  // `sampling`: of each answer, whose limit is the sample's.
  NiahPrompter(PromptPlanner planner, std::shared_ptr<const Tokenizer> tokenizer, PrefillChoice prefill,
               const proto::Sampling& sampling);

  // Tokens of the whole conversation when each answer is as long as it may be.
  absl::StatusOr<int64_t> CountTokens(const NiahSample& sample);
  absl::StatusOr<int64_t> CountContextTokens(const NiahSample& sample) const;
  // Whether the policy reads a context block by block, so that what Read left is found.
  bool FindsBlocks(const NiahPolicy& policy) const;
  // Tokens of the longest sample that the policy reads as one text; nullopt: it reads longer ones too.
  std::optional<int64_t> LongestFor(const NiahPolicy& policy) const;
  // Read the sample's context: what follows finds it. As one text where it fits, for full; span by span, too,
  // if the others are asked for so.
  absl::StatusOr<std::vector<proto::GenerateRequest>> Read(const NiahSample& sample) const;
  // How the question of turn `turn` (from 0) is read and answered: full reads the context as one text,
  // whatever prefill was asked for; the answer goes on behind its prefix.
  PromptOptions OptionsOf(const NiahSample& sample, size_t turn, const NiahPolicy& policy,
                          bool question_visible) const;
  // Asks the question of the turn behind `answers` (those of the turns before, without their prefixes).
  absl::StatusOr<proto::GenerateRequest> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                             const NiahPolicy& policy, bool question_visible) const;

  // Tokens of the context, by number and ascending, that hold a part of a needle of turn `turn` (from 0).
  absl::StatusOr<std::vector<int32_t>> NeedleTokens(const NiahSample& sample, size_t turn) const;

 private:
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text) const;

  const PromptPlanner planner_;
  const std::shared_ptr<const Tokenizer> tokenizer_;  // shared with planner and engine
  const PrefillChoice prefill_;
  const proto::Sampling sampling_;
  // What CountTokens found last, since a search for a length asks often: all but the context.
  std::string counted_questions_;
  int64_t counted_tokens_ = 0;
};

}  // namespace palimpsest
