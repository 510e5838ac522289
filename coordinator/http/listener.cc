#include "coordinator/http/listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "coordinator/http/http.h"
#include "proto/base/log.h"
#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest::http {
namespace {

constexpr int kBacklog = 1024;
constexpr int kAcceptsMax = 64;  // between two looks at the stop flag

std::string ErrnoText(int error) { return std::generic_category().message(error); }

struct Address {
  sockaddr_storage bytes{};
  socklen_t length = 0;
  bool ipv6() const { return bytes.ss_family == AF_INET6; }
};

int64_t PortOf(const Address& address) {
  return ntohs(address.ipv6() ? reinterpret_cast<const sockaddr_in6&>(address.bytes).sin6_port
                              : reinterpret_cast<const sockaddr_in&>(address.bytes).sin_port);
}

bool IsLoopback(const Address& address) {
  if (!address.ipv6()) {
    return (ntohl(reinterpret_cast<const sockaddr_in&>(address.bytes).sin_addr.s_addr) >> 24) == 127;
  }
  const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address.bytes).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&ip) || (IN6_IS_ADDR_V4MAPPED(&ip) && ip.s6_addr[12] == 127);
}

std::string NameOf(const Address& address) {
  std::array<char, NI_MAXHOST> host{};
  const int error = ::getnameinfo(reinterpret_cast<const sockaddr*>(&address.bytes), address.length,
                                  host.data(), host.size(), nullptr, 0, NI_NUMERICHOST);
  return error == 0 ? host.data() : "?";
}

// Of several addresses the first of version 4: "localhost" is 127.0.0.1, as most clients take it.
absl::StatusOr<Address> Resolve(const std::string& host, int64_t port, const std::string& setting) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  const int error = host.empty() ? EAI_NONAME : ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (error != 0 || found == nullptr) {
    return InvalidArgument("{} {}: no such address of this machine ({}); 127.0.0.1 is this machine only",
                           setting, Quoted(host), ::gai_strerror(error));
  }
  const addrinfo* best = found;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    if (at->ai_family == AF_INET && best->ai_family != AF_INET) best = at;
  }
  Address address;
  std::memcpy(&address.bytes, best->ai_addr, best->ai_addrlen);
  address.length = best->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

absl::Status BindError(int error, const std::string& host, int64_t port, const std::string& host_setting,
                       const std::string& port_setting) {
  switch (error) {
    case EADDRINUSE:
      return Error(
          absl::StatusCode::kUnavailable,
          "{} {} is in use on {}: stop the process that has it, or set {} to another port (0: any free "
          "one)",
          port_setting, port, Quoted(host), port_setting);
    case EACCES:
      return Error(absl::StatusCode::kPermissionDenied,
                   "{} {}: this user may not listen there; ports from 1024 on need no privilege",
                   port_setting, port);
    case EADDRNOTAVAIL:
      return InvalidArgument("{} {} is not an address of this machine", host_setting, Quoted(host));
    default:
      return Internal("{} {} port {}: {}", host_setting, Quoted(host), port, ErrnoText(error));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(const std::string& host, int64_t port,
                                                         const std::string& host_setting,
                                                         const std::string& port_setting) {
  PALIMPSEST_ASSIGN_OR_RETURN(Address address, Resolve(host, port, host_setting));
  const int fd = ::socket(address.bytes.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return BindError(errno, host, port, host_setting, port_setting);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address.bytes), address.length) != 0 ||
      ::listen(fd, kBacklog) != 0) {
    const int error = errno;
    ::close(fd);
    return BindError(error, host, port, host_setting, port_setting);
  }
  address.length = sizeof address.bytes;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address.bytes), &address.length);
  const int wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  PALIMPSEST_CHECK(wake_fd >= 0, "eventfd: {}", ErrnoText(errno));
  return std::unique_ptr<Listener>(
      new Listener(fd, wake_fd, address.ipv6(), IsLoopback(address), PortOf(address)));
}

Listener::~Listener() {
  Stop();
  if (fd_ >= 0) ::close(fd_);
  ::close(wake_fd_);
}

void Listener::Run(Accept accept, std::function<void()> tick) {
  thread_ = std::thread([this, accept = std::move(accept), tick = std::move(tick)] { Loop(accept, tick); });
}

void Listener::Stop() {
  stopped_.store(true);
  const uint64_t one = 1;
  if (::write(wake_fd_, &one, sizeof one) < 0) errno = 0;
  if (!thread_.joinable()) return;
  thread_.join();
  ::close(fd_);
  fd_ = -1;
}

void Listener::Loop(const Accept& accept, const std::function<void()>& tick) {
  constexpr std::chrono::seconds kTick{1};
  auto next_tick = std::chrono::steady_clock::now() + kTick;
  while (!stopped_.load()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(next_tick - std::chrono::steady_clock::now());
    std::array<pollfd, 2> fds = {pollfd{fd_, POLLIN, 0}, pollfd{wake_fd_, POLLIN, 0}};
    ::poll(fds.data(), fds.size(), static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (stopped_.load()) return;
    if (fds[0].revents != 0) AcceptAll(accept);
    if (std::chrono::steady_clock::now() >= next_tick) {
      tick();
      next_tick = std::chrono::steady_clock::now() + kTick;
    }
  }
}

void Listener::AcceptAll(const Accept& accept) {
  for (int i = 0; i < kAcceptsMax && !stopped_.load(); ++i) {
    Address client;
    client.length = sizeof client.bytes;
    const int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&client.bytes), &client.length,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      accept(fd, ipv6_, NameOf(client));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      PALIMPSEST_LOG(kWarn, "cannot accept a connection: {}; raise the limit of open files (ulimit -n)",
                     LogName(ErrnoText(errno)));
      // The connection waits in the kernel: without a pause poll() would return at once, again and again.
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return;
  }
}

void SetClientOptions(int fd) {
  const int on = 1, idle = 30, interval = 10, count = 3, low_water = 64 << 10;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  // What a client does not take stays with us, where it counts against its limit.
  ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low_water, sizeof low_water);
}

void TurnAway(int fd, int64_t connections_max) {
  const std::string body = ErrorBody(
      503,
      fmt::format("{} connections are open already (limits.connections); come again in 1 s", connections_max),
      "unavailable");
  const std::string answer = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
      "Retry-After: 1\r\nConnection: close\r\n\r\n{}",
      body.size(), body);
  // One try for each, without waiting: a fresh socket has room. What was read cannot make close() send a
  // reset that overtakes the answer.
  if (::send(fd, answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
    ::shutdown(fd, SHUT_WR);
    std::array<char, 16 << 10> ignored;
    if (::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT) < 0) errno = 0;
  }
  ::close(fd);
}

}  // namespace palimpsest::http
