#include "apps/serving/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <system_error>

#include "proto/base/quote.h"
#include "proto/base/status.h"

namespace palimpsest {

absl::Status NotifyServiceManager(std::string_view socket, std::string_view state) {
  if (socket.empty()) return absl::OkStatus();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.size() >= sizeof address.sun_path || (socket[0] != '/' && socket[0] != '@')) {
    return InvalidArgument("NOTIFY_SOCKET {} is neither an absolute path nor @name", Quoted(socket, 256));
  }
  std::memcpy(address.sun_path, socket.data(), socket.size());
  if (socket[0] == '@') address.sun_path[0] = '\0';  // abstract: the name has its own length, no final zero
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket.size());
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool sent = fd >= 0 && ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                                        reinterpret_cast<const sockaddr*>(&address), length) >= 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (sent) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable, "NOTIFY_SOCKET {}: {}", Quoted(socket, 256),
               std::generic_category().message(error));
}

}  // namespace palimpsest
