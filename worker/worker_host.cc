#include "worker/worker_host.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proto/base/status.h"
#include "worker/generate_events.h"

namespace palimpsest {
namespace {

// How often a caller looks at its cancel token; how long the engine sleeps at most, should a wake-up be
// missed.
constexpr std::chrono::milliseconds kCancelPeriod{10}, kIdleMax{1000};
// How old the figures are at most that others see while the engine steps: counting them takes locks.
constexpr std::chrono::milliseconds kPublishEvery{100};

absl::Status Stopping() { return absl::UnavailableError("the worker is stopping; send the request again"); }

// One Generate, shared by its caller and the engine's thread.
class Call {
 public:
  Call(Request request, int64_t events_max) : request_(std::move(request)), events_max_(events_max) {
    for (const Segment& segment : request_.segments) total_ += std::ssize(segment.tokens);
    request_.cancel = &cancel_;
    request_.paused = &paused_;
    request_.on_token = [this](const AnswerToken& token) { Push(TokenEventOf(token)); };
    request_.on_prefill = [this](int64_t done, int64_t) { PushPrefill(done); };
    request_.on_found = [this](int64_t cached) {
      cached_ = cached;
      PushPrefill(std::max(done_, cached));
    };
  }

  // The engine's thread.
  Request TakeRequest() { return std::move(request_); }
  void Cancel() { cancel_.Set(); }  // any thread
  void Finish(const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mu_);
    ended_ = true;
    status_ = status;
    changed_.notify_all();
  }
  void Finish(const Outcome& outcome) {
    if (outcome.status.ok()) Push(DoneEventOf(outcome));
    Finish(outcome.status);
  }

  // The caller's thread. Waits until there is an event, the end or kCancelPeriod is over.
  struct Next {
    std::optional<proto::GenerateEvent> event;
    bool ended = false;        // and nothing is left
    bool let_go_on = false;    // the engine had paused it
    absl::Status status = {};  // once ended
  };
  Next Wait() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait_for(lock, kCancelPeriod, [this] { return ended_ || !events_.empty(); });
    Next next;
    if (!events_.empty()) {
      next.event = std::move(events_.front());
      events_.pop_front();
      if (paused_ && std::ssize(events_) <= events_max_ / 2) {
        paused_ = false;
        next.let_go_on = true;
      }
    } else if (ended_) {
      next.ended = true;
      next.status = status_;
    }
    return next;
  }
  void WaitForEnd() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return ended_; });
    events_.clear();
  }

 private:
  void Push(proto::GenerateEvent event) {
    const std::lock_guard<std::mutex> lock(mu_);
    // Only the last word on the prompt counts, so that they never fill the queue.
    if (event.has_prefill() && !events_.empty() && events_.back().has_prefill()) events_.pop_back();
    events_.push_back(std::move(event));
    if (std::ssize(events_) >= events_max_) paused_ = true;
    changed_.notify_all();
  }
  void PushPrefill(int64_t done) {
    done_ = done;
    Push(PrefillEventOf(done_, total_, cached_));
  }

  Request request_;
  const int64_t events_max_;
  CancelToken cancel_;
  std::atomic<bool> paused_{false};
  int64_t total_ = 0, done_ = 0, cached_ = 0;  // of the prompt; the engine's thread

  std::mutex mu_;
  std::condition_variable changed_;
  // Guarded by mu_:
  std::deque<proto::GenerateEvent> events_;
  bool ended_ = false;
  absl::Status status_;
};

// What callers and the engine's thread share; outlives the host if a caller is late to leave.
struct Shared {
  std::mutex mu;
  std::condition_variable wake, left;
  // Guarded by mu:
  std::vector<std::shared_ptr<Call>> inbox;
  bool woken = false, closed = false, stopping = false;
  int64_t calls = 0;  // Generate calls that have entered and not left
  proto::WorkerStatus status;

  void Wake() {
    const std::lock_guard<std::mutex> lock(mu);
    woken = true;
    wake.notify_all();
  }
  absl::Status Enter(const std::shared_ptr<Call>& call, int64_t requests_max) {
    const std::lock_guard<std::mutex> lock(mu);
    if (closed) return Stopping();
    if (calls >= requests_max) {
      return Error(absl::StatusCode::kUnavailable,
                   "the worker has {} requests, its limit; send it again later", calls);
    }
    ++calls;
    inbox.push_back(call);
    wake.notify_all();
    return absl::OkStatus();
  }
  void Leave() {
    const std::lock_guard<std::mutex> lock(mu);
    --calls;
    left.notify_all();
  }
};

