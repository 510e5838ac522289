// The parts of the public API's router, by topic; api.cc puts them together.
#pragma once

#include <string>
#include <string_view>

#include "coordinator/http/api.h"
#include "coordinator/http/openai_request.h"

namespace palimpsest::http {

// /v1/chat/completions /v1/completions
void AddCompletionRoutes(const ApiParts& parts, Router& router);
// /v1/documents[/{id}[/text]]
void AddDocumentRoutes(const ApiParts& parts, Router& router);
// /v1/models[/{id}] /version /tokenize /detokenize
void AddToolRoutes(const ApiParts& parts, Router& router);

RequestRules RulesOf(const ApiParts& parts);
// Is the body what `Content-Type: application/json` says? If not, the answer is sent. A page in a browser can
// post a form or text to any address without asking, but not this type: it keeps strangers' pages from using
// a server on this machine.
bool IsJson(const Request& request, Response& response);
// "text/plain" of "Text/Plain; charset=utf-8".
std::string MediaType(const Request& request);
std::string HeaderOf(const Request& request, std::string_view name);  // name in lower case; "" if absent

// The description of all of it, OpenAPI 3.0 as JSON: openapi.json with this server's limits where it says
// "x-limit": "limits.choices".
std::string OpenApiJson(const ApiParts& parts);
std::string_view OpenApiTemplate();

}  // namespace palimpsest::http
