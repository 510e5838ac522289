// A worker over gRPC. Each call has a completion queue of its own, which the caller's thread waits on: so it
// sees the token of the caller within kCancelPoll without a thread to watch it.
#include <grpcpp/grpcpp.h>

#include "coordinator/worker_link.h"
#include "proto/base/status.h"
#include "proto/worker.grpc.pb.h"

namespace palimpsest {
namespace {

constexpr int64_t kCancelPollMillis = 10;

// One server stream, read event by event.
class EventCall {
 public:
  EventCall(proto::WorkerService::Stub& stub, const proto::GenerateRequest& request) {
    reader_ = stub.PrepareAsyncGenerate(&context_, request, &queue_);
    reader_->StartCall(this);
  }
  ~EventCall() {
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // Waits for what was begun last; true if it went well. Cancels the call once the token is set.
  bool Wait(const CancelToken& cancel) {
    while (true) {
      void* tag;
      bool ok = false;
      const gpr_timespec until =
          gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(kCancelPollMillis, GPR_TIMESPAN));
      const auto got = queue_.AsyncNext(&tag, &ok, until);
      if (got == grpc::CompletionQueue::GOT_EVENT) return ok;
      if (cancel.IsSet()) context_.TryCancel();
    }
  }
  bool Read(proto::GenerateEvent& event, const CancelToken& cancel) {
    reader_->Read(&event, this);
    return Wait(cancel);
  }
  void Cancel() { context_.TryCancel(); }

  absl::Status Finish(std::string_view peer) {
    grpc::Status status;
    reader_->Finish(&status, this);
    Wait(CancelToken::Never());  // bounded: the stream has ended or was cancelled
    return FromRpc(status, context_, peer);
  }

 private:
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReader<proto::GenerateEvent>> reader_;
};

class GrpcWorkerLink final : public WorkerLink {
 public:
  GrpcWorkerLink(std::string address, const std::shared_ptr<grpc::Channel>& channel)
      : address_(std::move(address)), stub_(proto::WorkerService::NewStub(channel)) {}

  absl::Status Generate(const proto::GenerateRequest& request, const Listener& listener,
                        const CancelToken& cancel) override {
    PALIMPSEST_RETURN_IF_ERROR(cancel.Check());
    const auto bytes = static_cast<int64_t>(request.ByteSizeLong());
    if (bytes > kRpcMessageBytesMax) {
      return ResourceExhausted("the prompt takes {} bytes as a message, {} is the most that goes to a worker",
                               bytes, kRpcMessageBytesMax);
    }
    EventCall call(*stub_, request);
    bool done = false, listening = true;
    proto::GenerateEvent event;
    if (call.Wait(cancel)) {
      while (call.Read(event, cancel)) {
        if (!listening) continue;  // reads to the end of the cancelled call
        done = done || event.has_done();
        listening = listener(event) && !cancel.IsSet();
        if (!listening && !done) call.Cancel();
      }
    }
    absl::Status status = call.Finish(address_);
    if (done && status.ok()) return status;
    if (!listening || cancel.IsSet()) return absl::CancelledError("the request was cancelled");
    if (status.ok()) {
      return Error(absl::StatusCode::kUnavailable, "{}: ended without the last event", address_);
    }
    return status;
  }

  const std::string& address() const override { return address_; }

 private:
  const std::string address_;
  const std::unique_ptr<proto::WorkerService::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerLink>> MakeGrpcWorkerLink(const std::string& address,
                                                               const ClusterTls& tls) {
  PALIMPSEST_ASSIGN_OR_RETURN(const auto channel, MakeRpcChannel(address, "the worker's address", tls));
  return std::make_unique<GrpcWorkerLink>(address, channel);
}

}  // namespace palimpsest
