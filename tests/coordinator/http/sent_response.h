// A Response that keeps what a handler sends.
#pragma once

#include <string>
#include <utility>

#include "coordinator/http/http.h"

namespace palimpsest::http {

class SentResponse : public Response {
 public:
  void Send(int status_sent, std::string_view type_sent, std::string body_sent,
            const Headers& more_sent) override {
    status = status_sent;
    type = type_sent;
    body = std::move(body_sent);
    more = more_sent;
  }
  void BeginStream(int, std::string_view, const Headers&) override {}
  bool Write(std::string_view) override { return false; }
  void End() override {}
  const CancelToken& gone() const override { return CancelToken::Never(); }
  const std::string& request_id() const override { return id; }

  const std::string id = "r-1";
  int status = 0;
  std::string type, body;
  Headers more;
};

}  // namespace palimpsest::http
