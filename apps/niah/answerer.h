// Who answers the questions of samples: the engine of this process, a server of ours, or an endpoint.
//
// Errors : of a request; what an answerer itself cannot do (an endpoint that is down) is Unavailable.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/client.h"
#include "apps/model.h"
#include "apps/niah/prompt.h"
#include "apps/niah/task.h"
#include "apps/niah/trial.h"
#include "proto/base/cancel.h"

namespace palimpsest {

// What a run has to do with a text, for an estimate.
struct NiahWork {
  int64_t tokens = 0;         // of a prompt
  int64_t answer_tokens = 0;  // of an answer, at most
  bool reads_first = false;   // before anything is asked
  int64_t turns = 0;          // questions under each policy
  std::vector<const NiahPolicy*> policies;
  int64_t answers() const { return turns * static_cast<int64_t>(policies.size()); }
};

// What reading a text took; all 0: it is not told.
struct NiahReading {
  int64_t tokens = 0, computed_tokens = 0;  // the others were found: another text begins so
  int64_t peak_bytes = 0;                   // on the device
};

class NiahAnswerer {
 public:
  virtual ~NiahAnswerer() = default;
  virtual std::string name() const = 0;      // of the model, for people
  virtual std::string numerics() const = 0;  // how it computes; empty: not known
  // What the policy is called that keeps everything.
  virtual std::string_view full_name() const { return "full"; }
  // Tokens of the whole conversation when each answer is as long as it may be.
  virtual absl::StatusOr<int64_t> CountTokens(const NiahSample& sample) = 0;
  // Whether a question of the sample can be asked under the policy. IsOverWindow if it has no room.
  virtual absl::Status Check(const NiahSample& sample, const NiahPolicy& policy, bool visible) = 0;
  // Tokens of the longest sample that can be asked under the policy; nullopt: it is not known before one is.
  virtual std::optional<int64_t> LongestFor(const NiahPolicy&) const { return std::nullopt; }
  // Whether the policy finds what Read left.
  virtual bool FindsBlocks(const NiahPolicy& policy) const = 0;
  // Reads the context, once for all that is asked of it.
  virtual absl::StatusOr<NiahReading> Read(const NiahSample& sample) = 0;
  // Whether a question about a text of so many tokens finds, under `policy`, something that one under
  // `earlier` left besides what Read left; `alike`: both are hidden, or both visible.
  virtual bool FindsOf(const NiahPolicy& /*earlier*/, const NiahPolicy& /*policy*/, int64_t /*tokens*/,
                       bool /*alike*/) const {
    return false;
  }
  // Asks the question of the turn behind `answers`. The trial has the answer and what it cost.
  virtual absl::StatusOr<NiahTrial> Ask(const NiahSample& sample, std::span<const std::string> answers,
                                        const NiahPolicy& policy, bool visible) = 0;
  // Whether a request that failed is a hole in the table, and not the end of the run.
  virtual bool fails_alone() const = 0;
  // Seconds that the work takes, roughly; nullopt: nothing is known before the first answers.
  virtual absl::StatusOr<std::optional<double>> Estimate(std::span<const NiahWork> work) = 0;
};

// The engine of `model`, which is loaded by the first request. `ssd_folder`: of its SSD tier; empty: it has
// none. `model` and `cancel` outlive it.
absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeEngineAnswerer(Model& model, PrefillChoice prefill,
                                                                 const std::string& ssd_folder,
                                                                 const CancelToken* cancel);

// A running `palimpsest serve`, over the API that everyone has: a text is a document there for as long as it
// is asked about. `model` plans and counts, and must be the server's. Nobody tells which tokens an answer
// saw, so there is no oracle. Unavailable if nothing answers there.
absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeServerAnswerer(Model& model, PrefillChoice prefill,
                                                                 const Config& config,
                                                                 const ClientOptions& options);

struct NiahEndpoint {
  std::string url;      // http://HOST:PORT, of /v1/chat/completions
  std::string model;    // as the endpoint calls it; empty: the first that it lists
  std::string api_key;  // sent as a bearer token; empty: none
};
// An OpenAI-compatible server, greedy, the context in front of the question. `model` counts the tokens and is
// not run. Unavailable if nothing answers there.
absl::StatusOr<std::unique_ptr<NiahAnswerer>> MakeEndpointAnswerer(Model& model, const NiahEndpoint& endpoint,
                                                                   const CancelToken* cancel);

}  // namespace palimpsest
