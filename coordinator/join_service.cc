#include "coordinator/join_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"
#include "proto/coordinator.grpc.pb.h"

namespace palimpsest {
namespace {

using ServerStream = grpc::ServerReaderWriter<proto::CoordinatorMessage, proto::WorkerMessage>;

// Text of a Hello comes from another machine: it goes into errors and the status page.
constexpr size_t kHelloTextBytesMax = 4096;

absl::Status CheckHello(const proto::Hello& hello) {
  for (const std::string* text :
       {&hello.version(), &hello.cluster_id(), &hello.model_hash(), &hello.key_schema()}) {
    if (text->size() > kHelloTextBytesMax) {
      return InvalidArgument("a Hello with a text of {} bytes, {} is the most", text->size(),
                             kHelloTextBytesMax);
    }
  }
  PALIMPSEST_ASSIGN_OR_RETURN(const RpcAddress address,
                              ParseRpcAddress(hello.address(), "the worker's address"));
  const bool reachable =
      address.unix_socket() || (address.port != 0 && address.host != "0.0.0.0" && address.host != "::");
  if (!reachable) {
    return InvalidArgument(
        "a worker cannot be reached at {}: set its cluster.listen to the address that this coordinator "
        "connects to",
        Quoted(hello.address(), 256));
  }
  return absl::OkStatus();
}

class GrpcJoinService final : public JoinService, private proto::CoordinatorService::Service {
 public:
  GrpcJoinService(Registry& registry, Options options)
      : registry_(registry),
        options_(std::move(options)),
        tick_(std::min<Duration>(std::chrono::seconds(1), registry.identity().lease / 6)) {}
  ~GrpcJoinService() override { Stop(); }

  absl::Status Listen() {
    PALIMPSEST_ASSIGN_OR_RETURN(
        RpcServer started,
        StartRpcServer(*this, options_.listen, "cluster.coordinator", options_.tls, kWorkersMax));
    server_ = std::move(started.server);
    address_ = std::move(started.address);
    watcher_ = std::thread([this] { Watch(); });
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

  void Stop() override {
    const std::lock_guard stop_lock(stop_mu_);
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());  // cancels the streams at once, and waits for them
    {
      const std::lock_guard lock(mu_);
      stopping_ = true;
    }
    changed_.notify_all();
    watcher_.join();
    server_.reset();
  }

 private:
  struct Stream {
    grpc::ServerContext* context;
    TimePoint heard;  // guarded by mu_
  };
  // A stream in the list while it is served.
  class Listed {
   public:
    Listed(GrpcJoinService& service, grpc::ServerContext* context) : service_(service) {
      const std::lock_guard lock(service_.mu_);
      at_ = service_.streams_.insert(service_.streams_.end(), {context, RealClock().Now()});
      count_ = static_cast<int64_t>(service_.streams_.size());
    }
    ~Listed() {
      const std::lock_guard lock(service_.mu_);
      service_.streams_.erase(at_);
    }
    void Heard() {
      const std::lock_guard lock(service_.mu_);
      at_->heard = RealClock().Now();
    }
    int64_t count() const { return count_; }

   private:
    GrpcJoinService& service_;
    std::list<Stream>::iterator at_;
    int64_t count_;  // of streams, with this one
  };

  grpc::Status Join(grpc::ServerContext* context, ServerStream* stream) override {
    return ToRpc(Serve(*context, *stream), *context);
  }

  absl::Status Serve(grpc::ServerContext& context, ServerStream& stream) {
    Listed listed(*this, &context);
    if (listed.count() > kWorkersMax)
      return ResourceExhausted("{} workers are joined, the most there can be", kWorkersMax);
    proto::WorkerMessage message;
    if (!stream.Read(&message)) return absl::CancelledError("ended before it joined");
    if (!message.has_hello()) return InvalidArgument("the first message of a Join is a Hello");
    const proto::Hello hello = message.hello();
    const absl::StatusOr<proto::Welcome> welcome = Admit(hello);
    if (!welcome.ok()) {
      PALIMPSEST_LOG(kWarn, "worker refused address {} status {}", LogName(hello.address()),
                     welcome.status());
      return welcome.status();
    }
    absl::Status ended = Follow(stream, *welcome, hello, listed);
    registry_.Leave(welcome->incarnation());
    if (ended.code() != absl::StatusCode::kCancelled) {
      PALIMPSEST_LOG(kWarn, "worker sent away incarnation {} address {} status {}", welcome->incarnation(),
                     LogName(hello.address()), ended);
    }
    return ended;
  }

  absl::StatusOr<proto::Welcome> Admit(const proto::Hello& hello) {
    PALIMPSEST_RETURN_IF_ERROR(CheckHello(hello));
    PALIMPSEST_ASSIGN_OR_RETURN(std::unique_ptr<WorkerLink> link,
                                MakeGrpcWorkerLink(hello.address(), options_.tls));
    return registry_.Join(hello, std::move(link));
  }

  // From the Welcome to the end of the stream.
  absl::Status Follow(ServerStream& stream, const proto::Welcome& welcome, const proto::Hello& hello,
                      Listed& listed) {
    proto::CoordinatorMessage answer;
    *answer.mutable_welcome() = welcome;
    if (!stream.Write(answer)) return absl::CancelledError("the stream broke");
    if (options_.on_join) options_.on_join(hello);
    proto::WorkerMessage message;
    while (stream.Read(&message)) {
      if (!message.has_beat()) return InvalidArgument("after its Hello a worker sends Beats");
      if (!registry_.Beat(welcome.incarnation(), message.beat())) {
        return absl::AbortedError("its lease ran out; join again");
      }
      listed.Heard();
      answer.mutable_beat();
      if (!stream.Write(answer)) break;
    }
    return absl::CancelledError("the stream broke");
  }

  // Ends the streams of those who are silent: their Read would wait for ever.
  void Watch() {
    std::unique_lock lock(mu_);
    while (!stopping_) {
      changed_.wait_for(lock, tick_, [this] { return stopping_; });
      const TimePoint oldest = RealClock().Now() - registry_.identity().lease;
      for (const Stream& stream : streams_) {
        if (stream.heard < oldest) stream.context->TryCancel();
      }
      lock.unlock();
      registry_.Expire();
      lock.lock();
    }
  }

  Registry& registry_;
  const Options options_;
  const Duration tick_;
  std::string address_;
  std::mutex stop_mu_;
  std::unique_ptr<grpc::Server> server_;  // guarded by stop_mu_ once it listens
  std::thread watcher_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::list<Stream> streams_;  // guarded by mu_, as below
  bool stopping_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<JoinService>> JoinService::Start(Registry& registry, Options options) {
  auto service = std::make_unique<GrpcJoinService>(registry, std::move(options));
  PALIMPSEST_RETURN_IF_ERROR(service->Listen());
  return service;
}

}  // namespace palimpsest
