// What an engine's work comes to, for an estimate. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "apps/niah/answerer.h"
#include "coordinator/prompt_mode.h"
#include "worker/model/model_config.h"

namespace palimpsest {

struct NiahReads {
  PrefillChoice prefill = PrefillChoice::kAuto;
  int64_t window_tokens = 0;  // of the model
  int64_t span_tokens = 0;    // of anchored prefill
};

// Each time the text is read: how many tokens one of it sees in the mean. Anchored prefill sees no other
// span, a pot holds so many and no more. What a policy wants to know of every token is one more reading, for
// all that want the same.
std::vector<double> DepthsOfReadings(const NiahWork& work, const NiahReads& how);

// Multiply-adds of one token behind `before` others, twice.
double TokenFlops(const ModelConfig& model, double before);

}  // namespace palimpsest
