#include "coordinator/coordinator.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "coordinator/answer_run.h"
#include "coordinator/dispatcher.h"
#include "coordinator/documents.h"
#include "coordinator/prompt_request.h"
#include "coordinator/request_queue.h"
#include "coordinator/serving_metrics.h"
#include "coordinator/tier_metrics.h"
#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr int64_t kIngestThreadsMax = 16;
constexpr int64_t kDrainingSeconds = 5;  // until a restart has come up, or another coordinator took over

// Whom a metric's scrape asks; the metrics may outlive the coordinator.
struct Watched {
  std::mutex mu;
  const Coordinator* coordinator = nullptr;
};

Admission::Limits AdmissionLimits(const Config::Limits& limits) {
  return {.running = limits.running,
          .waiting = limits.waiting,
          .waiting_tokens = limits.waiting_tokens,
          .waiting_seconds = limits.waiting_seconds};
}

class CoordinatorImpl final : public Coordinator {
 public:
  CoordinatorImpl(Options options, std::string secret);
  ~CoordinatorImpl() override;

  absl::Status Answer(const AnswerRequest& request, AnswerSink& sink, const CancelToken& cancel) override;

  absl::Status Check(const AnswerRequest& request) override;

  absl::StatusOr<DocumentState> AddDocument(const std::string& name, const std::string& text,
                                            const std::string& tenant, Ingest ingest) override;
  absl::StatusOr<DocumentState> GetDocument(const std::string& id, const std::string& tenant) override {
    return documents_.Get(id, tenant);
  }
  absl::StatusOr<DocumentState> WaitDocument(const std::string& id, const std::string& tenant,
                                             const DocumentState& seen, Duration limit,
                                             const CancelToken& cancel) override {
    return documents_.Wait(id, tenant, seen, limit, cancel);
  }
  absl::StatusOr<std::string> DocumentText(const std::string& id, const std::string& tenant) override {
    return documents_.Text(id, tenant);
  }
  absl::StatusOr<std::vector<DocumentState>> ListDocuments(const std::string& tenant) override {
    return documents_.List(tenant);
  }
  absl::Status DeleteDocument(const std::string& id, const std::string& tenant) override {
    return documents_.Delete(id, tenant);
  }

  const ServedModel& model() const override { return options_.model; }
  CoordinatorStatus Status() const override;
  Registry& registry() override { return *options_.registry; }
  absl::Status Ready() const override;
  bool Drain(Duration limit) override;
  void Stop() override;

 private:
  struct Admitted {
    RequestQueue::Turn turn;
    PromptPlan plan;
    std::vector<DocumentId> documents;
    int64_t max_tokens = 0;  // of each choice
  };
  absl::StatusOr<Admitted> Admit(const AnswerRequest& request, const CancelToken& cancel);
  absl::Status AnswerInside(const AnswerRequest& request, AnswerSink& sink, CancelToken& cancel);
  absl::StatusOr<PromptPlan> Plan(const AnswerRequest& request, std::vector<DocumentId>* ids);
  // One that runs; Unavailable once draining has begun.
  absl::Status EnterGate(CancelToken* cancel);
  void LeaveGate(CancelToken* cancel);
  // Leaves also if a sink or a library throws: the token does not live longer than the call.
  class Inside {
   public:
    Inside(CoordinatorImpl& coordinator, CancelToken* cancel) : coordinator_(coordinator), cancel_(cancel) {}
    ~Inside() { coordinator_.LeaveGate(cancel_); }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    CoordinatorImpl& coordinator_;
    CancelToken* const cancel_;
  };
  absl::Status Draining() const;
  void Observe() const;
  Documents::Options DocumentOptions();

  const Options options_;
  const std::string secret_;  // cache domains are derived from it
  mutable ServingMetrics metrics_;
  mutable TierMetrics tier_metrics_;
  Dispatcher dispatcher_;
  RequestQueue queue_;
  Documents documents_;
  const std::shared_ptr<Watched> watched_;  // shared with the metrics' callback

  mutable std::mutex mu_;
  std::condition_variable left_;    // an answer has ended
  std::set<CancelToken*> answers_;  // guarded by mu_, as all below: those under way
  bool draining_ = false;
};

CoordinatorImpl::CoordinatorImpl(Options options, std::string secret)
    : options_(std::move(options)),
      secret_(std::move(secret)),
      metrics_(options_.metrics),
      tier_metrics_(options_.metrics),
      dispatcher_({.registry = options_.registry,
                   .worker_wait = std::chrono::seconds(options_.config.limits.waiting_seconds),
                   .on_failover = [this] { metrics_.CountFailover(); }}),
      queue_(AdmissionLimits(options_.config.limits), options_.registry, *options_.clock),
      documents_(DocumentOptions()),
      watched_(std::make_shared<Watched>()) {
  watched_->coordinator = this;
  if (options_.metrics == nullptr) return;
  options_.metrics->OnCollect([watched = watched_] {
    const std::lock_guard<std::mutex> lock(watched->mu);
    if (watched->coordinator != nullptr) static_cast<const CoordinatorImpl*>(watched->coordinator)->Observe();
  });
}

