#include "apps/serving/worker_process.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "apps/model.h"
#include "coordinator/registry.h"
#include "palimpsest_version.h"
#include "proto/base/log.h"
#include "proto/base/status.h"
#include "worker/join_client.h"
#include "worker/worker_host.h"
#include "worker/worker_service.h"

namespace palimpsest {
namespace {

constexpr auto kLook = std::chrono::milliseconds(20);
constexpr auto kLeaveLimit = std::chrono::seconds(1);

proto::Hello HelloOf(const Config& config, const WorkerFacts& facts, const std::string& address) {
  proto::Hello hello;
  hello.set_version(PALIMPSEST_VERSION);
  hello.set_protocol(kWorkerProtocol);
  hello.set_cluster_id(config.cluster.id);
  hello.set_model_hash(facts.model_hash);
  hello.set_key_schema(facts.key_schema);
  hello.set_address(address);
  hello.set_arena_bytes(facts.arena_bytes);
  hello.set_bytes_per_token(facts.bytes_per_token);
  hello.set_window_tokens(facts.window_tokens);
  hello.set_process_id(::getpid());
  return hello;
}

}  // namespace

ClusterTls ClusterTlsOf(const Config& config) {
  return {.certificate_file = config.cluster.tls_certificate,
          .key_file = config.cluster.tls_key,
          .ca_file = config.cluster.tls_ca};
}

absl::Status RunWorker(const Config& config, const CancelToken& stop) {
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Open(config));
  // All that a coordinator with these settings lets in, and what it ingests beside: what a worker refuses is
  // tried again for limits.waiting_seconds.
  constexpr int64_t kIngestsMax = 32;
  WorkerHost::Options limits;
  limits.requests_max = std::max(limits.requests_max, config.limits.running + kIngestsMax);
  PALIMPSEST_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerHost> host,
                              WorkerHost::Start([&model] { return model->MakeServingEngine(); }, limits));
  const ClusterTls tls = ClusterTlsOf(config);
  PALIMPSEST_ASSIGN_OR_RETURN(
      const std::unique_ptr<WorkerService> service,
      WorkerService::Start(
          *host, {.listen = config.cluster.listen, .tls = tls, .requests_max = limits.requests_max}));
  PALIMPSEST_ASSIGN_OR_RETURN(
      const std::unique_ptr<JoinClient> join,
      JoinClient::Start(
          {.coordinator = config.cluster.coordinator,
           .tls = tls,
           .hello = HelloOf(config, host->facts(), service->address()),
           .on_incarnation = [&](uint64_t incarnation) { service->SetIncarnation(incarnation); },
           .status = [&] { return host->Status(); },
           .seed = static_cast<uint64_t>(::getpid())}));
  PALIMPSEST_LOG(kInfo, "worker serves address {} model {}", LogName(service->address()),
                 LogName(model->file().path()));
  absl::Status ended;
  while (!stop.IsSet() && ended.ok()) {
    ended = join->Ended().value_or(absl::OkStatus());
    std::this_thread::sleep_for(kLook);
  }
  if (ended.ok()) {
    join->Leave(kLeaveLimit);
    const bool all = host->Drain(std::chrono::seconds(config.server.drain_seconds));
    PALIMPSEST_LOG(kInfo, "worker stops all_finished {}", all);
  }
  join->Stop();
  service->Stop();
  host->Stop();
  return ended;
}

}  // namespace palimpsest
