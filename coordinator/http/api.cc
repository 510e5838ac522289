#include "coordinator/http/api.h"

#include <algorithm>
#include <cctype>

#include "coordinator/http/api_error.h"
#include "coordinator/http/api_routes.h"

namespace palimpsest::http {

RequestRules RulesOf(const ApiParts& parts) {
  return {.limits = parts.config.limits,
          .generate = parts.config.generate,
          .model = parts.coordinator->model().name};
}

std::string HeaderOf(const Request& request, std::string_view name) {
  const auto found = request.headers.find(std::string(name));
  return found == request.headers.end() ? std::string() : found->second;
}

std::string MediaType(const Request& request) {
  std::string type = HeaderOf(request, "content-type");
  type.resize(std::min(type.find(';'), type.size()));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return type;
}

bool IsJson(const Request& request, Response& response) {
  if (MediaType(request) == "application/json") return true;
  SendHttpError(response, 415, "send the body as JSON, with the header Content-Type: application/json");
  return false;
}

Router MakePublicRouter(const ApiParts& parts) {
  Router router;
  AddCompletionRoutes(parts, router);
  AddDocumentRoutes(parts, router);
  AddToolRoutes(parts, router);
  // Says that the process lives and nothing else; /ready of the admin listener says more.
  router.Add(
      {"GET", "/health", Route::Body::kNone, Route::Access::kOpen, [](const Request&, Response& response) {
         response.Send(200, "application/json", R"({"status":"ok"})");
       }});
  router.Add({"GET", "/openapi.json", Route::Body::kNone, Route::Access::kOpen,
              [description = OpenApiJson(parts)](const Request&, Response& response) {
                response.Send(200, "application/json", description);
              }});
  return router;
}

}  // namespace palimpsest::http
