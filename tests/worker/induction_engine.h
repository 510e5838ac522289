// An engine over the induction model: questions about documents with needles, and what it says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/testing/induction_text.h"
#include "tests/worker/tiny_engine.h"

namespace palimpsest::testing {

// How a question is asked.
struct InductionWay {
  PrefillMode mode = PrefillMode::kExact;
  std::string policy = "full", recall = "none";
  bool visible = false;
};

// BOS | the document, as spans that end at `ends` (its length last) | the question.
Request InductionRequest(const std::vector<int32_t>& document, const std::vector<int64_t>& ends,
                         std::vector<int32_t> question, const InductionWay& way);

// A document with its needles, asked by one engine; what was read is found again.
class InductionReader {
 public:
  InductionReader(std::vector<int32_t> document, const TinyEngineOptions& options = {},
                  const InductionModelOptions& model = {});

  // The 8 tokens that follow a question for this key.
  std::vector<int32_t> Ask(int32_t key, const InductionWay& way);
  std::vector<int32_t> Ask(std::vector<int32_t> question, const InductionWay& way);
  // Of the last question.
  const Outcome& outcome() const { return outcome_; }
  // By layer, KV head: tokens of the document (numbered as in it: BOS is -1) that stayed for the last
  // question, and, of a pot, those that were read after the last of it went.
  std::vector<std::vector<std::vector<int32_t>>> Kept() const;

  void CutInto(std::vector<int64_t> ends) { ends_ = std::move(ends); }  // of anchored prefill
  const std::vector<int32_t>& document() const { return document_; }
  int64_t tokens() const { return static_cast<int64_t>(document_.size()); }
  Engine& engine() { return *engine_; }

 private:
  const std::vector<int32_t> document_;
  std::vector<int64_t> ends_;
  std::unique_ptr<Engine> engine_;
  Outcome outcome_;
};

// With host memory for everything, and digests made while reading.
TinyEngineOptions InductionEngine();

}  // namespace palimpsest::testing
