// The catalog's documents and their ingestion: jobs that wait, one thread for each worker that sees one
// through at low priority, and what is known of each document's state.
//
// Memory : a waiting job is an id; its text and tokens are read from the catalog when its turn comes. At most
//          kWaitingMax wait. The states of the last kFinishedMax that were ingested are kept; older ones read
//          as ready, which all of the catalog is when a process starts: what is not there is computed when it
//          is asked.
// Errors : Unavailable with RetryAfter: too many wait, or a document that is being read does not let go.
//          NotFound: also those of other tenants. InvalidArgument: too long, no text, not UTF-8. The
//          catalog's.
// Threads: any thread. Calls that wait do so with a limit.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/catalog.h"
#include "coordinator/coordinator.h"
#include "coordinator/dispatcher.h"
#include "coordinator/prompt_plan.h"

namespace palimpsest {

class Documents {
 public:
  static constexpr size_t kWaitingMax = 4096, kFinishedMax = 16384;

  struct Options {
    std::function<absl::StatusOr<std::unique_ptr<Catalog>>()> open_catalog;
    std::shared_ptr<const PromptPlanner> planner;  // shared with answers
    std::string tokenizer_hash;
    int64_t document_bytes = 0;  // limits.document_bytes
    int64_t threads = 1;         // that ingest; started with the first job
    // Is there a worker that can hold it? Both numbers if not.
    std::function<absl::Status(const PromptPlan&)> check_fits;
    // The request that reads this prompt and generates nothing.
    std::function<proto::GenerateRequest(PromptPlan, const std::string& tenant)> make_request;
    Dispatcher* dispatcher = nullptr;  // outlives this
    const Clock* clock = &RealClock();
  };
  explicit Documents(Options options) : options_(std::move(options)) {}
  ~Documents() { StopIngesting(); }

  // See Coordinator.
  absl::StatusOr<DocumentState> Add(const std::string& name, const std::string& text,
                                    const std::string& tenant, Coordinator::Ingest ingest);
  absl::StatusOr<DocumentState> Get(const std::string& id, const std::string& tenant);
  absl::StatusOr<DocumentState> Wait(const std::string& id, const std::string& tenant,
                                     const DocumentState& seen, Duration limit, const CancelToken& cancel);
  absl::StatusOr<std::string> Text(const std::string& id, const std::string& tenant);
  absl::StatusOr<std::vector<DocumentState>> List(const std::string& tenant);
  absl::Status Delete(const std::string& id, const std::string& tenant);

  // For a prompt: its tokens, and whether they were ever read.
  struct Found {
    DocumentId id;
    PromptDocument document;
  };
  absl::StatusOr<Found> Find(const std::string& id, const std::string& tenant);
  // A prompt with these was read to its end: they are known from now on.
  void Read(const std::vector<DocumentId>& ids, const std::string& tenant);

  // Of jobs that wait and that run.
  int64_t ingesting() const;
  // Ends the threads; what they read stops at the next step. Jobs that wait stay waiting. Idempotent.
  void StopIngesting();

 private:
  using Key = std::pair<std::string, DocumentId>;  // tenant
  struct Entry {
    DocumentState state;
    bool unread = false;  // nobody has computed its tokens yet
    TimePoint added;
    bool busy = false;                    // a thread reads it
    std::shared_ptr<CancelToken> cancel;  // shared with that thread
  };

  absl::StatusOr<std::shared_ptr<Catalog>> OpenCatalog(const std::string& tenant);
  absl::StatusOr<DocumentState> Enqueue(const Key& key, const Catalog::Added& added,
                                        Coordinator::Ingest when);
  DocumentState StateOf(const Key& key, DocumentInfo info) const;
  void StartThread();
  void Work();
  absl::Status IngestOne(const Key& key, const CancelToken& cancel);
  bool OnEvent(const Key& key, const proto::GenerateEvent& event);
  void Finish(const Key& key, const absl::Status& status);
  void Remember(const Key& key);

  const Options options_;
  std::mutex catalog_mu_;             // held over opening
  std::shared_ptr<Catalog> catalog_;  // guarded by catalog_mu_; shared with calls in flight

  mutable std::mutex mu_;
  std::condition_variable work_;     // a job waits, or the threads are to end
  std::condition_variable changed_;  // a state has changed
  std::map<Key, Entry> entries_;     // guarded by mu_, as all below
  std::deque<Key> waiting_, finished_;
  std::vector<std::thread> threads_;
  int64_t idle_ = 0, busy_ = 0;
  bool stopping_ = false;
};

}  // namespace palimpsest
