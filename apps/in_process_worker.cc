#include "apps/in_process_worker.h"

#include <unistd.h>

#include <memory>
#include <string>

#include "proto/base/status.h"

namespace palimpsest {
namespace {

class InProcessLink final : public WorkerLink {
 public:
  explicit InProcessLink(WorkerHost& host) : host_(host) {}
  absl::Status Generate(const proto::GenerateRequest& request, const Listener& listener,
                        const CancelToken& cancel) override {
    return host_.Generate(request, listener, cancel);
  }
  const std::string& address() const override { return address_; }

 private:
  WorkerHost& host_;
  const std::string address_ = "in this process";
};

}  // namespace

absl::Status JoinInProcess(WorkerHost& host, Registry& registry) {
  const WorkerFacts& facts = host.facts();
  proto::Hello hello;
  hello.set_version(registry.identity().version);
  hello.set_protocol(kWorkerProtocol);
  hello.set_cluster_id(registry.identity().cluster_id);
  hello.set_model_hash(facts.model_hash);
  hello.set_key_schema(facts.key_schema);
  hello.set_arena_bytes(facts.arena_bytes);
  hello.set_bytes_per_token(facts.bytes_per_token);
  hello.set_window_tokens(facts.window_tokens);
  hello.set_process_id(::getpid());
  return registry.Join(hello, std::make_shared<InProcessLink>(host)).status();
}

}  // namespace palimpsest