CoordinatorImpl::~CoordinatorImpl() {
  {
    const std::lock_guard<std::mutex> lock(watched_->mu);
    watched_->coordinator = nullptr;
  }
  Stop();
}

Documents::Options CoordinatorImpl::DocumentOptions() {
  return {.open_catalog = options_.open_catalog,
          .planner = options_.model.planner,
          .tokenizer_hash = options_.model.tokenizer->hash(),
          .document_bytes = options_.config.limits.document_bytes,
          .threads = std::clamp<int64_t>(options_.config.server.workers, 1, kIngestThreadsMax),
          .check_fits =
              [this](const PromptPlan& plan) {
                return FitAnswer(plan, /*max_tokens=*/0, {}, *options_.registry).status();
              },
          .make_request =
              [this](PromptPlan plan, const std::string& tenant) {
                return IngestRequest(std::move(plan), CacheDomain(secret_, tenant, /*salt=*/""));
              },
          .dispatcher = &dispatcher_,
          .clock = options_.clock};
}

absl::Status CoordinatorImpl::Draining() const {
  return WithRetryAfter(
      Error(absl::StatusCode::kUnavailable,
            "the server is being stopped and takes no new work; come again in {} s", kDrainingSeconds),
      kDrainingSeconds);
}

absl::Status CoordinatorImpl::EnterGate(CancelToken* cancel) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (draining_) return Draining();
  answers_.insert(cancel);
  return absl::OkStatus();
}

void CoordinatorImpl::LeaveGate(CancelToken* cancel) {
  const std::lock_guard<std::mutex> lock(mu_);
  answers_.erase(cancel);
  left_.notify_all();  // with the lock: who waits for the last one may destroy this
}

absl::Status CoordinatorImpl::Answer(const AnswerRequest& request, AnswerSink& sink,
                                     const CancelToken& cancel) {
  CancelToken own(&cancel);
  if (absl::Status refused = EnterGate(&own); !refused.ok()) {
    metrics_.CountRefused(ServingMetrics::Refused::kDraining);
    return refused;
  }
  const Inside inside(*this, &own);
  const TimePoint arrived = options_.clock->Now();
  absl::Status status = AnswerInside(request, sink, own);
  metrics_.ObserveRequest(Seconds(options_.clock->Now() - arrived));
  return status;
}

// Plans it and gives it its turn, or says why not.
absl::StatusOr<CoordinatorImpl::Admitted> CoordinatorImpl::Admit(const AnswerRequest& request,
                                                                 const CancelToken& cancel) {
  using Refused = ServingMetrics::Refused;
  const auto refuse = [this](Refused why, const absl::Status& status) {
    metrics_.CountRefused(why);
    return status;
  };
  if (absl::Status wrong = CheckAnswerRequest(request, options_.config.limits); !wrong.ok()) {
    return refuse(Refused::kInvalid, wrong);
  }
  // Planning costs time, so only who has a place in the queue may plan.
  absl::StatusOr<RequestQueue::Turn> turn = queue_.Enter(request.tenant);
  if (!turn.ok()) return refuse(Refused::kQueue, turn.status());
  std::vector<DocumentId> ids;
  absl::StatusOr<PromptPlan> plan = Plan(request, &ids);
  if (!plan.ok()) return refuse(Refused::kInvalid, plan.status());
  const AnswerLimits limits{.window_tokens = options_.model.window_tokens,
                            .default_tokens = options_.config.generate.max_tokens,
                            .choices = request.choices,
                            .may_cut = request.may_cut};
  const auto need = FitAnswer(*plan, request.sampling.max_tokens(), limits, *options_.registry);
  if (!need.ok()) return refuse(Refused::kTooLarge, need.status());
  if (absl::Status many = turn->SetNeed(*need); !many.ok()) return refuse(Refused::kTokens, many);
  if (absl::Status waited = turn->Wait(cancel); !waited.ok()) {
    if (waited.code() != absl::StatusCode::kCancelled) return refuse(Refused::kWait, waited);
    metrics_.CountFinished(ServingMetrics::Finish::kAbort);
    return waited;
  }
  return Admitted{std::move(*turn), std::move(*plan), std::move(ids), need->answer_tokens / request.choices};
}

