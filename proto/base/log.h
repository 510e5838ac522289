// One log line: PALIMPSEST_LOG(kInfo, "sealed document {} blocks {} seconds {:.1f}", LogName(id), blocks,
// seconds);
//
// Words: lower case, `key value` pairs, ids in one form. Levels by consequence: trace and debug for us, info
// for what an operator did or must know once, warn for what was survived but cost something, error for what a
// user lost.
//
// Nothing secret can be logged by accident (invariant I-18). An argument is a number, a bool, an enum, a
// status, a literal, or one of two wrappers; a bare string, a pointer or a container (token ids!) does not
// compile:
//   LogName(x)   an id, a path, a host, a name: one line, control characters escaped, cut at 256 bytes
//   Redacted(x)  document text, prompts, answers, keys: only the length and 8 hex digits of a keyed hash
// The hash is keyed anew by every process: equal texts show as equal within one log, and no one can test a
// guess later. Wrap nothing in LogName that a user wrote as content. A status may be logged because its
// message never holds text.
//
// Threads: any thread; lines are whole. A line below the level costs one relaxed load and evaluates no
// argument.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/base/quote.h"

namespace palimpsest {

enum class LogLevel : int { kTrace, kDebug, kInfo, kWarn, kError, kOff };
enum class LogFormat { kText, kJson };

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name);    // trace debug info warn error off
absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name);  // text json

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  // Takes each finished line, newline included, one at a time. Empty: stderr.
  std::function<void(std::string_view line)> sink;
};

// Replaces what was set before; without it the defaults above hold.
// Text: `2026-01-31T12:00:00.000Z info  message`. JSON: {"time", "level", "source", "message"}, one object a
// line.
void InitLog(LogOptions options);

// What may stand in a log line as it is: see the top.
class LogName {
 public:
  explicit LogName(std::string_view name) : name_(name) {}
  std::string_view name() const { return name_; }

 private:
  std::string_view name_;
};

// Stands for text that must not be read: prints `[1234 bytes 1a2b3c4d]`.
class Redacted {
 public:
  explicit Redacted(std::string_view text) : text_(text) {}
  std::string ToString() const;

 private:
  std::string_view text_;
};

namespace log_internal {

extern std::atomic<LogLevel> level;

template <typename T>
inline constexpr bool kIsLoggable =
    std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_same_v<T, absl::Status> ||
    std::is_same_v<T, LogName> || std::is_same_v<T, Redacted>;
template <size_t size>
inline constexpr bool kIsLoggable<const char[size]> = true;  // a literal; a char buffer is not const

void Write(LogLevel line_level, const char* file, int line, std::string_view message);

template <typename... Args>
void Format(LogLevel line_level, const char* file, int line, fmt::format_string<Args...> format,
            Args&&... args) {
  // What a reference refers to, const kept on arrays: it is what tells a literal from a buffer.
  static_assert(
      (... && (kIsLoggable<std::remove_cvref_t<Args>> || kIsLoggable<std::remove_reference_t<Args>>)),
      "log strings as LogName(id or path) or Redacted(text), containers not at all");
  Write(line_level, file, line, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace log_internal

inline bool LogEnabled(LogLevel level) {
  return level >= log_internal::level.load(std::memory_order_relaxed);
}

}  // namespace palimpsest

#define PALIMPSEST_LOG(level, ...)                                                                        \
  do {                                                                                                    \
    if (::palimpsest::LogEnabled(::palimpsest::LogLevel::level)) {                                        \
      ::palimpsest::log_internal::Format(::palimpsest::LogLevel::level, __FILE__, __LINE__, __VA_ARGS__); \
    }                                                                                                     \
  } while (false)

template <>
struct fmt::formatter<palimpsest::LogName> : fmt::formatter<std::string_view> {
  template <typename Context>
  auto format(const palimpsest::LogName& value, Context& context) const {
    return fmt::formatter<std::string_view>::format(palimpsest::OneLine(value.name()), context);
  }
};

template <>
struct fmt::formatter<palimpsest::Redacted> : fmt::formatter<std::string_view> {
  template <typename Context>
  auto format(const palimpsest::Redacted& value, Context& context) const {
    return fmt::formatter<std::string_view>::format(value.ToString(), context);
  }
};

// "NOT_FOUND: message", on one line.
template <>
struct fmt::formatter<absl::Status> : fmt::formatter<std::string_view> {
  template <typename Context>
  auto format(const absl::Status& status, Context& context) const {
    return fmt::formatter<std::string_view>::format(palimpsest::OneLine(status.ToString(), 1024), context);
  }
};
