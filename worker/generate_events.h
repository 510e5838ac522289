// A worker's messages as the engine takes them, and what the engine tells as messages.
#pragma once

#include "absl/status/statusor.h"
#include "proto/worker.pb.h"
#include "worker/engine.h"

namespace palimpsest {

// The engine's request, without its callbacks. InvalidArgument names the field, its value and the range; what
// depends on the model is Engine::Submit's to check.
absl::StatusOr<Request> RequestOf(const proto::GenerateRequest& request);

proto::GenerateEvent TokenEventOf(const AnswerToken& token);
proto::GenerateEvent PrefillEventOf(int64_t done_tokens, int64_t total_tokens, int64_t cached_tokens);
// Of an outcome that is ok.
proto::GenerateEvent DoneEventOf(const Outcome& outcome);

}  // namespace palimpsest
