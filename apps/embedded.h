// The coordinator's and the worker's code in this process: what `ask` and `ingest` run on without --server.
//
// The catalog is opened, and the data folder locked, when the first document is named; the weights are loaded
// when the first prompt runs. Documents survive the process, their KV lives as long as it: the second
// question about a document finds its blocks here, the first one in a new process computes them again
// (receipt.recomputed_tokens).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "apps/client.h"
#include "apps/model.h"
#include "coordinator/coordinator.h"
#include "worker/worker_host.h"

namespace palimpsest {

class Embedded final : public Client {
 public:
  struct Options {
    const CancelToken* cancel = &CancelToken::Never();
    ProgressOutput progress = NoProgress();
  };
  static absl::StatusOr<std::unique_ptr<Embedded>> Open(const Config& config, Options options);
  ~Embedded() override;

  absl::Status Check() override;
  absl::StatusOr<IngestedDocument> Ingest(const std::string& path, const std::string& text) override;
  absl::StatusOr<Answer> Ask(const Question& question) override;

  Model& model() { return *model_; }
  Coordinator& coordinator() { return *coordinator_; }

 private:
  Embedded(const Config& config, Options options) : config_(config), options_(std::move(options)) {}
  absl::Status StartWorker();
  absl::StatusOr<DocumentId> FindDocument(const std::string& name);
  absl::StatusOr<DocumentState> WaitUntilRead(DocumentState state, const std::string& path);

  const Config config_;
  const Options options_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<Registry> registry_;
  std::unique_ptr<WorkerHost> worker_;  // outlives the coordinator, which stops its own work first
  std::unique_ptr<Coordinator> coordinator_;
};

}  // namespace palimpsest
