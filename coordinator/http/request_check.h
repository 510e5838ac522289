// From the head of a request to an exchange, or to the reason why not: route, key or page, size. Before a
// byte of body is read.
//
// Threads: the I/O thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "coordinator/http/exchange.h"
#include "coordinator/http/http_server.h"
#include "coordinator/http/request_parser.h"

namespace palimpsest::http {

// An answer of the server itself.
struct Refusal {
  int status = 0;  // 0: none
  std::string message, code;
  Headers more;
};
Refusal RefusalOf(const absl::Status& status);

// Where no key is asked for, every page that a browser of this machine opens could ask. So none of another
// site may, and on loopback none under a name that was only made to lead here. Status 0: nothing against it.
// `own_host`: the name it listens on.
Refusal CheckPage(const Headers& headers, bool https, bool loopback, const std::string& own_host = "");

struct Admitted {
  std::string request_id;
  const Route* route = nullptr;  // known even for some refusals
  Request request;
  std::unique_ptr<ApiKeys::Grant> grant;
  bool head_only = false;  // HEAD
  int64_t body_bytes_max = 0;
  Refusal refusal;
};
// `loopback`: only this machine reaches the listener.
Admitted Admit(const HttpServer::Options& options, bool loopback, const Router& router,
               const RequestParser::Head& head);

}  // namespace palimpsest::http
