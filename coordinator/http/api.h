// The public API: what the routes of interfaces.md 1 do. Handlers parse and check, call the coordinator, and
// write.
//
//   /v1/models  /v1/chat/completions  /v1/completions  /v1/documents[/{id}[/text]]  /tokenize  /detokenize
//   /version /health /openapi.json
// and of the admin listener: /metrics  /ready  /status  /health
#pragma once

#include "coordinator/coordinator.h"
#include "coordinator/http/http.h"
#include "proto/base/config.h"
#include "proto/base/metrics.h"

namespace palimpsest::http {

struct ApiParts {
  Coordinator* coordinator;  // all outlive the router
  Metrics* metrics;
  Config config;
};
Router MakePublicRouter(const ApiParts& parts);
Router MakeAdminRouter(const ApiParts& parts);

}  // namespace palimpsest::http