void DescribeTiers(Mover& mover, proto::WorkerStatus* status) {
  const MoverStats stats = mover.stats();
  for (const auto& [tier, level] : {std::pair(mover.host(), Level::kHost), {mover.ssd(), Level::kSsd}}) {
    if (tier == nullptr) continue;
    const TierStats own = tier->Stats();
    if (level == Level::kHost) status->set_host_bytes(own.used_bytes);
    const MoverStats::OfLevel& counts = stats.level[static_cast<size_t>(level)];
    proto::TierStatus& to = *status->add_tiers();
    to.set_name(std::string(tier->Name()));
    to.set_capacity_bytes(own.capacity_bytes);
    to.set_used_bytes(own.used_bytes);
    to.set_values(own.values);
    to.set_evictions(own.evictions);
    to.set_hits(counts.hits);
    to.set_misses(counts.misses);
    to.set_hit_bytes(counts.hit_bytes);
    to.set_written_bytes(counts.written_bytes);
  }
  status->set_waiting_bytes(stats.waiting_bytes);
  status->set_dropped_full(stats.dropped_full);
  status->set_dropped_refused(stats.dropped_refused);
  status->set_late_reads(stats.late);
  status->set_damaged(stats.damaged);
  status->set_ssd_off(stats.disk_off);
}

proto::WorkerStatus StatusOf(Engine& engine) {
  const EngineStats stats = engine.stats();
  const TileArena& arena = engine.store().arena();
  proto::WorkerStatus status;
  status.set_running(stats.running);
  status.set_waiting(stats.waiting);
  status.set_arena_bytes(arena.capacity_tiles() * arena.tile_bytes());
  status.set_arena_used_bytes(arena.used_tiles() * arena.tile_bytes());
  status.set_arena_pinned_bytes((arena.capacity_tiles() - engine.store().available_tiles()) *
                                arena.tile_bytes());
  DescribeTiers(engine.mover(), &status);
  status.set_steps(stats.steps);
  status.set_preemptions(stats.preemptions);
  status.set_prefilled_tokens(stats.prefilled_tokens);
  status.set_generated_tokens(stats.generated_tokens);
  status.set_cached_tokens(stats.cached_tokens);
  status.set_prefill_tokens_per_second(stats.prefill_tokens_per_second);
  status.set_decode_tokens_per_second(stats.decode_tokens_per_second);
  return status;
}

WorkerFacts FactsOf(Engine& engine) {
  const TileArena& arena = engine.store().arena();
  const int64_t tiles = engine.store().shape().tiles();
  return {.model_hash = engine.model_hash(),
          .key_schema = engine.key_schema(),
          .arena_bytes = arena.capacity_tiles() * arena.tile_bytes(),
          .bytes_per_token = DivideUp(tiles * arena.tile_bytes(), kTileSlots),
          .window_tokens = engine.config().context};
}

// The engine's thread: takes what arrived, steps, hands on what has ended; sleeps when there is nothing to
// do.
class EngineLoop {
 public:
  EngineLoop(Engine& engine, Shared& shared) : engine_(engine), shared_(shared) {}

  void Run() {
    while (true) {
      const bool stopping = TakeArrived();
      if (stopping) break;
      const bool stepped = engine_.Step();
      HandOn();
      if (!stepped || std::chrono::steady_clock::now() - published_ >= kPublishEvery) Publish();
      if (!stepped) Sleep();
    }
    for (auto& [id, call] : calls_) call->Cancel();
    engine_.Step();  // lets go of them; nothing is computed
    for (auto& [id, call] : calls_) call->Finish(Stopping());
    Publish();
  }

 private:
  bool TakeArrived() {
    std::vector<std::shared_ptr<Call>> arrived;
    bool stopping;
    {
      const std::lock_guard<std::mutex> lock(shared_.mu);
      arrived.swap(shared_.inbox);
      stopping = shared_.stopping;
    }
    if (!arrived.empty()) published_ = {};  // that somebody came is told at once
    for (std::shared_ptr<Call>& call : arrived) {
      const absl::StatusOr<Engine::JobId> id =
          stopping ? absl::StatusOr<Engine::JobId>(Stopping()) : engine_.Submit(call->TakeRequest());
      if (id.ok()) {
        calls_.emplace(*id, std::move(call));
      } else {
        call->Finish(id.status());
      }
    }
    return stopping;
  }
  void HandOn() {
    for (auto entry = calls_.begin(); entry != calls_.end();) {
      const std::unique_ptr<Outcome> outcome = engine_.Take(entry->first);
      if (outcome == nullptr) {
        ++entry;
        continue;
      }
      Publish();  // before the caller goes on: what it held is free
      entry->second->Finish(*outcome);
      entry = calls_.erase(entry);
    }
  }
  void Publish() {
    published_ = std::chrono::steady_clock::now();
    proto::WorkerStatus status = StatusOf(engine_);
    const std::lock_guard<std::mutex> lock(shared_.mu);
    shared_.status = std::move(status);
  }
  void Sleep() {
    std::unique_lock<std::mutex> lock(shared_.mu);
    shared_.wake.wait_for(lock, kIdleMax,
                          [this] { return shared_.woken || shared_.stopping || !shared_.inbox.empty(); });
    shared_.woken = false;
  }

