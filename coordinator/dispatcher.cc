#include "coordinator/dispatcher.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "proto/base/log.h"
#include "proto/base/status.h"

namespace palimpsest {
namespace {

constexpr Duration kPauseFirst = std::chrono::milliseconds(20), kPauseMax = std::chrono::seconds(1);
constexpr int64_t kFruitlessMax = 20;  // attempts that begin and end without a new token
constexpr size_t kDegradedMax = 16;    // told in a receipt: the last ones
constexpr Duration kLook =
    std::chrono::milliseconds(10);  // for cancellation and for workers, while there is none

int64_t PromptTokens(const proto::GenerateRequest& request) {
  int64_t tokens = 0;
  for (const proto::PromptPart& part : request.parts()) tokens += part.tokens_size();
  return tokens;
}

// The worker did not say that the request is wrong: another one may do it.
bool WorkerLost(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:           // not by us: it is being stopped
    case absl::StatusCode::kFailedPrecondition:  // it is another incarnation by now
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

// A request on its way.
struct Dispatcher::Job {
  struct Broken {
    TimePoint until;  // not asked before
    Duration pause{};
  };

  proto::GenerateRequest request;  // `generated` grows with what was delivered
  const WorkerLink::Listener& listener;
  const CancelToken& cancel;
  std::vector<PromptBeginning> beginnings;
  int64_t tokens = 0;         // of the prompt and the answer
  int64_t prefill_done = -1;  // told to the listener
  bool prefill_over = false;
  bool done = false, stopped = false;  // stopped: the listener does not want more
  absl::Status wrong;                  // what the worker sent broke the rules
  std::vector<std::string> degraded;

  bool begun = false;                 // the present worker sent something
  int64_t fruitless = 0;              // workers that began and broke off since the last new token
  TimePoint progress;                 // last event, or start
  std::map<uint64_t, Broken> broken;  // by incarnation
  std::set<uint64_t> dead;            // broken and gone since the last new token
  absl::Status last;                  // what the last one broke off with
};

absl::Status Dispatcher::Run(proto::GenerateRequest request, const WorkerLink::Listener& listener,
                             const CancelToken& cancel) {
  request.clear_generated();
  Job job{.request = std::move(request), .listener = listener, .cancel = cancel};
  job.beginnings = BeginningsOf(job.request);
  job.tokens = PromptTokens(job.request) + job.request.sampling().max_tokens();
  job.progress = std::chrono::steady_clock::now();
  while (true) {
    PALIMPSEST_ASSIGN_OR_RETURN(const Registry::Worker worker, WaitForWorker(job));
    const int64_t delivered = job.request.generated_size();
    absl::Status status = RunOn(worker, job);
    if (job.done) return absl::OkStatus();
    PALIMPSEST_RETURN_IF_ERROR(job.wrong);
    PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
    if (job.stopped) return Error(absl::StatusCode::kCancelled, "nobody listens any more");
    // A call that ends well without a done event has failed too.
    if (!status.ok() && !WorkerLost(status)) return status;
    job.last = status;
    // A worker that had begun was at work until now, however long its last event is ago: the wait for the
    // next one begins here.
    if (job.begun) job.progress = std::chrono::steady_clock::now();
    if (job.request.generated_size() > delivered) {
      job.dead.clear();
      job.broken.clear();
      job.fruitless = 0;
    }
    PALIMPSEST_RETURN_IF_ERROR(Broke(worker, job));
  }
}

// The worker broke the request off: notes it, so that it is left alone for a while.
absl::Status Dispatcher::Broke(const Registry::Worker& worker, Job& job) const {
  const int64_t delivered = job.request.generated_size();
  Job::Broken& broken = job.broken[worker.incarnation];
  if (job.begun || broken.pause == Duration::zero()) {  // else it is gone and still listed
    if (options_.on_failover) options_.on_failover();
    PALIMPSEST_LOG(kWarn, "worker broke off request {} incarnation {} delivered_tokens {} status {}",
                   LogName(job.request.request_id()), worker.incarnation, delivered, job.last);
  }
  broken.pause = broken.pause == Duration::zero() ? kPauseFirst : std::min(2 * broken.pause, kPauseMax);
  broken.until = std::chrono::steady_clock::now() + broken.pause;
  if (!job.begun) return absl::OkStatus();
  job.degraded.push_back(fmt::format("worker lost; went on after {} tokens on another", delivered));
  if (job.degraded.size() > kDegradedMax) job.degraded.erase(job.degraded.begin());
  if (++job.fruitless <= kFruitlessMax) return absl::OkStatus();
  return Internal(
      "{} attempts on workers ended without a new token after {} tokens of the answer; the last: {}",
      job.fruitless, delivered, Message(job.last));
}

absl::StatusOr<Registry::Worker> Dispatcher::WaitForWorker(Job& job) {
  const TimePoint end = AddSaturated(job.progress, options_.worker_wait);
  while (true) {
    PALIMPSEST_RETURN_IF_ERROR(job.cancel.Check());
    if (std::optional<Registry::Worker> worker = Choose(job)) return std::move(*worker);
    PALIMPSEST_RETURN_IF_ERROR(CountDeaths(job));
    if (std::chrono::steady_clock::now() >= end) {
      const int64_t seconds = 10;
      return WithRetryAfter(
          Error(absl::StatusCode::kUnavailable,
                "no worker could take the request within {:.0f} s (limits.waiting_seconds), {} are alive{}; "
                "come "
                "again in {} s",
                Seconds(options_.worker_wait), options_.registry->Alive().size(),
                job.last.ok() ? "" : fmt::format(", the last one said: {}", Message(job.last)), seconds),
          seconds);
    }
    options_.registry->WaitForOne(kLook, job.cancel);
    std::this_thread::sleep_for(job.broken.empty() ? Duration::zero() : kLook);
  }
}

// Those that broke this request off and are gone: it may be what kills them.
absl::Status Dispatcher::CountDeaths(Job& job) const {
  const std::vector<Registry::Worker> alive = options_.registry->Alive();
  for (auto i = job.broken.begin(); i != job.broken.end();) {
    const bool here = std::any_of(alive.begin(), alive.end(), [&](const Registry::Worker& worker) {
      return worker.incarnation == i->first;
    });
    if (!here) job.dead.insert(i->first);
    i = here ? std::next(i) : job.broken.erase(i);
  }
  if (static_cast<int64_t>(job.dead.size()) < kDeathsMax) return absl::OkStatus();
  return Internal(
      "{} workers were lost on this request without a new token after {} tokens of its answer: it may be "
      "what ends "
      "them, so it is not tried again; the workers' logs say more",
      job.dead.size(), job.request.generated_size());
}

std::optional<Registry::Worker> Dispatcher::Choose(Job& job) {
  if (!CountDeaths(job).ok()) return std::nullopt;
  std::vector<Registry::Worker> alive = options_.registry->Alive();
  const TimePoint now = std::chrono::steady_clock::now();
  const auto paused = [&](const Registry::Worker& worker) {
    const auto broken = job.broken.find(worker.incarnation);
    return broken != job.broken.end() && now < broken->second.until;
  };
  alive.erase(std::remove_if(alive.begin(), alive.end(), paused), alive.end());
  std::vector<uint64_t> incarnations;
  incarnations.reserve(alive.size());
  for (const Registry::Worker& worker : alive) incarnations.push_back(worker.incarnation);
  std::optional<uint64_t> chosen;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    chosen = placement_.Choose(incarnations, job.beginnings);
    if (!chosen.has_value()) return std::nullopt;
    placement_.Begin(*chosen, job.tokens);
    placement_.Remember(*chosen, job.beginnings);  // at once: who asks about the same follows
  }
  return *std::find_if(alive.begin(), alive.end(),
                       [&](const Registry::Worker& worker) { return worker.incarnation == *chosen; });
}

// The load that Choose put on the worker is taken off again.
absl::Status Dispatcher::RunOn(const Registry::Worker& worker, Job& job) {
  job.request.set_incarnation(worker.incarnation);
  // The request is sent as it is now: `generated` grows while the call runs.
  const proto::GenerateRequest sent = job.request;
  job.begun = false;
  absl::Status status = worker.link->Generate(
      sent, [&](const auto& event) { return OnEvent(event, job); }, job.cancel);
  const std::lock_guard<std::mutex> lock(mu_);
  placement_.End(worker.incarnation, job.tokens);
  return status;
}

// False ends the call.
bool Dispatcher::OnEvent(const proto::GenerateEvent& event, Job& job) const {
  if (job.done || job.stopped || !job.wrong.ok()) return false;
  job.begun = true;
  job.progress = std::chrono::steady_clock::now();
  switch (event.event_case()) {
    case proto::GenerateEvent::kPrefill: {
      if (job.prefill_over || event.prefill().done_tokens() <= job.prefill_done) return true;
      job.prefill_done = event.prefill().done_tokens();
      job.stopped = !job.listener(event);
      return !job.stopped;
    }
    case proto::GenerateEvent::kToken:
      return OnToken(event, job);
    case proto::GenerateEvent::kDone: {
      proto::GenerateEvent done = event;
      for (const std::string& what : job.degraded) done.mutable_done()->mutable_receipt()->add_degraded(what);
      job.stopped = !job.listener(done);
      job.done = !job.stopped;
      return job.done;
    }
    case proto::GenerateEvent::EVENT_NOT_SET:
      return true;  // of a newer version
  }
  return true;
}

bool Dispatcher::OnToken(const proto::GenerateEvent& event, Job& job) const {
  job.prefill_over = true;
  const int64_t expected = job.request.generated_size();
  if (event.token().sequence() < expected) return true;  // delivered before
  if (event.token().sequence() > expected) {
    job.wrong = Internal("a worker sent token {} of the answer where {} was next", event.token().sequence(),
                         expected);
    return false;
  }
  job.request.add_generated(event.token().token());
  job.stopped = !job.listener(event);
  return !job.stopped;
}

}  // namespace palimpsest
