#include "worker/worker_service.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "proto/base/status.h"
#include "proto/worker.grpc.pb.h"

namespace palimpsest {
namespace {

using std::chrono::milliseconds;

constexpr auto kCancelPoll = milliseconds(10);
// For the Welcome to arrive that the coordinator sent before this request; both travel at once.
constexpr auto kIncarnationWait = milliseconds(1000);
// Calls beside requests: GetStatus.
constexpr int64_t kSpareCalls = 8;

// The calls in progress, and the thread that sees which of them nobody waits for any more: gRPC's synchronous
// calls are asked, they do not tell.
class Calls {
 public:
  struct Call {
    Call(grpc::ServerContext& its_context, uint64_t its_incarnation)
        : context(its_context), incarnation(its_incarnation) {}
    grpc::ServerContext& context;
    const uint64_t incarnation;  // under which it was taken
    CancelToken cancel;
    bool fenced = false;  // guarded by Calls::mu_
  };

  Calls() : watcher_([this] { Watch(); }) {}
  ~Calls() {
    {
      const std::lock_guard lock(mu_);
      stopping_ = true;
    }
    changed_.notify_all();
    watcher_.join();
  }

  void SetIncarnation(uint64_t incarnation) {
    {
      const std::lock_guard lock(mu_);
      incarnation_ = incarnation;
      for (Call* const call : calls_) {
        if (call->incarnation == incarnation) continue;
        call->fenced = true;
        call->cancel.Set();
      }
    }
    changed_.notify_all();
  }
  // Nothing begins any more, what runs ends.
  void Close() {
    {
      const std::lock_guard lock(mu_);
      closed_ = true;
    }
    SetIncarnation(0);
  }
  uint64_t incarnation() const {
    const std::lock_guard lock(mu_);
    return incarnation_;
  }

  // `wanted` 0: whatever the incarnation is.
  absl::StatusOr<std::unique_ptr<Call>> Begin(grpc::ServerContext& context, uint64_t wanted) {
    std::unique_lock lock(mu_);
    const auto decided = [&] {
      return closed_ || (incarnation_ != 0 && (wanted == 0 || wanted <= incarnation_));
    };
    changed_.wait_for(lock, kIncarnationWait, decided);
    if (incarnation_ == 0 || closed_) {
      return Error(absl::StatusCode::kUnavailable,
                   "this worker has not joined a coordinator; ask again later");
    }
    if (wanted != 0 && wanted != incarnation_) {
      return FailedPrecondition("the request is for incarnation {} of this worker, which is at {}", wanted,
                                incarnation_);
    }
    auto call = std::make_unique<Call>(context, incarnation_);
    calls_.push_back(call.get());
    changed_.notify_all();
    return call;
  }

  // What the call's status is, given what the host made of it.
  absl::Status End(Call& call, absl::Status status) {
    const std::lock_guard lock(mu_);
    calls_.remove(&call);
    if (status.code() == absl::StatusCode::kCancelled && call.fenced) {
      return Error(absl::StatusCode::kUnavailable, "this worker lost its place in the cluster");
    }
    return status;
  }

 private:
  void Watch() {
    std::unique_lock lock(mu_);
    while (!stopping_) {
      if (calls_.empty()) {
        changed_.wait(lock);
        continue;
      }
      for (Call* const call : calls_) {
        if (call->context.IsCancelled()) call->cancel.Set();
      }
      changed_.wait_for(lock, kCancelPoll, [this] { return stopping_; });
    }
  }

  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::list<Call*> calls_;    // guarded by mu_, as all below; each from Begin to End
  uint64_t incarnation_ = 0;  // 0: in no cluster
  bool closed_ = false;
  bool stopping_ = false;  // the watcher
  std::thread watcher_;
};

class GrpcWorkerService final : public WorkerService, private proto::WorkerService::Service {
 public:
  explicit GrpcWorkerService(WorkerHost& host) : host_(host) {}
  ~GrpcWorkerService() override { Stop(); }

  absl::Status Listen(const Options& options) {
    PALIMPSEST_ASSIGN_OR_RETURN(RpcServer started,
                                StartRpcServer(*this, options.listen, "cluster.listen", options.tls,
                                               options.requests_max + kSpareCalls));
    server_ = std::move(started.server);
    address_ = std::move(started.address);
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }
  void SetIncarnation(uint64_t incarnation) override { calls_.SetIncarnation(incarnation); }

  void Stop() override {
    const std::lock_guard lock(stop_mu_);
    if (server_ == nullptr) return;
    calls_.Close();
    server_->Shutdown(std::chrono::system_clock::now());  // cancels what is left at once, and waits for it
    server_.reset();
  }

 private:
  grpc::Status Generate(grpc::ServerContext* context, const proto::GenerateRequest* request,
                        grpc::ServerWriter<proto::GenerateEvent>* writer) override {
    absl::StatusOr<std::unique_ptr<Calls::Call>> call = calls_.Begin(*context, request->incarnation());
    if (!call.ok()) return ToRpc(call.status(), *context);
    const auto write = [&](const proto::GenerateEvent& event) { return writer->Write(event); };
    absl::Status status = host_.Generate(*request, write, (*call)->cancel);
    return ToRpc(calls_.End(**call, std::move(status)), *context);
  }

  grpc::Status GetStatus(grpc::ServerContext*, const proto::WorkerStatusRequest*,
                         proto::WorkerStatus* status) override {
    *status = host_.Status();
    status->set_incarnation(calls_.incarnation());
    return grpc::Status::OK;
  }

  WorkerHost& host_;
  Calls calls_;
  std::string address_;
  std::mutex stop_mu_;
  std::unique_ptr<grpc::Server> server_;  // guarded by stop_mu_ once it listens
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerService>> WorkerService::Start(WorkerHost& host,
                                                                    const Options& options) {
  auto service = std::make_unique<GrpcWorkerService>(host);
  PALIMPSEST_RETURN_IF_ERROR(service->Listen(options));
  return service;
}

}  // namespace palimpsest