  Engine& engine_;
  Shared& shared_;
  std::unordered_map<Engine::JobId, std::shared_ptr<Call>> calls_;
  std::chrono::steady_clock::time_point published_;
};

class ThreadWorkerHost final : public WorkerHost {
 public:
  explicit ThreadWorkerHost(Options options) : options_(options) {}
  ~ThreadWorkerHost() override { Stop(); }

  absl::Status Begin(std::function<absl::StatusOr<std::unique_ptr<Engine>>()> make) {
    std::mutex mu;
    std::condition_variable made;
    std::optional<absl::Status> result;
    thread_ = std::thread([&, shared = shared_, make = std::move(make)] {
      absl::StatusOr<std::unique_ptr<Engine>> engine = make();
      if (engine.ok()) {
        facts_ = FactsOf(**engine);
        shared->status = StatusOf(**engine);
      }
      {
        const std::lock_guard<std::mutex> lock(mu);
        result = engine.status();
        made.notify_all();
      }
      // Nothing of Begin's is touched from here on.
      if (engine.ok()) EngineLoop(**engine, *shared).Run();
    });
    std::unique_lock<std::mutex> lock(mu);
    made.wait(lock, [&] { return result.has_value(); });
    return result.value_or(absl::OkStatus());
  }

  absl::Status Generate(const proto::GenerateRequest& request, const EventListener& listener,
                        const CancelToken& cancel) override {
    const std::shared_ptr<Shared> shared = shared_;
    PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
    PALIMPSEST_ASSIGN_OR_RETURN(Request asked, RequestOf(request));
    const auto call = std::make_shared<Call>(std::move(asked), options_.events_max);
    PALIMPSEST_RETURN_IF_ERROR(shared->Enter(call, options_.requests_max));
    absl::Status status = Listen(*call, *shared, listener, cancel);
    shared->Leave();
    return status;
  }

  proto::WorkerStatus Status() const override {
    const std::lock_guard<std::mutex> lock(shared_->mu);
    return shared_->status;
  }
  const WorkerFacts& facts() const override { return facts_; }

  bool Drain(Duration limit) override {
    std::unique_lock<std::mutex> lock(shared_->mu);
    shared_->closed = true;
    const TimePoint end = AddSaturated(RealClock().Now(), limit);
    return shared_->left.wait_until(lock, end, [this] { return shared_->calls == 0; });
  }

  void Stop() override {
    {
      const std::lock_guard<std::mutex> lock(shared_->mu);
      shared_->closed = shared_->stopping = true;
      shared_->wake.notify_all();
    }
    std::call_once(joined_, [this] {
      if (thread_.joinable()) thread_.join();
    });
  }

 private:
  static absl::Status Listen(Call& call, Shared& shared, const EventListener& listener,
                             const CancelToken& cancel) {
    while (true) {
      Call::Next next = call.Wait();
      if (next.let_go_on) shared.Wake();
      if (next.ended) return next.status;
      const bool cancelled = cancel.IsSet();
      if (!cancelled && (!next.event.has_value() || listener(*next.event))) continue;
      call.Cancel();
      shared.Wake();
      call.WaitForEnd();  // a step at most
      return cancelled ? absl::CancelledError("cancelled") : absl::CancelledError("nobody listens any more");
    }
  }

  const Options options_;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();  // with callers that have not left yet
  WorkerFacts facts_;
  std::once_flag joined_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerHost>> WorkerHost::Start(
    std::function<absl::StatusOr<std::unique_ptr<Engine>>()> make, Options options) {
  PALIMPSEST_CHECK(options.requests_max > 0 && options.events_max > 0, "a host of {} requests, {} events",
                   options.requests_max, options.events_max);
  auto host = std::make_unique<ThreadWorkerHost>(options);
  PALIMPSEST_RETURN_IF_ERROR(host->Begin(std::move(make)));
  return host;
}

}  // namespace palimpsest
