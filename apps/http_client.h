// The client's side of HTTP: one call, one connection. What commands with --server speak.
//
// Errors : InvalidArgument: the URL. Unavailable: no server there, or it broke off; the address is named.
//          DeadlineExceeded: connecting or silence took too long. Cancelled within 50 ms of the token.
// TLS    : https:// checks the certificate against the system's authorities, or SSL_CERT_FILE's.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/base/cancel.h"
#include "proto/base/clock.h"

namespace palimpsest {

struct HttpCall {
  std::string method = "GET";
  std::string target;  // "/v1/models", encoded
  std::string content_type;
  std::string body;
  // Of an answer with status 200: its parts as they come, which are then not in HttpReply::body. False ends
  // the call.
  std::function<bool(std::string_view part)> on_part;
};

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // 1 GiB at most
};

class HttpClient {
 public:
  struct Options {
    std::string api_key;  // sent as a bearer token; none if empty
    const CancelToken* cancel = &CancelToken::Never();
    Duration connect_limit = std::chrono::seconds(5);
    Duration silence_limit = std::chrono::minutes(10);  // without a byte of the answer
  };
  // `url`: http://HOST[:PORT] or https://..., a path in front of the API is allowed.
  static absl::StatusOr<std::unique_ptr<HttpClient>> Create(std::string_view url, Options options);
  virtual ~HttpClient() = default;
  virtual absl::StatusOr<HttpReply> Send(const HttpCall& call) = 0;
};

// Percent-encodes all but letters, digits and -._~ .
std::string UrlEncode(std::string_view text);

}  // namespace palimpsest
