// HTTP between the server and the handlers, in words of no library: what a handler sees of a request, how it
// answers, and which handler gets what. Only http_server.cc knows Beast.
//
// A handler runs on a thread of its own and may block. It answers with Send, or with BeginStream, Write...,
// End.
// Threads: a request and its response belong to the handler's thread; gone() is set from outside.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "proto/base/cancel.h"

namespace palimpsest::http {

using Headers = std::map<std::string, std::string>;  // names in lower case

struct Request {
  std::string method;                             // "GET"
  std::string path;                               // decoded, without the query: "/v1/documents/doc-1"
  std::map<std::string, std::string> query;       // decoded
  std::map<std::string, std::string> parameters;  // of the route: {id}
  Headers headers;
  std::string body;        // of routes that take it in memory
  std::string body_file;   // of routes that take it on disk: a file that is removed after the handler
  std::string client;      // address, for logs
  std::string tenant;      // of the API key; "" with no keys
  std::string request_id;  // the client's X-Request-Id if it is well-formed, else made here; sent back
};

class Response {
 public:
  virtual ~Response() = default;
  // The whole answer.
  virtual void Send(int status, std::string_view content_type, std::string body,
                    const Headers& more = {}) = 0;
  // An answer in parts (chunked).
  virtual void BeginStream(int status, std::string_view content_type, const Headers& more = {}) = 0;
  // Waits while the client's buffer is full. False: the client is gone, or was cut because it took nothing
  // for too long; nothing more is sent.
  virtual bool Write(std::string_view part) = 0;
  virtual void End() = 0;
  // Set once the client is gone or the server stops at once.
  virtual const CancelToken& gone() const = 0;
  // Of the request: what an error says in the log is found by it.
  virtual const std::string& request_id() const = 0;
};

using Handler = std::function<void(const Request& request, Response& response)>;

struct Route {
  enum class Body { kNone, kMemory, kFile };
  enum class Access { kOpen, kKey };  // kKey: needs an API key where keys are configured
  std::string method;
  std::string pattern;  // "/v1/documents/{id}"; {name} is one segment
  Body body = Body::kNone;
  Access access = Access::kKey;
  Handler handler;
  bool takes_rest = false;  // a {name} at the end is what is left of the path, slashes too
};

// Longest literal match wins. Plain data; fill it before the server starts.
class Router {
 public:
  void Add(Route route);
  struct Match {
    const Route* route = nullptr;                   // null: 404 or, with `allowed`, 405
    std::map<std::string, std::string> parameters;  // of the pattern
    std::vector<std::string> allowed;               // methods of this path
  };
  Match Find(std::string_view method, std::string_view path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

// {"error": {"message", "type", "code", "param"}}; param null if empty.
std::string ErrorBody(int status, std::string_view message, std::string_view code = "",
                      std::string_view param = "");
// The HTTP status of an error, and the whole answer with Retry-After where there is one. The text of the
// status is sent to the client; Internal errors are logged and sent without details.
int HttpStatusOf(const absl::Status& status);
void SendError(Response& response, const absl::Status& status, std::string_view param = "");

}  // namespace palimpsest::http
