// The coordinator's and the worker's code in this process: what `ask` and `ingest` run on.
//
// The catalog is opened, and the data folder locked, when the first document is named; the weights are loaded
// when the first prompt runs. Documents survive the process, their KV lives as long as it: the second
// question about a document finds its blocks here, the first one in a new process computes them again
// (receipt.recomputed_tokens).
//
// Errors : of the parts, worded by them. Cancelled once the token is set; what is in the catalog by then
// stays. Threads: one at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "apps/model.h"
#include "coordinator/catalog.h"
#include "coordinator/prompt_plan.h"
#include "proto/base/cancel.h"
#include "proto/base/config.h"
#include "proto/base/progress.h"
#include "worker/engine.h"

namespace palimpsest {

struct IngestedDocument {
  DocumentInfo info;
  std::string path;        // as named this time
  int64_t blocks = 0;      // of the document: one for 64 tokens of a layer
  int64_t host_bytes = 0;  // written to host memory by this call
  double seconds = 0;      // from text to sealed blocks
  bool already_known = false;
};

struct Question {
  std::vector<std::string> documents;  // ids or paths
  std::string text;
  PrefillChoice prefill = PrefillChoice::kAuto;
  bool visible = false;  // may the policy see the question; with `full` nothing is dropped either way
  proto::Sampling sampling;
  std::function<void(std::string_view text)> on_text;  // the answer as it comes
};

struct Answer {
  std::string text;
  std::string finish_reason;  // stop | length
  std::vector<DocumentId> documents;
  proto::Usage usage;
  proto::Receipt receipt;
};

class Embedded {
 public:
  struct Options {
    const CancelToken* cancel = &CancelToken::Never();
    ProgressOutput progress = NoProgress();
  };
  static absl::StatusOr<std::unique_ptr<Embedded>> Open(const Config& config, Options options);

  // `path` names the text in the catalog and in errors.
  absl::StatusOr<IngestedDocument> Ingest(const std::string& path, const std::string& text);
  absl::StatusOr<Answer> Ask(const Question& question);

  Model& model() { return *model_; }
  absl::StatusOr<Catalog*> OpenCatalog();

 private:
  Embedded(const Config& config, Options options) : config_(config), options_(std::move(options)) {}

  struct Found {
    DocumentInfo info;
    PromptDocument document;
  };
  absl::StatusOr<Found> AddText(const std::string& path, const std::string& text);
  absl::StatusOr<Found> FindDocument(const std::string& name);
  absl::StatusOr<Found> FindById(const std::string& id);
  absl::StatusOr<Outcome> Run(Request request, std::string_view label);

  const Config config_;
  const Options options_;
  std::unique_ptr<Model> model_;
  std::optional<PromptPlanner> planner_;
  std::unique_ptr<Catalog> catalog_;
};

}  // namespace palimpsest
