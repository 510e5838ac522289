#include "coordinator/http/request_check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <strings.h>

#include "coordinator/http/target.h"
#include "proto/base/quote.h"
#include "proto/base/sizes.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

std::string Join(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : ", ") + word;
  return joined;
}

Refusal NoRoute(const Router::Match& match, bool options_method) {
  if (match.allowed.empty())
    return {404, "there is no such route; GET /openapi.json lists them", "not_found", {}};
  std::vector<std::string> allowed = match.allowed;
  allowed.push_back("OPTIONS");
  if (options_method) return {204, "", "", {{"allow", Join(allowed)}}};
  return {405,
          fmt::format("this route takes {}", Join(allowed)),
          "method_not_allowed",
          {{"allow", Join(allowed)}}};
}

Refusal CheckKey(ApiKeys& keys, const Headers& headers, std::unique_ptr<ApiKeys::Grant>& grant) {
  const Headers challenge = {{"www-authenticate", "Bearer"}};
  const auto header = headers.find("authorization");
  if (header == headers.end()) {
    return {401, "no API key: send it as 'Authorization: Bearer KEY'", "missing_api_key", challenge};
  }
  auto checked = keys.Check(header->second);
  if (checked.ok()) {
    grant = *std::move(checked);
    return {};
  }
  if (checked.status().code() == absl::StatusCode::kPermissionDenied) {
    return {401, Message(checked.status()), "invalid_api_key", challenge};
  }
  return RefusalOf(checked.status());
}

// "localhost", "127.0.0.1:8080", "[::1]:8080": names that no one else can give to a machine of theirs.
// Or the name that it was told to listen on.
bool NamesThisMachine(std::string_view host, const std::string& own) {
  const size_t colon = host.rfind(':');
  const bool has_port = colon != std::string_view::npos &&
                        host.find_first_not_of("0123456789", colon + 1) == std::string_view::npos;
  std::string name(host.substr(0, has_port ? colon : host.size()));
  if (name.starts_with('[') && name.ends_with(']')) {
    in6_addr ip{};
    return ::inet_pton(AF_INET6, name.substr(1, name.size() - 2).c_str(), &ip) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&ip) || (IN6_IS_ADDR_V4MAPPED(&ip) && ip.s6_addr[12] == 127));
  }
  in_addr ip{};
  if (::inet_pton(AF_INET, name.c_str(), &ip) == 1) return (ntohl(ip.s_addr) >> 24) == 127;
  return ::strcasecmp(name.c_str(), "localhost") == 0 ||
         (!own.empty() && ::strcasecmp(name.c_str(), own.c_str()) == 0);
}

Refusal CheckLength(const Route& route, const RequestParser::Head& head, int64_t bytes_max) {
  if (route.body == Route::Body::kNone && head.has_body()) {
    return {400, "this route takes no body", "unexpected_body", {}};
  }
  if (head.content_length.value_or(0) > bytes_max) {
    return {
        413,
        fmt::format("the body has {} bytes, at most {} are taken here ({})", *head.content_length, bytes_max,
                    route.body == Route::Body::kFile ? "limits.document_bytes" : "limits.body_bytes"),
        "body_too_large",
        {}};
  }
  return {};
}

}  // namespace

Refusal RefusalOf(const absl::Status& status) {
  Refusal refusal{HttpStatusOf(status), Message(status), "", {}};
  if (const auto seconds = RetryAfter(status)) refusal.more["retry-after"] = std::to_string(*seconds);
  if (refusal.status == 429) refusal.code = "too_many_requests";
  if (refusal.status == 507) refusal.code = "out_of_space";
  return refusal;
}

Refusal CheckPage(const Headers& headers, bool https, bool loopback, const std::string& own_host) {
  const auto value = [&](const char* name) {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  };
  const std::string host = value("host"), own = (https ? "https://" : "http://") + host;
  const bool of_another =
      value("sec-fetch-site") == "cross-site" || (headers.contains("origin") && value("origin") != own);
  if (of_another) {
    return {403,
            fmt::format("a page of another site than {} may not ask where no API key is asked for: set "
                        "server.api_keys_file, and have it send a key (to the admin listener no page may)",
                        Quoted(own, 256)),
            "forbidden",
            {}};
  }
  if (loopback && headers.contains("host") && !NamesThisMachine(host, own_host)) {
    return {403,
            fmt::format("Host {} is not localhost or a loopback address, and no other is taken where no API "
                        "key is asked for: send one of those, or set server.api_keys_file (to the admin "
                        "listener no other)",
                        Quoted(host, 256)),
            "forbidden",
            {}};
  }
  return {};
}

Admitted Admit(const HttpServer::Options& options, bool loopback, const Router& router,
               const RequestParser::Head& head) {
  Admitted admitted;
  const auto id = head.headers.find("x-request-id");
  const bool own_id = id != head.headers.end() && IsRequestId(id->second);
  admitted.request_id = own_id ? id->second : NewRequestId();
  admitted.head_only = head.method == "HEAD";

  Request& request = admitted.request;
  if (const absl::Status status = DecodeTarget(head.target, request.path, request.query); !status.ok()) {
    admitted.refusal = RefusalOf(status);
    return admitted;
  }
  Router::Match match = router.Find(head.method, request.path);
  if (match.route == nullptr && admitted.head_only) match = router.Find("GET", request.path);
  admitted.route = match.route;
  if (options.keys == nullptr) {
    const bool https = options.tls && !options.config.server.tls_certificate.empty();
    admitted.refusal = CheckPage(head.headers, https, loopback, options.host);
    if (admitted.refusal.status != 0) return admitted;
  }
  if (match.route == nullptr) {
    admitted.refusal = NoRoute(match, head.method == "OPTIONS");
    return admitted;
  }
  if (options.keys != nullptr && match.route->access == Route::Access::kKey) {
    admitted.refusal = CheckKey(*options.keys, head.headers, admitted.grant);
    if (admitted.refusal.status != 0) return admitted;
  }
  const Config::Limits& limits = options.config.limits;
  const bool on_disk = match.route->body == Route::Body::kFile;
  admitted.body_bytes_max = on_disk ? limits.document_bytes : limits.body_bytes;
  admitted.refusal = CheckLength(*match.route, head, admitted.body_bytes_max);

  request.method = head.method;
  request.parameters = std::move(match.parameters);
  request.headers = head.headers;
  request.headers.erase("authorization");  // handlers need the tenant, not the key
  request.request_id = admitted.request_id;
  if (admitted.grant != nullptr) request.tenant = admitted.grant->tenant();
  return admitted;
}

}  // namespace palimpsest::http
