// The engine of one rank: prompts in, tokens out. Requests run together, step by step: each step mixes the
// decode rows of all sessions with chunks of prompts.
//
// Prompt : segments (prefix | documents | question), each tokenized on its own and starting a block of its
// own. Blocks of
//          shared segments are sealed, named by content, and found again by later requests: they are not
//          prefilled twice.
// Memory : a request is admitted when the device arena holds its worst case (prompt and all it may generate)
// beside the
//          worst cases of those that run; others wait. So a running request never lacks room.
// Errors : Submit: InvalidArgument (too long for the window, both numbers; bad token id; bad sampling),
// ResourceExhausted (can
//          never fit the arena). A request's own outcome: Cancelled.
// Threads: one at a time; math runs on the backend's pool.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"
#include "proto/types.pb.h"
#include "storage/block_id.h"
#include "storage/tiered_store.h"
#include "text/gguf.h"
#include "text/tokenizer.h"
#include "worker/model/model_config.h"
#include "worker/model/sampler.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"
#include "worker/sequence.h"

namespace palimpsest {

// A part of the prompt.
struct Segment {
  std::vector<int32_t> tokens;
  bool shared = false;  // prefix or document: blocks are sealed and found again
  bool known = false;   // was ingested before: what must be prefilled all the same counts as recomputed
};

struct Request {
  std::vector<Segment> segments;
  proto::Sampling sampling;  // max_tokens 0: only prefill (ingest)
  int64_t top = 0;           // best tokens to report at the prompt's end
  bool ignore_end = false;   // generate past end tokens (measurements)
  std::function<void(std::string_view text, int32_t token)> on_text;  // each token with the text it completed
  std::function<void(int64_t done_tokens, int64_t total_tokens)> on_prefill;  // after each chunk
  const CancelToken* cancel = &CancelToken::Never();
};

struct Outcome {
  absl::Status status;  // of the request; the rest holds what was reached
  std::string text;
  std::vector<int32_t> tokens;  // generated, with the end token if one came
  std::string finish_reason;    // stop | length
  std::vector<TopToken> top;
  int64_t blocks = 0;  // block groups of shared segments
  proto::Usage usage;
  proto::Receipt receipt;
};

struct EngineOptions {
  BackendOptions backend;
  WeightFormat weights = WeightFormat::kBf16;
  int64_t arena_bytes = 0;     // 0: room for two of the model's windows
  int64_t host_bytes = 0;      // 0: no tier under the device
  int64_t chunk_tokens = 512;  // rows of a step at most
  std::array<uint8_t, 32> tenant_key{};
  const Clock* clock = &RealClock();
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::shared_ptr<const GgufFile> file,
                                                        std::shared_ptr<const Tokenizer> tokenizer,
                                                        const EngineOptions& options);
  ~Engine();

  using JobId = int64_t;
  absl::StatusOr<JobId> Submit(Request request);
  // One engine step over all admitted requests. False: nothing is left to do.
  bool Step();
  // The outcome of a finished request, once; nullptr while it runs.
  std::unique_ptr<Outcome> Take(JobId id);
  // Submit, then Step until it is done.
  absl::StatusOr<Outcome> Run(Request request);

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  Backend& backend() { return *backend_; }
  TieredStore& store() { return *store_; }
  Tier* host_tier() { return host_.get(); }
  const std::string& numerics_class() const { return numerics_class_; }
  int64_t chunk_tokens() const { return options_.chunk_tokens; }

 private:
  struct Job;
  explicit Engine(const EngineOptions& options);
  absl::Status Load(const GgufFile& file);
  void PlanBlocks(Job& job) const;
  absl::Status CheckRequest(const Request& request) const;
  bool Admit(Job& job);
  void FindCached(Job& job);
  bool AddPromptRows(Job& job, int64_t budget);
  void AddDecodeRow(Job& job);
  void AfterStep(Job& job, std::span<const float> logits);
  void AfterPrompt(Job& job);
  void Emit(Job& job, std::span<const float> logits);
  void Finish(Job& job, absl::Status status, std::string reason);
  void FillReceipt(Job& job);
  double Since(TimePoint start) const { return Seconds(options_.clock->Now() - start); }

  const EngineOptions options_;
  ModelConfig config_;
  std::string numerics_class_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  Weights weights_;
  std::unique_ptr<RopeTable> rope_;
  std::unique_ptr<TileArena> arena_;
  std::unique_ptr<Tier> host_;
  std::unique_ptr<TieredStore> store_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<BlockChain> chain_;
  std::deque<std::unique_ptr<Job>> jobs_;  // in order of arrival; finished ones until taken
  std::vector<StepRows> step_;             // of the step in progress
  std::vector<Job*> step_jobs_;
  int64_t reserved_tiles_ = 0;  // worst cases of the admitted
  JobId next_id_ = 1;
};

}  // namespace palimpsest
