#include "worker/join_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "proto/base/log.h"
#include "proto/base/rng.h"
#include "proto/base/status.h"
#include "proto/coordinator.grpc.pb.h"

namespace palimpsest {
namespace {

using std::chrono::milliseconds;

constexpr auto kTick = milliseconds(25);
constexpr auto kWelcomeLimit = std::chrono::seconds(5);
constexpr Duration kBackoffMin = milliseconds(100), kBackoffMax = std::chrono::seconds(2);
constexpr int64_t kLeaseMillisMin = 100, kLeaseMillisMax = 3'600'000;

bool EndsForGood(const absl::Status& status) {
  return status.code() == absl::StatusCode::kFailedPrecondition ||
         status.code() == absl::StatusCode::kInvalidArgument ||
         status.code() == absl::StatusCode::kUnimplemented;
}

// One stream from Hello to its end. All on one thread: operations are begun, and their ends come out of a
// queue with a time limit, so that nothing a peer does or leaves undone holds up the look at the clock.
class JoinStream {
 public:
  JoinStream(proto::CoordinatorService::Stub& stub, const JoinClient::Options& options)
      : options_(options),
        started_(options.clock->Now()),
        stream_(stub.PrepareAsyncJoin(&context_, &queue_)) {
    stream_->StartCall(Tag(kStart));
    pending_[kStart] = true;
  }
  ~JoinStream() {
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // Takes what has come within a tick, says what is due. False: the stream is over.
  bool Step(bool leave) {
    void* tag = nullptr;
    bool ok = false;
    const gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(kTick.count(), GPR_TIMESPAN));
    const bool got = queue_.AsyncNext(&tag, &ok, until) == grpc::CompletionQueue::GOT_EVENT;
    // Before the event: after a stop (SIGSTOP, a suspended machine) old messages must not renew the lease.
    CheckSilence();
    if (got) OnEvent(*static_cast<Operation*>(tag), ok);
    if (joined() && !over_ && !pending_[kWrite] && (Now() >= next_beat_ || (leave && !said_leave_)))
      WriteBeat(leave);
    return !(over_ && !pending_[kStart] && !pending_[kRead] && !pending_[kWrite]);
  }
  void Cancel() { context_.TryCancel(); }

  // Once over.
  absl::Status Finish() {
    grpc::Status status;
    stream_->Finish(&status, Tag(kFinish));
    void* tag;
    bool ok;
    queue_.Next(&tag, &ok);
    if (!why_.ok()) return why_;
    const absl::Status ended = FromRpc(status, context_, options_.coordinator);
    return ended.ok() ? Error(absl::StatusCode::kUnavailable, "{}: ended the stream", options_.coordinator)
                      : ended;
  }

  bool joined() const { return welcome_.incarnation() != 0; }
  bool said_leave() const { return said_leave_ && !pending_[kWrite]; }

 private:
  enum Operation : uint8_t { kStart, kRead, kWrite, kFinish };
  void* Tag(Operation operation) { return &tags_[operation]; }
  TimePoint Now() const { return options_.clock->Now(); }
  Duration lease() const { return milliseconds(welcome_.lease_millis()); }

  void GiveUp(absl::Status why) {
    if (why_.ok()) why_ = std::move(why);
    over_ = true;
    options_.on_incarnation(0);
    context_.TryCancel();
  }

  void CheckSilence() {
    if (over_) return;
    if (joined() ? Now() - heard_ >= lease() / 2 : Now() - started_ >= kWelcomeLimit) {
      const Duration silent = Now() - (joined() ? heard_ : started_);
      GiveUp(Error(absl::StatusCode::kUnavailable, "{}: nothing heard for {:.1f} s", options_.coordinator,
                   Seconds(silent)));
    }
  }

  void OnEvent(Operation operation, bool ok) {
    pending_[operation] = false;
    if (!ok) {
      over_ = true;
      options_.on_incarnation(0);
      if (operation == kWrite) context_.TryCancel();  // ends the read too
      return;
    }
    if (over_) return;
    if (operation == kStart) {
      proto::WorkerMessage hello;
      *hello.mutable_hello() = options_.hello;
      Write(hello);
      Read();
    } else if (operation == kRead) {
      OnMessage();
    }
  }

  void OnMessage() {
    heard_ = Now();
    if (incoming_.has_welcome() && !joined()) {
      const proto::Welcome& welcome = incoming_.welcome();
      if (welcome.incarnation() == 0 || welcome.lease_millis() < kLeaseMillisMin ||
          welcome.lease_millis() > kLeaseMillisMax) {
        return GiveUp(
            InvalidArgument("{}: welcomed as incarnation {} with a lease of {} ms; {} to {} ms is possible",
                            options_.coordinator, welcome.incarnation(), welcome.lease_millis(),
                            kLeaseMillisMin, kLeaseMillisMax));
      }
      welcome_ = welcome;
      next_beat_ = heard_;
      options_.on_incarnation(welcome.incarnation());
      PALIMPSEST_LOG(kInfo, "joined coordinator {} incarnation {} lease_seconds {:.1f}",
                     LogName(options_.coordinator), welcome.incarnation(), Seconds(lease()));
    } else if (!incoming_.has_beat() || !joined()) {
      return GiveUp(InvalidArgument("{}: sent what nobody expects in a Join", options_.coordinator));
    }
    Read();
  }

