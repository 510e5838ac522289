// A blocking client on plain sockets that can also misbehave: for the server's tests.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace palimpsest::http {

struct Answer {
  int status = 0;                              // 0: the connection ended before there was an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks put together
  bool whole = false;                          // ended as its headers say
};

class Client {
 public:
  explicit Client(int64_t port, int receive_buffer_bytes = 0);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool Send(std::string_view bytes);  // false: the server has closed
  // Some bytes within `seconds`; "" at the end of the connection or the time.
  std::string ReceiveSome(double seconds = 10);
  Answer Receive(double seconds = 20);  // one answer; what follows is kept for the next
  bool ClosedWithin(double seconds);    // reads and drops until the end
  void CloseSending();
  void Reset();  // closes with a reset

  Answer Get(const std::string& path, const std::string& headers = "");
  Answer Post(const std::string& path, std::string_view body, const std::string& headers = "");

 private:
  int fd_;
  std::string ahead_;
};

}  // namespace palimpsest::http
