// Tells systemd how far this process is (Type=notify): one datagram to the socket that $NOTIFY_SOCKET names.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace palimpsest {

// `socket` is the variable's value: a path, or '@' and an abstract name; empty: nobody wants to know. `state`
// is "READY=1" or "STOPPING=1".
absl::Status NotifyServiceManager(std::string_view socket, std::string_view state);

}  // namespace palimpsest