absl::Status CoordinatorImpl::AnswerInside(const AnswerRequest& request, AnswerSink& sink,
                                           CancelToken& cancel) {
  const TimePoint arrived = options_.clock->Now();
  PALIMPSEST_ASSIGN_OR_RETURN(Admitted admitted, Admit(request, cancel));
  const double queue_seconds = Seconds(options_.clock->Now() - arrived);
  metrics_.ObserveQueue(queue_seconds);
  PromptPlan& plan = admitted.plan;
  if (!sink.OnStart(plan.tokens, admitted.documents)) {
    metrics_.CountFinished(ServingMetrics::Finish::kAbort);
    return Error(absl::StatusCode::kCancelled, "nobody listens any more");
  }
  AnswerRun::Options options{.request = &request,
                             .sink = &sink,
                             .dispatcher = &dispatcher_,
                             .metrics = &metrics_,
                             .cancel = &cancel,
                             .policy = PolicyText(plan.mode.policy),
                             .prefill = plan.prefill,
                             .prefill_reason = plan.prefill_reason,
                             .question_visible = plan.question_visible,
                             .arrived = arrived,
                             .queue_seconds = queue_seconds,
                             .clock = options_.clock};
  options.generate = GenerateRequestOf(std::move(plan), request, admitted.max_tokens,
                                       CacheDomain(secret_, request.tenant, request.cache_salt));
  AnswerRun run(std::move(options));
  absl::Status status = run.Run();
  if (run.prompt_read()) documents_.Read(admitted.documents, request.tenant);
  if (!status.ok()) {
    metrics_.CountFinished(status.code() == absl::StatusCode::kCancelled ? ServingMetrics::Finish::kAbort
                                                                         : ServingMetrics::Finish::kError);
  }
  return status;
}

absl::StatusOr<PromptPlan> CoordinatorImpl::Plan(const AnswerRequest& request, std::vector<DocumentId>* ids) {
  std::vector<PromptDocument> documents;
  for (const std::string& id : request.documents) {
    PALIMPSEST_ASSIGN_OR_RETURN(Documents::Found found, documents_.Find(id, request.tenant));
    ids->push_back(std::move(found.id));
    documents.push_back(std::move(found.document));
  }
  return PlanPrompt(*options_.model.planner, std::move(documents), request);
}

absl::Status CoordinatorImpl::Check(const AnswerRequest& request) {
  PALIMPSEST_RETURN_IF_ERROR(CheckAnswerRequest(request, options_.config.limits));
  std::vector<DocumentId> ids;
  return Plan(request, &ids).status();
}

absl::StatusOr<DocumentState> CoordinatorImpl::AddDocument(const std::string& name, const std::string& text,
                                                           const std::string& tenant, Ingest ingest) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (draining_) return Draining();
  }
  return documents_.Add(name, text, tenant, ingest);
}

CoordinatorStatus CoordinatorImpl::Status() const {
  const RequestQueue::Numbers numbers = queue_.numbers();
  CoordinatorStatus status{.running = numbers.running,
                           .waiting = numbers.waiting,
                           .waiting_tokens = numbers.waiting_tokens,
                           .ingesting = documents_.ingesting()};
  const std::lock_guard<std::mutex> lock(mu_);
  status.draining = draining_;
  return status;
}

void CoordinatorImpl::Observe() const {
  const CoordinatorStatus status = Status();
  int64_t used = 0, arena = 0;
  const std::vector<Registry::Worker> workers = options_.registry->Alive();
  std::vector<TierMetrics::Worker> tiers;
  for (const Registry::Worker& worker : workers) {
    used += worker.status.arena_used_bytes();
    arena += worker.status.arena_bytes();
    tiers.push_back(
        {fmt::format("{} {}", worker.hello.address(), worker.hello.process_id()), &worker.status});
  }
  tier_metrics_.Set(tiers);
  metrics_.SetState({.running = status.running,
                     .waiting = status.waiting,
                     .ingesting = status.ingesting,
                     .workers = static_cast<int64_t>(workers.size()),
                     .joins = options_.registry->joins(),
                     .kv_used = arena == 0 ? 0 : static_cast<double>(used) / static_cast<double>(arena)});
}

absl::Status CoordinatorImpl::Ready() const {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (draining_) return Draining();
  }
  if (!options_.registry->Alive().empty()) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable, "no worker is there yet; {} joined so far",
               options_.registry->joins());
}

bool CoordinatorImpl::Drain(Duration limit) {
  const TimePoint end = AddSaturated(std::chrono::steady_clock::now(), limit);
  {
    const std::lock_guard<std::mutex> lock(mu_);
    draining_ = true;
  }
  documents_.StopIngesting();
  std::unique_lock<std::mutex> lock(mu_);
  while (!answers_.empty()) {
    if (end == TimePoint::max()) {
      left_.wait_for(lock, std::chrono::seconds(1));
    } else if (left_.wait_until(lock, end) == std::cv_status::timeout) {
      break;
    }
  }
  return answers_.empty();
}

void CoordinatorImpl::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    draining_ = true;
    for (CancelToken* answer : answers_) answer->Set();
  }
  documents_.StopIngesting();
  std::unique_lock<std::mutex> lock(mu_);
  left_.wait(lock, [this] { return answers_.empty(); });  // a worker's link ends a cancelled call
}

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(Options options) {
  if (options.registry == nullptr || options.model.planner == nullptr || options.model.tokenizer == nullptr ||
      !options.open_catalog) {
    return Internal("a coordinator needs a registry, a model's tokenizer and planner, and a catalog");
  }
  std::string secret = options.secret;
  if (secret.empty()) {
    PALIMPSEST_ASSIGN_OR_RETURN(secret, NewSecret());
  }
  return std::make_unique<CoordinatorImpl>(std::move(options), std::move(secret));
}

}  // namespace palimpsest
