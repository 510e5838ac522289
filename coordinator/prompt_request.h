// From a request for an answer to what a worker is asked: the plan, what it needs, its parts and its cache
// domain. Pure functions; no state.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/admission.h"
#include "coordinator/answer_request.h"
#include "coordinator/prompt_plan.h"
#include "coordinator/registry.h"
#include "proto/base/config.h"
#include "proto/worker.pb.h"

namespace palimpsest {

// Numbers in their ranges. Whoever made the request has checked more, with the names of its fields.
absl::Status CheckAnswerRequest(const AnswerRequest& request, const Config::Limits& limits);

absl::StatusOr<PromptPlan> PlanPrompt(const PromptPlanner& planner, std::vector<PromptDocument> documents,
                                      const AnswerRequest& request);

struct AnswerLimits {
  int64_t window_tokens = 0;   // of the model; 0: the planner has checked what there is to check
  int64_t default_tokens = 0;  // generate.max_tokens
  int64_t choices = 1;
  bool may_cut = false;  // the answer, to the room that is left
};
// What the request needs in the worst case, for all choices together: of a prompt of which a policy drops
// tokens, the larger of what reading it holds at once and of what stays with the answer. max_tokens 0 asks
// for as much as there is room for; in a pot, which has room without end, for generate.max_tokens. An answer
// that does not fit is refused, unless it may be cut. Errors: InvalidArgument: the window. ResourceExhausted:
// the device memory of the biggest worker, if one is alive.
absl::StatusOr<Admission::Need> FitAnswer(const PromptPlan& plan, int64_t max_tokens,
                                          const AnswerLimits& limits, const Registry& registry);

proto::GenerateRequest GenerateRequestOf(PromptPlan plan, const AnswerRequest& request, int64_t max_tokens,
                                         std::string cache_domain);
// Reads a document and generates nothing.
proto::GenerateRequest IngestRequest(PromptPlan plan, std::string cache_domain);

// 32 random bytes.
absl::StatusOr<std::string> NewSecret();
// 32 bytes that only this process can derive, so that nobody finds blocks of another tenant or salt.
std::string CacheDomain(const std::string& secret, const std::string& tenant, const std::string& salt);

}  // namespace palimpsest
