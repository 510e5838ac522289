// The coordinator: takes requests, plans them, admits them, finds a worker, and sees them through that
// worker's death. HTTP and the commands that embed it call this; it never sees a tensor.
//
// Answer : plan -> admission -> queue -> a worker -> events. If the worker dies the request goes to the
//          next one (or the same one restarted) with the tokens that were already delivered, and the stream
//          goes on.
// Documents: the catalog's text plus the ingestion of it, which runs in the background at low priority.
//            Text that was accepted is durable; what a stop interrupts is computed when it is asked for.
// Errors : InvalidArgument: what the request says cannot be done, with both numbers. NotFound: the
//          document. ResourceExhausted: it can never fit the workers, with both numbers. Unavailable, with
//          RetryAfter(status): too much waits, or no worker came back in time; nothing was computed.
//          Cancelled. Unimplemented.
// Threads: any thread. Calls block; each runs on its caller's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/answer_request.h"
#include "coordinator/catalog.h"
#include "coordinator/registry.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"
#include "proto/base/config.h"
#include "proto/base/metrics.h"
#include "proto/base/status.h"
#include "text/tokenizer.h"

namespace palimpsest {

// The model as the coordinator knows it: text only.
struct ServedModel {
  std::string name;  // what clients call it
  std::string hash;  // hex SHA-256 of its file
  int64_t window_tokens = 0;
  int64_t bytes_per_token = 0;  // of KV on the device
  int64_t created_unix = 0;     // the file's time, seconds
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const PromptPlanner> planner;
};

struct DocumentState {
  enum class Phase { kWaiting, kReading, kReady, kFailed } phase = Phase::kReady;
  DocumentInfo info;
  int64_t done_tokens = 0, total_tokens = 0;  // of its ingestion
  bool already_known = false;                 // the text was in the catalog before it was added
  std::string error;                          // of a failed one
  double seconds = 0;                         // from being added to ready; 0 until then
  int64_t blocks = 0;                         // of its ingestion, once ready, as both below
  int64_t host_bytes = 0, ssd_bytes = 0;      // written to these tiers
};

// Numbers for the status page.
struct CoordinatorStatus {
  int64_t running = 0, waiting = 0, waiting_tokens = 0;
  int64_t ingesting = 0;
  bool draining = false;
};

class Coordinator {
 public:
  struct Options {
    Config config;
    ServedModel model;
    // Opens the catalog, once, when the first document is named. A server opens it at its start.
    std::function<absl::StatusOr<std::unique_ptr<Catalog>>()> open_catalog;
    std::shared_ptr<Registry> registry;
    // 32 bytes from which the tenants' cache domains are derived: the same ones find what was read before.
    // Empty: this process's own, at random.
    std::string secret;
    Metrics* metrics = nullptr;  // outlives the coordinator
    const Clock* clock = &RealClock();
  };
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(Options options);
  virtual ~Coordinator() = default;  // Stop

  virtual absl::Status Answer(const AnswerRequest& request, AnswerSink& sink, const CancelToken& cancel) = 0;

  // What Answer would refuse whoever the workers are, found out without one: before weights are loaded.
  virtual absl::Status Check(const AnswerRequest& request) = 0;

  // Stores the text (durable when this returns). `name` is what people call it. kIfNew lets it be ingested in
  // the background unless this coordinator has done so; kAlways in any case, since its blocks may be gone;
  // kNever leaves it to the first question, to which its tokens then do not count as computed again.
  enum class Ingest { kIfNew, kAlways, kNever };
  virtual absl::StatusOr<DocumentState> AddDocument(const std::string& name, const std::string& text,
                                                    const std::string& tenant, Ingest ingest) = 0;
  // A prefix of the id will do, as in the catalog. A document of another tenant is not found, and equal texts
  // of two tenants are two documents.
  virtual absl::StatusOr<DocumentState> GetDocument(const std::string& id, const std::string& tenant) = 0;
  // Waits until the document is ready or failed, or its state has changed since `seen`, or `limit` is over.
  virtual absl::StatusOr<DocumentState> WaitDocument(const std::string& id, const std::string& tenant,
                                                     const DocumentState& seen, Duration limit,
                                                     const CancelToken& cancel) = 0;
  virtual absl::StatusOr<std::string> DocumentText(const std::string& id, const std::string& tenant) = 0;
  virtual absl::StatusOr<std::vector<DocumentState>> ListDocuments(const std::string& tenant) = 0;
  // Stops its ingestion first.
  virtual absl::Status DeleteDocument(const std::string& id, const std::string& tenant) = 0;

  virtual const ServedModel& model() const = 0;
  virtual CoordinatorStatus Status() const = 0;
  virtual Registry& registry() = 0;
  // Is there a worker, and is nothing being shut down?
  virtual absl::Status Ready() const = 0;

  // Refuses new requests (Unavailable); returns when all has ended or after `limit`; ingestion stops at its
  // next sealed block.
  virtual bool Drain(Duration limit) = 0;
  virtual void Stop() = 0;  // cancels what is left
};

}  // namespace palimpsest
