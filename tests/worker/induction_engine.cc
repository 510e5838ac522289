#include "tests/worker/induction_engine.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest::testing {

using namespace induction;  // NOLINT: this file is about nothing else

TinyEngineOptions InductionEngine() {
  TinyEngineOptions options;
  options.tokenizer = false;
  options.arena_groups = 1024;
  options.host_bytes = int64_t{1} << 28;
  options.view_bytes = options.index_bytes = int64_t{1} << 26;
  options.digests = true;
  return options;
}

Request InductionRequest(const std::vector<int32_t>& document, const std::vector<int64_t>& ends,
                         std::vector<int32_t> question, const InductionWay& way) {
  Request request;
  request.segments.push_back({.tokens = {kBos}, .shared = true, .role = Segment::Role::kPrefix});
  int64_t begin = 0;
  for (const int64_t end : ends) {
    request.segments.push_back(
        {.tokens = {document.begin() + begin, document.begin() + end}, .shared = true});
    begin = end;
  }
  request.segments.push_back({.tokens = std::move(question), .role = Segment::Role::kQuestion});
  request.prefill = way.mode;
  const auto policy = ParsePolicy(way.policy);
  PALIMPSEST_CHECK(policy.ok(), "{}", Message(policy.status()));
  request.policy = *policy;
  const auto recall = ParseRecall(way.recall);
  PALIMPSEST_CHECK(recall.ok(), "{}", Message(recall.status()));
  request.recall = *recall;
  request.question_visible = way.visible;
  if (way.mode == PrefillMode::kPot) request.catalyst = Document(8, {}, 77);
  request.trace = true;
  request.ignore_end = true;  // UNKNOWN or not, it is 8 tokens
  request.sampling.set_max_tokens(kSlots);
  request.sampling.set_temperature(0);
  request.sampling.set_top_p(1);
  request.sampling.set_repetition_penalty(1);
  return request;
}

InductionReader::InductionReader(std::vector<int32_t> document, const TinyEngineOptions& options,
                                 const InductionModelOptions& model)
    : document_(std::move(document)),
      ends_({tokens()}),
      engine_(MakeTinyEngine(InductionModel(model), options)) {}

std::vector<int32_t> InductionReader::Ask(int32_t key, const InductionWay& way) {
  return Ask(Question(key, 1), way);
}

std::vector<int32_t> InductionReader::Ask(std::vector<int32_t> question, const InductionWay& way) {
  outcome_ = RunOk(*engine_, InductionRequest(document_, ends_, std::move(question), way));
  return outcome_.tokens;
}

std::vector<std::vector<std::vector<int32_t>>> InductionReader::Kept() const {
  auto kept = outcome_.kept;
  PALIMPSEST_CHECK(kept.size() == 2, "nothing was dropped");
  int32_t last = 0;  // that was there when something was dropped
  for (const auto& layer : kept) {
    for (const auto& head : layer) last = std::max(last, head.back());
  }
  for (auto& layer : kept) {
    for (auto& head : layer) {
      if (!outcome_.cycles.empty()) {
        for (int32_t token = last + 1; token <= tokens(); ++token) head.push_back(token);
      }
      for (int32_t& token : head) --token;  // BOS is the first of the prompt
    }
  }
  return kept;
}

}  // namespace palimpsest::testing
