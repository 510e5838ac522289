#include <boost/json.hpp>
#include <utility>

#include "coordinator/http/api.h"
#include "proto/base/clock.h"
#include "proto/base/json.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

namespace json = boost::json;

constexpr const char* kJson = "application/json";

json::array TiersJson(const proto::WorkerStatus& status) {
  json::array tiers;
  for (const proto::TierStatus& tier : status.tiers()) {
    tiers.push_back(json::object{{"name", tier.name()},
                                 {"capacity_bytes", tier.capacity_bytes()},
                                 {"used_bytes", tier.used_bytes()},
                                 {"values", tier.values()},
                                 {"hits", tier.hits()},
                                 {"misses", tier.misses()},
                                 {"hit_bytes", tier.hit_bytes()},
                                 {"written_bytes", tier.written_bytes()},
                                 {"evictions", tier.evictions()}});
  }
  return tiers;
}

json::array WorkersJson(Registry& registry, TimePoint now) {
  json::array workers;
  for (const Registry::Worker& worker : registry.Alive()) {
    const proto::WorkerStatus& status = worker.status;
    workers.push_back(json::object{{"incarnation", worker.incarnation},
                                   {"address", worker.hello.address()},
                                   {"process_id", worker.hello.process_id()},
                                   {"running", status.running()},
                                   {"waiting", status.waiting()},
                                   {"arena_bytes", status.arena_bytes()},
                                   {"arena_used_bytes", status.arena_used_bytes()},
                                   {"arena_pinned_bytes", status.arena_pinned_bytes()},
                                   {"host_bytes", status.host_bytes()},
                                   {"tiers", TiersJson(status)},
                                   {"ssd_waiting_bytes", status.waiting_bytes()},
                                   {"ssd_off", status.ssd_off()},
                                   {"ssd_dropped", status.dropped_full() + status.dropped_refused()},
                                   {"ssd_late_reads", status.late_reads()},
                                   {"damaged", status.damaged()},
                                   {"prefilled_tokens", status.prefilled_tokens()},
                                   {"generated_tokens", status.generated_tokens()},
                                   {"cached_tokens", status.cached_tokens()},
                                   {"seconds_since_beat", Seconds(now - worker.heard)}});
  }
  return workers;
}

json::object StatusJson(Coordinator& coordinator, TimePoint started) {
  const TimePoint now = RealClock().Now();
  const CoordinatorStatus status = coordinator.Status();
  Registry& registry = coordinator.registry();
  const ServedModel& model = coordinator.model();
  const absl::Status ready = coordinator.Ready();
  json::object answer;
  answer["version"] = registry.identity().version;
  answer["cluster"] = registry.identity().cluster_id;
  answer["model"] =
      json::object{{"name", model.name}, {"hash", model.hash}, {"window_tokens", model.window_tokens}};
  answer["ready"] = ready.ok();
  if (!ready.ok()) answer["not_ready_because"] = Message(ready);
  answer["draining"] = status.draining;
  answer["uptime_seconds"] = Seconds(now - started);
  answer["requests"] = json::object{
      {"running", status.running}, {"waiting", status.waiting}, {"waiting_tokens", status.waiting_tokens}};
  answer["documents"] = json::object{{"ingesting", status.ingesting}};
  answer["workers"] = WorkersJson(registry, now);
  answer["worker_joins"] = registry.joins();
  return answer;
}

}  // namespace

Router MakeAdminRouter(const ApiParts& parts) {
  Router router;
  const auto get = [&](const char* path, Handler handler) {
    router.Add({"GET", path, Route::Body::kNone, Route::Access::kOpen, std::move(handler)});
  };
  Coordinator* const coordinator = parts.coordinator;
  get("/health", [](const Request&, Response& response) { response.Send(200, kJson, R"({"status":"ok"})"); });
  get("/ready", [coordinator](const Request&, Response& response) {
    const absl::Status ready = coordinator->Ready();
    if (ready.ok()) return response.Send(200, kJson, R"({"status":"ready"})");
    response.Send(503, kJson, ErrorBody(503, Message(ready), "not_ready"),
                  {{"retry-after", std::to_string(RetryAfter(ready).value_or(1))}});
  });
  get("/status", [coordinator, started = RealClock().Now()](const Request&, Response& response) {
    response.Send(200, kJson, PrintJson(StatusJson(*coordinator, started)) + "\n");
  });
  if (Metrics* const metrics = parts.metrics; metrics != nullptr) {
    get("/metrics", [metrics](const Request&, Response& response) {
      response.Send(200, "text/plain; version=0.0.4; charset=utf-8", metrics->Text());
    });
  }
  return router;
}

}  // namespace palimpsest::http
