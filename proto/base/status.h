// The one error currency: absl::Status with a message worded by the first function that knows the error.
//
// A message names what went wrong, which object (id, path, numbers) and what to do. It never holds document
// text. What a user, disk or network sends is a Status; PALIMPSEST_CHECK is for our own bugs.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace palimpsest {

// Debian's absl::string_view is a type of its own; these two lines are the only bridge.
inline absl::string_view ToAbsl(std::string_view s) { return absl::string_view(s.data(), s.size()); }
inline std::string_view ToStd(absl::string_view s) { return std::string_view(s.data(), s.size()); }

// A status of `code` whose message is formatted by fmt: Error(absl::StatusCode::kNotFound, "document {}",
// id).
template <typename... Args>
absl::Status Error(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, ToAbsl(fmt::format(format, std::forward<Args>(args)...)));
}

template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kInvalidArgument, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kNotFound, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status Unimplemented(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kUnimplemented, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kResourceExhausted, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status FailedPrecondition(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kFailedPrecondition, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kDataLoss, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return Error(absl::StatusCode::kInternal, format, std::forward<Args>(args)...);
}

inline std::string Message(const absl::Status& status) { return std::string(ToStd(status.message())); }

// Seconds after which what was refused may be asked again; nullopt: this error does not go away by waiting.
// The number travels beside the message and stays with every copy of the status.
std::optional<int64_t> RetryAfter(const absl::Status& status);
absl::Status WithRetryAfter(absl::Status status, int64_t seconds);

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, std::string_view detail);

}  // namespace palimpsest

#define PALIMPSEST_CONCAT_INNER(a, b) a##b
#define PALIMPSEST_CONCAT(a, b) PALIMPSEST_CONCAT_INNER(a, b)

#define PALIMPSEST_RETURN_IF_ERROR(expression)                \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

// `left` may be a declaration, which parentheses would break.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define PALIMPSEST_ASSIGN_OR_RETURN(left, expression) \
  PALIMPSEST_ASSIGN_OR_RETURN_INNER(PALIMPSEST_CONCAT(status_or_, __LINE__), left, expression)
#define PALIMPSEST_ASSIGN_OR_RETURN_INNER(status_or, left, expression) \
  auto status_or = (expression);                                       \
  if (!status_or.ok()) {                                               \
    return std::move(status_or).status();                              \
  }                                                                    \
  left = std::move(status_or).value()
// NOLINTEND(bugprone-macro-parentheses)

// An invariant of ours; on in every build. PALIMPSEST_CHECK(used <= capacity, "used {} capacity {}", used,
// capacity)
#define PALIMPSEST_CHECK(condition, ...)                                                        \
  do {                                                                                          \
    if (!(condition)) [[unlikely]] {                                                            \
      ::palimpsest::CheckFailed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
    }                                                                                           \
  } while (false)
