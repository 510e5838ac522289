#include "tests/coordinator/http/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <utility>

#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

using SteadyClock = std::chrono::steady_clock;

double Left(SteadyClock::time_point end) {
  return std::chrono::duration<double>(end - SteadyClock::now()).count();
}

SteadyClock::time_point After(double seconds) {
  return SteadyClock::now() + std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6));
}

}  // namespace

Client::Client(int64_t port, int receive_buffer_bytes)
    : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (receive_buffer_bytes > 0) {
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int status = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  PALIMPSEST_CHECK(status == 0, "connect to port {}: errno {}", port, errno);
}

Client::~Client() {
  if (fd_ >= 0) ::close(fd_);
}

bool Client::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string Client::ReceiveSome(double seconds) {
  if (!ahead_.empty()) return std::exchange(ahead_, {});
  pollfd poll_fd{fd_, POLLIN, 0};
  if (::poll(&poll_fd, 1, static_cast<int>(seconds * 1000)) <= 0) return "";
  std::array<char, 64 << 10> bytes;
  const ssize_t got = ::recv(fd_, bytes.data(), bytes.size(), 0);
  return got <= 0 ? "" : std::string(bytes.data(), static_cast<size_t>(got));
}

bool Client::ClosedWithin(double seconds) {
  for (const auto end = After(seconds); Left(end) > 0;) {
    pollfd poll_fd{fd_, POLLIN, 0};
    if (::poll(&poll_fd, 1, static_cast<int>(Left(end) * 1000) + 1) <= 0) continue;
    std::array<char, 64 << 10> bytes;
    if (::recv(fd_, bytes.data(), bytes.size(), 0) <= 0) return true;
  }
  return false;
}

void Client::CloseSending() { ::shutdown(fd_, SHUT_WR); }

void Client::Reset() {
  const linger now{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  ::close(std::exchange(fd_, -1));
}

Answer Client::Receive(double seconds) {
  Answer answer;
  std::string bytes;
  const auto end = After(seconds);
  const auto more = [&] {
    const std::string some = Left(end) > 0 ? ReceiveSome(Left(end)) : "";
    bytes += some;
    return !some.empty();
  };
  size_t head_end;
  while ((head_end = bytes.find("\r\n\r\n")) == std::string::npos) {
    if (!more()) return answer;
  }
  answer.status = std::stoi(bytes.substr(9, 3));
  for (size_t at = bytes.find("\r\n") + 2; at < head_end;) {
    const size_t line_end = bytes.find("\r\n", at), colon = bytes.find(": ", at);
    std::string name = bytes.substr(at, colon - at);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    answer.headers[name] = bytes.substr(colon + 2, line_end - colon - 2);
    at = line_end + 2;
  }
  bytes.erase(0, head_end + 4);
  if (answer.status == 100) {
    ahead_ = bytes;
    return Receive(Left(end));
  }
  if (answer.headers.contains("content-length")) {
    const size_t length = std::stoul(answer.headers["content-length"]);
    while (bytes.size() < length && more()) {
    }
    answer.whole = bytes.size() >= length;
    answer.body = bytes.substr(0, length);
    ahead_ = bytes.size() > length ? bytes.substr(length) : "";
    return answer;
  }
  if (!answer.headers.contains("transfer-encoding")) {
    if (answer.status == 204) {
      ahead_ = bytes;
      answer.whole = true;
      return answer;
    }
    while (more()) {
    }
    answer.body = bytes;
    answer.whole = true;
    return answer;
  }
  for (;;) {
    size_t line_end;
    while ((line_end = bytes.find("\r\n")) == std::string::npos) {
      if (!more()) return answer;
    }
    const size_t length = std::stoul(bytes.substr(0, line_end), nullptr, 16);
    while (bytes.size() < line_end + 2 + length + 2) {
      if (!more()) return answer;
    }
    answer.body += bytes.substr(line_end + 2, length);
    bytes.erase(0, line_end + 2 + length + 2);
    if (length > 0) continue;
    answer.whole = true;
    ahead_ = bytes;
    return answer;
  }
}

Answer Client::Get(const std::string& path, const std::string& headers) {
  Send(fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", path, headers));
  return Receive();
}

Answer Client::Post(const std::string& path, std::string_view body, const std::string& headers) {
  Send(fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n", path, body.size(),
                   headers));
  Send(body);
  return Receive();
}

}  // namespace palimpsest::http
