// The bytes of a connection to the parts of a request: head, then pieces of body, then done. One parser for
// each request; what follows in the connection is left to the next. Holds no body: the caller takes each
// piece before it hands in more.
//
// Refused: what two readers could understand differently (both lengths, a length twice, other transfer
//          codings than chunked, no Host or two), heads over the limits, versions other than 1.0 and 1.1.
// Errors : failure(), with the HTTP status to answer; its text never repeats the client's.
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "coordinator/http/http.h"

namespace palimpsest::http {

class RequestParser {
 public:
  struct Limits {
    int64_t header_bytes, headers;
  };
  enum class State {
    kNeedMore,  // all that could be used was; more bytes are needed
    kHead,      // head() is complete
    kBody,      // body() has a piece
    kDone,
    kFailed,
  };
  struct Head {
    std::string method, target;
    bool http10 = false, keep_alive = true;
    Headers headers;                        // of a name that stands twice: joined by ", "
    std::optional<int64_t> content_length;  // neither this nor chunked: no body
    bool chunked = false, wants_continue = false;
    bool has_body() const { return chunked || content_length.value_or(0) > 0; }
  };
  struct Failure {
    int status = 400;
    std::string message;
  };

  static std::unique_ptr<RequestParser> Create(Limits limits);
  virtual ~RequestParser() = default;
  // Reads from the front of `bytes` up to the next state; `used` is how many bytes are done with. After
  // kNeedMore call again with the bytes not used and more behind them.
  virtual State Put(std::string_view bytes, size_t& used) = 0;
  virtual bool started() const = 0;  // some byte of the head has been seen
  virtual const Head& head() const = 0;
  virtual std::string_view body() const = 0;  // valid until the next Put
  virtual const Failure& failure() const = 0;
};

}  // namespace palimpsest::http