  void WriteBeat(bool leave) {
    proto::WorkerMessage message;
    *message.mutable_beat()->mutable_status() = options_.status();
    message.mutable_beat()->mutable_status()->set_incarnation(welcome_.incarnation());
    message.mutable_beat()->set_leaving(leave);
    said_leave_ = leave;
    next_beat_ = Now() + lease() / 3;
    Write(message);
  }

  void Read() {
    pending_[kRead] = true;
    incoming_.Clear();
    stream_->Read(&incoming_, Tag(kRead));
  }
  void Write(const proto::WorkerMessage& message) {
    pending_[kWrite] = true;
    stream_->Write(message, Tag(kWrite));
  }

  const JoinClient::Options& options_;
  const TimePoint started_;
  std::array<Operation, 4> tags_ = {kStart, kRead, kWrite, kFinish};
  std::array<bool, 4> pending_{};
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<proto::WorkerMessage, proto::CoordinatorMessage>> stream_;
  proto::CoordinatorMessage incoming_;
  proto::Welcome welcome_;  // incarnation 0: not yet
  TimePoint heard_, next_beat_;
  bool over_ = false, said_leave_ = false;
  absl::Status why_;  // that we ended it
};

class GrpcJoinClient final : public JoinClient {
 public:
  GrpcJoinClient(Options options, const std::shared_ptr<grpc::Channel>& channel)
      : options_(std::move(options)),
        stub_(proto::CoordinatorService::NewStub(channel)),
        jitter_(Rng(options_.seed)),
        thread_([this] { Run(); }) {}
  ~GrpcJoinClient() override { Stop(); }

  std::optional<absl::Status> Ended() const override {
    const std::lock_guard lock(mu_);
    return ended_;
  }

  bool Leave(Duration limit) override {
    std::unique_lock lock(mu_);
    leave_ = true;
    changed_.wait_for(lock, limit, [this] { return left_ || stop_ || ended_.has_value(); });
    return left_;
  }

  void Stop() override {
    {
      const std::lock_guard lock(mu_);
      stop_ = true;
    }
    changed_.notify_all();
    const std::lock_guard lock(join_mu_);
    if (thread_.joinable()) thread_.join();
  }

 private:
  bool Stopping() const {
    const std::lock_guard lock(mu_);
    return stop_;
  }

  // One stream; its end.
  absl::Status JoinOnce(bool& was_joined) {
    JoinStream stream(*stub_, options_);
    bool leave = false, cancelled = false;
    while (stream.Step(leave)) {
      was_joined = stream.joined();
      bool stop;
      {
        const std::lock_guard lock(mu_);
        leave = leave_;
        left_ = stream.said_leave();
        stop = stop_;
      }
      if (stream.said_leave()) changed_.notify_all();
      if (stop && !cancelled) {
        stream.Cancel();
        cancelled = true;
      }
    }
    options_.on_incarnation(0);
    return stream.Finish();
  }

  void Run() {
    Duration backoff = kBackoffMin;
    while (!Stopping()) {
      bool was_joined = false;
      const absl::Status status = JoinOnce(was_joined);
      if (Stopping()) return;
      if (EndsForGood(status)) return End(status);
      if (was_joined) backoff = kBackoffMin;
      const auto wait = std::chrono::duration_cast<Duration>(backoff * (0.5 + 0.5 * jitter_.Uniform()));
      if (was_joined || backoff == kBackoffMax) {  // the first misses of a start are not worth a line
        PALIMPSEST_LOG(kWarn, "not in the cluster coordinator {} retry_seconds {:.1f} status {}",
                       LogName(options_.coordinator), Seconds(wait), status);
      }
      backoff = std::min(2 * backoff, kBackoffMax);
      std::unique_lock lock(mu_);
      changed_.wait_for(lock, wait, [this] { return stop_; });
    }
  }

  void End(absl::Status status) {
    {
      const std::lock_guard lock(mu_);
      ended_ = std::move(status);
    }
    changed_.notify_all();
  }

  const Options options_;
  const std::unique_ptr<proto::CoordinatorService::Stub> stub_;
  RngSequence jitter_;  // of the thread
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::optional<absl::Status> ended_;  // guarded by mu_, as all below
  bool stop_ = false;
  bool leave_ = false, left_ = false;  // asked, said
  std::mutex join_mu_;                 // who waits for the thread
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<JoinClient>> JoinClient::Start(Options options) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto channel,
                              MakeRpcChannel(options.coordinator, "cluster.coordinator", options.tls));
  return std::make_unique<GrpcJoinClient>(std::move(options), channel);
}

}  // namespace palimpsest
