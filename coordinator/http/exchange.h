// One request and the answer to it: the Response that a handler sees, put into HTTP's form and into the
// connection's outbox.
//
// Threads: the Response's functions belong to the handler until finished(); then everything is the
// connection's. SetGone from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "coordinator/http/api_keys.h"
#include "coordinator/http/http.h"
#include "coordinator/http/outbox.h"
#include "coordinator/http/upload_file.h"
#include "proto/base/clock.h"

namespace palimpsest::http {

class Exchange final : public Response {
 public:
  struct Options {
    std::shared_ptr<Outbox> outbox;               // shared with the connection, which may end first
    const CancelToken* stop = nullptr;            // of the server
    const std::atomic<bool>* draining = nullptr;  // then the connection is closed after the answer
    bool http10 = false, keep_alive = true, head_only = false;
    const Route* route = nullptr;
  };
  explicit Exchange(const Options& options) : options_(options), gone_(options.stop) {}

  Request request;
  std::unique_ptr<ApiKeys::Grant> grant;  // counts against the key while the request runs
  std::unique_ptr<UploadFile> upload;     // of request.body_file
  TimePoint begun;

  void Send(int status, std::string_view content_type, std::string body, const Headers& more) override;
  void BeginStream(int status, std::string_view content_type, const Headers& more) override;
  bool Write(std::string_view part) override;
  void End() override;
  const CancelToken& gone() const override { return gone_; }
  const std::string& request_id() const override { return request.request_id; }

  // The handler, whole: an answer is there at the end, whatever it did.
  void Run();
  bool finished() const { return finished_.load(std::memory_order_acquire); }
  void SetGone() { gone_.Set(); }

  const Route* route() const { return options_.route; }
  int status() const { return status_; }  // 0: nothing was sent
  int64_t bytes() const { return bytes_; }
  bool close_after() const { return close_after_; }  // the connection cannot take another request

 private:
  enum class Phase { kNothing, kStream, kEnded };
  void AppendHead(int status, std::string_view content_type, const Headers& more, int64_t content_length);
  bool Append(std::string_view bytes);

  const Options options_;
  CancelToken gone_;
  Phase phase_ = Phase::kNothing;
  int status_ = 0;
  int64_t bytes_ = 0;  // of the answer, head included
  bool close_after_ = false;
  std::atomic<bool> finished_{false};
};

// Status line, headers and the empty line. content_length < 0: none.
std::string ResponseHead(int status, std::string_view content_type, const Headers& more,
                         const std::string& request_id, bool http10, bool close, bool chunked,
                         int64_t content_length);

}  // namespace palimpsest::http
