// A model file and all that a command needs of it; the weights are loaded when the first prompt runs.
//
// Owns   : the mapped file, the tokenizer and the engine.
// Errors : NotFound: no such model, naming where it was looked for and what is there. What is wrong with
//          the file is worded by its readers and names it.
// Threads: one at a time (the engine's).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/coordinator.h"
#include "coordinator/prompt_plan.h"
#include "proto/base/config.h"
#include "text/gguf.h"
#include "text/tokenizer.h"
#include "worker/engine.h"
#include "worker/model/model_config.h"

namespace palimpsest {

// The model of the quick start; `deploy/quickstart.sh` fetches it.
inline constexpr std::string_view kQuickStartModel = "SmolLM2-135M-Instruct.Q4_1.gguf";

// The file of config.model: a path, or a name in the data folder's models/ with or without ".gguf".
absl::StatusOr<std::string> FindModelFile(const Config& config);

// The engine's part of the configuration.
absl::StatusOr<EngineOptions> EngineOptionsOf(const Config& config);
// With the SSD tier, too: of commands whose documents outlive them.
absl::StatusOr<EngineOptions> StoringEngineOptionsOf(const Config& config);
// The same for a worker that serves many: its steps are cut to prefill.step_ms.
absl::StatusOr<EngineOptions> ServingEngineOptionsOf(const Config& config);

// The likeliest token each time; nothing is penalized. 0 tokens: only prefill.
proto::Sampling GreedySampling(int64_t max_tokens);

class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Open(const Config& config);

  const GgufFile& file() const { return *file_; }
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  const ModelConfig& config() const { return model_config_; }

  // FailedPrecondition if the file has no chat template.
  absl::StatusOr<PromptPlanner> MakePlanner() const;
  // What a coordinator needs of it. Reads the whole file once, for its hash.
  absl::StatusOr<ServedModel> Served() const;
  // Loads the weights.
  absl::StatusOr<std::unique_ptr<Engine>> MakeEngine() const;
  absl::StatusOr<std::unique_ptr<Engine>> MakeStoringEngine() const;
  absl::StatusOr<std::unique_ptr<Engine>> MakeServingEngine() const;
  // The same at the first call, and kept; with an SSD tier and its key in `ssd_folder`, unless that is empty.
  absl::StatusOr<Engine*> StartEngine(const std::string& ssd_folder = "");

 private:
  explicit Model(const Config& config) : config_(config) {}

  const Config config_;
  std::shared_ptr<const GgufFile> file_;        // shared with the engine's loading
  std::shared_ptr<const Tokenizer> tokenizer_;  // shared with planners and the engine
  ModelConfig model_config_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace palimpsest
